//! How much may be made at once. The memory of a query counts what its operators keep, and not what is made of a batch on the
//! way, which may be far more: a few bytes of a statement ask for terabytes. So a call of a function whose results would not
//! fit is refused before it makes them, and rows are copied some megabytes at a time.

use super::counted;
use super::errors::wrap;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder};
use datafusion::arrow::compute::concat;
use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExpressionPlacement, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, StructFieldMapping,
};
use datafusion::scalar::ScalarValue;
use model::{Code, Error};
use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

/// What the results of one call may have: those of a batch.
pub const BYTES_MAX: usize = 256 << 20;

/// What a value may have that is computed when a query is planned and need not be: it becomes part of the plan, and of names in
/// it, where nobody counts it.
const FOLDED_BYTES_MAX: usize = 4 << 20;
/// What all values of a query may have together that are computed when it is planned.
const PLANNED_BYTES_MAX: usize = 64 << 20;

/// Columns of a query: each may have a batch of values that are too short to be counted. An UPDATE of the widest table has twice
/// as many as that.
const COLUMNS_MAX: usize = 4096;

/// What texts have that are copied at once, about.
const COPIED_BYTES: usize = 8 << 20;

/// What an element of a list takes beside its text.
const ELEMENT_BYTES: usize = 16;

/// Texts in the making, and how long they are together.
pub struct Texts {
    pub made: StringViewBuilder,
    bytes: usize,
}

impl Texts {
    pub fn new(rows: usize) -> Self {
        Self { made: StringViewBuilder::with_capacity(rows), bytes: 0 }
    }

    /// Before a text of so many bytes is made.
    ///
    /// Errors: `LimitExceeded`.
    pub fn reserve(&mut self, bytes: usize) -> DfResult<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        within_bounds(self.bytes)
    }

    pub fn finish(mut self) -> ArrayRef {
        Arc::new(self.made.finish())
    }
}

/// How much may be made on this thread.
#[derive(Clone, Copy)]
struct Room {
    /// At once.
    each: usize,
    /// In all.
    left: usize,
}

thread_local! {
    static ROOM: Cell<Room> = const { Cell::new(Room { each: BYTES_MAX, left: usize::MAX }) };
}

/// Does a step in so much room; answers how much is left, too.
fn in_room<T>(room: Room, step: impl FnOnce() -> T) -> (T, Room) {
    struct Outer(Room);
    impl Drop for Outer {
        fn drop(&mut self) {
            ROOM.set(self.0);
        }
    }
    let _outer = Outer(ROOM.replace(room));
    (step(), ROOM.get())
}

/// Plans. Calls of functions that make long values are refused meanwhile, so that the engine leaves them for when the query
/// runs.
pub fn while_folding<T>(plan: impl FnOnce() -> T) -> T {
    in_room(Room { each: FOLDED_BYTES_MAX, left: PLANNED_BYTES_MAX }, plan).0
}

/// Makes a plan, and the rows of VALUES in it, as far as there is room for these.
pub async fn while_planning<T>(plan: impl Future<Output = T>) -> T {
    let (mut plan, mut room) = (pin!(plan), Room { each: PLANNED_BYTES_MAX, left: PLANNED_BYTES_MAX });
    poll_fn(|context| {
        let (step, left) = in_room(room, || plan.as_mut().poll(context));
        room = left;
        step
    })
    .await
}

/// Whether so much may be made at once.
///
/// Errors: `LimitExceeded`.
pub fn within_bounds(bytes: usize) -> DfResult<()> {
    let Room { each, left } = ROOM.get();
    if bytes <= each.min(left) {
        ROOM.set(Room { each, left: left - bytes });
        return Ok(());
    }
    let (max, how) = if bytes > each { (each, "at once") } else { (PLANNED_BYTES_MAX, "together") };
    let message = format!("functions make values of more than {} MiB {how}", max >> 20);
    Err(wrap(Error::new(Code::LimitExceeded, message).with_hint("ask for shorter values, or for fewer rows")))
}

/// Whether values of a type may be long.
pub fn is_long(ty: &DataType) -> bool {
    ty.is_string() || ty.is_binary() || ty.is_nested()
}

/// How long the results of a function may become.
enum Growth {
    /// They are parts of what it is called with, or have a fixed length, or it keeps to the bound by itself.
    None,
    /// As long as all its arguments together.
    Together,
    /// A list with an element for each character.
    TakenApart,
    /// A text for each element of a list.
    EachElement,
}

fn growth_of(function: &str) -> Growth {
    match function {
        "substr" | "left" | "right" | "btrim" | "ltrim" | "rtrim" | "trim_padding" | "md5" | "sha224" | "sha256"
        | "sha384" | "sha512" | "digest" | "json_part" | "json_part_text" | "json_extract_path" | "array_element"
        | "convert_to" | "as_written" | "only_row" | "repeat" | "replace" | "lpad" | "rpad" | "regexp_replace" => {
            Growth::None
        }
        "string_to_array" => Growth::TakenApart,
        "array_to_string" | "array_replace" | "array_replace_n" | "array_replace_all" => Growth::EachElement,
        _ => Growth::Together,
    }
}

/// Refuses a call of a function that makes texts or lists, when they may become too long.
pub fn check(function: &str, args: &ScalarFunctionArgs) -> DfResult<()> {
    let makes = args.return_field.data_type();
    let growth = growth_of(function);
    if matches!(growth, Growth::None) || !is_long(makes) {
        return Ok(());
    }
    let mut size = Size::default();
    for arg in &args.args {
        let of_arg = match arg {
            ColumnarValue::Array(array) => size_of(array),
            ColumnarValue::Scalar(value) => size_of_scalar(value)?.times(args.number_rows),
        };
        size.bytes = size.bytes.saturating_add(of_arg.bytes);
        size.elements = size.elements.saturating_add(of_arg.elements);
        size.longest = size.longest.max(of_arg.longest);
    }
    within_bounds(match growth {
        Growth::None => 0,
        Growth::Together => size.total(),
        Growth::TakenApart => size.bytes.saturating_mul(ELEMENT_BYTES),
        Growth::EachElement => size.total().saturating_add(size.elements.saturating_mul(size.longest)),
    })
}

/// How many rows a call takes at once: the engine copies a constant for each of them, but for texts of a type that rows can
/// share.
fn rows_of_call(args: &ScalarFunctionArgs) -> DfResult<usize> {
    let mut copied = 0_usize;
    for arg in &args.args {
        match arg {
            ColumnarValue::Scalar(ScalarValue::Utf8View(_)) | ColumnarValue::Array(_) => {}
            ColumnarValue::Scalar(value) => copied = copied.saturating_add(size_of_scalar(value)?.total()),
        }
    }
    Ok((COPIED_BYTES / copied.max(1)).clamp(1, args.number_rows.max(1)))
}

/// Refuses a query of too many columns.
pub fn check_columns(plan: &LogicalPlan) -> DfResult<()> {
    plan.apply_with_subqueries(|node| match node {
        LogicalPlan::Projection(projection) if projection.expr.len() > COLUMNS_MAX => {
            let message = format!("a query has more than {COLUMNS_MAX} columns");
            Err(wrap(Error::new(Code::LimitExceeded, message).with_hint("ask for fewer, or for arrays of them")))
        }
        _ => Ok(TreeNodeRecursion::Continue),
    })
    .map(drop)
}

/// Refuses constants that would be copied for each row of a result, when they become too long.
pub fn check_constants(plan: &LogicalPlan, rows_max: usize) -> DfResult<()> {
    plan.apply(|node| {
        let LogicalPlan::Projection(projection) = node else { return Ok(TreeNodeRecursion::Continue) };
        let rows = projection.input.max_rows().map_or(rows_max, |rows| rows.min(rows_max));
        for mut expr in &projection.expr {
            while let Expr::Alias(alias) = expr {
                expr = &alias.expr;
            }
            match expr {
                Expr::Literal(value, _) if value.data_type().is_nested() => {
                    within_bounds(size_of_scalar(value)?.times(rows).total())?;
                }
                _ => {}
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map(drop)
}

/// Of values: the bytes of all texts, the longest text outside of lists, and the number of elements of lists.
#[derive(Clone, Copy, Default)]
pub struct Size {
    bytes: usize,
    longest: usize,
    elements: usize,
}

impl Size {
    pub fn total(self) -> usize {
        self.bytes.saturating_add(self.elements.saturating_mul(ELEMENT_BYTES))
    }

    fn times(self, rows: usize) -> Self {
        let Self { bytes, longest, elements } = self;
        Self { bytes: bytes.saturating_mul(rows), longest, elements: elements.saturating_mul(rows) }
    }
}

/// The bytes of all texts of a batch, as often as they are shown.
pub fn text_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| size_of(column).bytes).fold(0, usize::saturating_add)
}

/// How many of a batch's rows go where texts that rows share, as those of a literal, are copied for each of them: so many
/// that their texts have some megabytes.
///
/// Errors: `LimitExceeded` when the first row alone has too much.
pub fn rows_to_copy(batch: &RecordBatch) -> DfResult<usize> {
    let rows = portions(batch, 0).first().copied().unwrap_or(0);
    let row_bytes = if rows == 1 { text_bytes(&batch.slice(0, 1)) } else { 0 };
    if row_bytes > BYTES_MAX {
        let message = format!("a row has more than {} MiB", BYTES_MAX >> 20);
        return Err(wrap(
            Error::new(Code::LimitExceeded, message).with_hint("ask for fewer columns, or for shorter values"),
        ));
    }
    Ok(rows)
}

/// The same for all of a batch, one after another, where each row is given so many bytes more.
pub fn portions(batch: &RecordBatch, more: usize) -> Vec<usize> {
    let rows = batch.num_rows();
    if text_bytes(batch).saturating_add(more.saturating_mul(rows)) <= COPIED_BYTES {
        return vec![rows];
    }
    let mut lengths = vec![more; rows];
    let mut add = |at: usize, length: usize| lengths[at] = lengths[at].saturating_add(length);
    for column in batch.columns() {
        match column.as_string_view_opt() {
            Some(texts) => texts.lengths().enumerate().for_each(|(at, length)| add(at, length as usize)),
            None => {
                let each = size_of(column).bytes / rows;
                (0..rows).for_each(|at| add(at, each));
            }
        }
    }
    let (mut portions, mut bytes) = (Vec::new(), 0_usize);
    for length in lengths {
        bytes = bytes.saturating_add(length);
        match portions.last_mut() {
            Some(fit) if bytes <= COPIED_BYTES => *fit += 1,
            _ => {
                portions.push(1);
                bytes = length;
            }
        }
    }
    portions
}

pub fn size_of_scalar(value: &ScalarValue) -> DfResult<Size> {
    match value.try_as_str() {
        Some(text) => {
            let length = text.map_or(0, str::len);
            Ok(Size { bytes: length, longest: length, elements: 0 })
        }
        None if value.data_type().is_primitive() => Ok(Size::default()),
        None => Ok(size_of(&value.to_array()?)),
    }
}

pub fn size_of(array: &ArrayRef) -> Size {
    let of_lengths = |lengths: &mut dyn Iterator<Item = usize>| {
        lengths.fold(Size::default(), |Size { bytes, longest, .. }, length| Size {
            bytes: bytes.saturating_add(length),
            longest: longest.max(length),
            elements: 0,
        })
    };
    let inside = |values: &ArrayRef| {
        let Size { bytes, elements, .. } = size_of(values);
        Size { bytes, longest: 0, elements: elements.saturating_add(values.len()) }
    };
    match array.data_type() {
        DataType::Utf8View => of_lengths(&mut array.as_string_view().lengths().map(|length| length as usize)),
        DataType::BinaryView => of_lengths(&mut array.as_binary_view().lengths().map(|length| length as usize)),
        DataType::Utf8 => of_lengths(&mut array.as_string::<i32>().offsets().lengths()),
        DataType::LargeUtf8 => of_lengths(&mut array.as_string::<i64>().offsets().lengths()),
        DataType::Binary => of_lengths(&mut array.as_binary::<i32>().offsets().lengths()),
        DataType::LargeBinary => of_lengths(&mut array.as_binary::<i64>().offsets().lengths()),
        DataType::List(_) => {
            let (list, offsets) = (array.as_list::<i32>(), array.as_list::<i32>().value_offsets());
            let (first, last) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
            inside(&list.values().slice(first, last - first))
        }
        DataType::LargeList(_) => inside(array.as_list::<i64>().values()),
        DataType::FixedSizeList(..) => inside(array.as_fixed_size_list().values()),
        _ => Size::default(),
    }
}

/// One of the engine's functions within bounds.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded(Arc<ScalarUDF>);

/// A function of the engine within bounds.
pub fn bounded(function: &Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    // The engine knows this one by what it is. It puts together what its caller wrote.
    if function.inner().is::<Bounded>() || function.name() == "make_array" {
        return function.clone();
    }
    Arc::new(Bounded(function.clone()).into())
}

/// The type of a function's results: numbers without a sign are none of ours.
pub fn signed(ty: &DataType) -> DataType {
    match ty {
        ty if ty.is_unsigned_integer() => DataType::Int64,
        DataType::List(item) => {
            DataType::List(Arc::new(item.as_ref().clone().with_data_type(signed(item.data_type()))))
        }
        ty => ty.clone(),
    }
}

impl Bounded {
    fn call(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let result = self.0.inner().invoke_with_args(args)?;
        let (made, shown) = (result.data_type(), signed(&result.data_type()));
        if made == shown { Ok(result) } else { result.cast_to(&shown, None) }
    }

    /// Calls, for some rows at a time if constants are copied for each of them.
    fn call_in_parts(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        check(self.name(), &args)?;
        let (rows, at_once) = (args.number_rows, rows_of_call(&args)?);
        let is_by_row = args.args.iter().any(|arg| matches!(arg, ColumnarValue::Array(_)));
        if at_once >= rows || !is_by_row {
            return self.call(args);
        }
        let mut parts = Vec::with_capacity(rows.div_ceil(at_once));
        for first in (0..rows).step_by(at_once) {
            let number_rows = at_once.min(rows - first);
            let part = |arg: &ColumnarValue| match arg {
                ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(first, number_rows)),
                scalar => scalar.clone(),
            };
            let args = ScalarFunctionArgs { args: args.args.iter().map(part).collect(), number_rows, ..args.clone() };
            parts.push(self.call(args)?.into_array(number_rows)?);
        }
        let parts: Vec<&dyn Array> = parts.iter().map(|part| &**part).collect();
        Ok(ColumnarValue::Array(concat(&parts)?))
    }
}

impl ScalarUDFImpl for Bounded {
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        counted::called(args, |args| self.call_in_parts(args))
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        self.0.inner().with_updated_config(config).map(|function| Self(Arc::new(function)).into())
    }

    fn name(&self) -> &str {
        self.0.inner().name()
    }

    fn aliases(&self) -> &[String] {
        self.0.inner().aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> DfResult<String> {
        self.0.inner().schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.0.inner().signature()
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        self.0.inner().return_type(types).map(|ty| signed(&ty))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        let field = self.0.inner().return_field_from_args(args)?;
        let ty = signed(field.data_type());
        Ok(if ty == *field.data_type() { field } else { Arc::new(field.as_ref().clone().with_data_type(ty)) })
    }

    fn is_strict(&self) -> bool {
        self.0.inner().is_strict()
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> DfResult<ExprSimplifyResult> {
        self.0.inner().simplify(args, info)
    }

    fn preimage(&self, args: &[Expr], literal: &Expr, info: &SimplifyContext) -> DfResult<PreimageResult> {
        self.0.inner().preimage(args, literal, info)
    }

    fn short_circuits(&self) -> bool {
        self.0.inner().short_circuits()
    }

    fn conditional_arguments<'a>(&self, args: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.0.inner().conditional_arguments(args)
    }

    fn evaluate_bounds(&self, input: &[&Interval]) -> DfResult<Interval> {
        self.0.inner().evaluate_bounds(input)
    }

    fn propagate_constraints(&self, interval: &Interval, inputs: &[&Interval]) -> DfResult<Option<Vec<Interval>>> {
        self.0.inner().propagate_constraints(interval, inputs)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> DfResult<SortProperties> {
        self.0.inner().output_ordering(inputs)
    }

    fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> DfResult<bool> {
        self.0.inner().preserves_lex_ordering(inputs)
    }

    fn strictly_order_preserving(&self, inputs: &[ExprProperties]) -> DfResult<bool> {
        self.0.inner().strictly_order_preserving(inputs)
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        self.0.inner().coerce_types(types)
    }

    fn struct_field_mapping(&self, literals: &[Option<ScalarValue>]) -> Option<StructFieldMapping> {
        self.0.inner().struct_field_mapping(literals)
    }

    fn placement(&self, args: &[ExpressionPlacement]) -> ExpressionPlacement {
        self.0.inner().placement(args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{Int64Array, ListArray, StringViewArray};
    use datafusion::arrow::datatypes::{Field, Int64Type};

    fn called(args: Vec<ColumnarValue>, makes: DataType, number_rows: usize) -> ScalarFunctionArgs {
        let arg_fields = args.iter().map(|arg| Arc::new(Field::new("", arg.data_type(), true))).collect();
        let return_field = Arc::new(Field::new("", makes, true));
        ScalarFunctionArgs { args, arg_fields, number_rows, return_field, config_options: Arc::default() }
    }

    fn literal(bytes: usize) -> ColumnarValue {
        ColumnarValue::Scalar(ScalarValue::Utf8View(Some("x".repeat(bytes))))
    }

    #[test]
    fn a_literal_counts_for_each_row() {
        let call = |bytes, makes| called(vec![literal(bytes)], makes, 1 << 10);
        let max = BYTES_MAX >> 10;
        assert!(check("upper", &call(max, DataType::Utf8View)).is_ok());
        assert!(check("upper", &call(max + 1, DataType::Utf8View)).is_err());
        assert!(check("length", &call(max + 1, DataType::Int64)).is_ok());
        assert!(check("left", &call(max + 1, DataType::Utf8View)).is_ok());
    }

    #[test]
    fn a_list_multiplies() {
        let numbers = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1); 1 << 10])]);
        let joined = |bytes| {
            called(vec![ColumnarValue::Array(Arc::new(numbers.clone())), literal(bytes)], DataType::Utf8View, 1)
        };
        assert!(check("array_to_string", &joined(1 << 17)).is_ok());
        assert!(check("array_to_string", &joined(1 << 18)).is_err());
        assert!(check("array_append", &joined(1 << 18)).is_ok());
        // And a text may become one.
        let list = DataType::List(Arc::new(Field::new("item", DataType::Utf8View, true)));
        let apart = |bytes| called(vec![literal(bytes)], list.clone(), 1);
        assert!(check("string_to_array", &apart(BYTES_MAX / 32)).is_ok());
        assert!(check("string_to_array", &apart(BYTES_MAX / 8)).is_err());
    }

    #[test]
    fn rows_that_copy_a_constant_are_called_in_parts() {
        let numbers = ListArray::from_iter_primitive::<Int64Type, _, _>([Some((0..1 << 16).map(Some))]);
        let needles = ColumnarValue::Array(Arc::new(Int64Array::from_iter_values(-50..50)));
        let haystack = ColumnarValue::Scalar(ScalarValue::List(Arc::new(numbers)));
        let call = called(vec![haystack, needles], DataType::Boolean, 100);
        assert_eq!(rows_of_call(&call).unwrap(), 8);
        let has = bounded(&Arc::new(datafusion::functions_nested::array_has::ArrayHas::new().into()));
        let found = has.inner().invoke_with_args(call).unwrap().into_array(100).unwrap();
        assert_eq!((found.len(), found.as_boolean().true_count()), (100, 50));
    }

    #[test]
    fn rows_that_share_a_text_are_copied_in_parts() {
        let batch = |text: &str| {
            let mut shared = StringViewBuilder::new();
            shared.try_append_value_n(text, 100).unwrap();
            let numbers = Arc::new(Int64Array::from(vec![1; 100])) as ArrayRef;
            let texts = Arc::new(shared.finish()) as Arc<StringViewArray>;
            RecordBatch::try_from_iter([("a", numbers), ("b", texts as ArrayRef)]).unwrap()
        };
        assert_eq!(rows_to_copy(&batch("short")).unwrap(), 100);
        assert_eq!(rows_to_copy(&batch(&"x".repeat(COPIED_BYTES / 10))).unwrap(), 10);
        assert_eq!(rows_to_copy(&batch(&"x".repeat(COPIED_BYTES * 2))).unwrap(), 1);
        let long = "x".repeat(COPIED_BYTES);
        let texts = Arc::new(StringViewArray::from(vec![long.as_str(), "", &long, "a", "b"])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("b", texts)]).unwrap();
        assert_eq!(rows_to_copy(&batch).unwrap(), 2);
        assert_eq!(rows_to_copy(&batch.slice(2, 3)).unwrap(), 1);
        assert_eq!(rows_to_copy(&batch.slice(3, 2)).unwrap(), 2);
    }
}
