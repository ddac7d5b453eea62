//! How much may be made at once. The memory of a query counts what its operators keep, and not what is made of a batch on the
//! way, which may be far more: a few bytes of a statement ask for terabytes. So a call of a function whose results would not
//! fit is refused before it makes them, and rows are copied some megabytes at a time.

use super::errors::wrap;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder};
use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::config::ConfigOptions;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExpressionPlacement, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    StructFieldMapping,
};
use datafusion::scalar::ScalarValue;
use model::{Code, Error};
use std::sync::Arc;

/// What the results of one call may have: those of a batch.
pub const BYTES_MAX: usize = 256 << 20;

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

fn within_bounds(bytes: usize) -> DfResult<()> {
    if bytes <= BYTES_MAX {
        return Ok(());
    }
    let message = format!("a function makes values of more than {} MiB at once", BYTES_MAX >> 20);
    Err(wrap(Error::new(Code::LimitExceeded, message).with_hint("ask for shorter values, or for fewer rows")))
}

/// Refuses a call that makes texts or lists, when they may become too long. Right for functions that put their arguments
/// together, or each text of them with each element of a list.
pub fn check(args: &ScalarFunctionArgs) -> DfResult<()> {
    let makes = args.return_field.data_type();
    if !makes.is_string() && !makes.is_nested() && !makes.is_binary() {
        return Ok(());
    }
    let (mut size, mut longest) = (Size::default(), 0_usize);
    for arg in &args.args {
        let of_arg = match arg {
            ColumnarValue::Array(array) => size_of(array),
            ColumnarValue::Scalar(value) => size_of_scalar(value)?.times(args.number_rows),
        };
        size.bytes = size.bytes.saturating_add(of_arg.bytes);
        size.elements = size.elements.saturating_add(of_arg.elements);
        longest = longest.max(of_arg.longest);
    }
    let joined = size.elements.saturating_mul(longest.max(ELEMENT_BYTES));
    // A list may have an element for each character.
    let taken_apart = if makes.is_nested() { size.bytes.saturating_mul(ELEMENT_BYTES) } else { size.bytes };
    within_bounds(joined.saturating_add(taken_apart))
}

/// Of values: the bytes of all texts, the longest text outside of lists, and the number of elements of lists.
#[derive(Clone, Copy, Default)]
struct Size {
    bytes: usize,
    longest: usize,
    elements: usize,
}

impl Size {
    fn times(self, rows: usize) -> Self {
        let Self { bytes, longest, elements } = self;
        Self { bytes: bytes.saturating_mul(rows), longest, elements: elements.saturating_mul(rows) }
    }
}

/// How many of a batch's rows go where texts that rows share, as those of a literal, are copied for each of them: so many
/// that their texts have some megabytes.
pub fn rows_to_copy(batch: &RecordBatch) -> usize {
    let bytes = batch.columns().iter().map(|column| size_of(column).bytes).fold(0, usize::saturating_add);
    match bytes {
        0..=COPIED_BYTES => batch.num_rows(),
        _ => (batch.num_rows() * COPIED_BYTES / bytes).max(1),
    }
}

fn size_of_scalar(value: &ScalarValue) -> DfResult<Size> {
    match value {
        ScalarValue::Utf8View(Some(text)) => Ok(Size { bytes: text.len(), longest: text.len(), elements: 0 }),
        value => Ok(size_of(&value.to_array()?)),
    }
}

fn size_of(array: &ArrayRef) -> Size {
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
pub struct Bounded(pub Arc<ScalarUDF>);

impl ScalarUDFImpl for Bounded {
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        check(&args)?;
        self.0.inner().invoke_with_args(args)
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
        self.0.inner().return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        self.0.inner().return_field_from_args(args)
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

    fn checked(args: Vec<ColumnarValue>, makes: DataType, number_rows: usize) -> DfResult<()> {
        let arg_fields = args.iter().map(|arg| Arc::new(Field::new("", arg.data_type(), true))).collect();
        let return_field = Arc::new(Field::new("", makes, true));
        check(&ScalarFunctionArgs { args, arg_fields, number_rows, return_field, config_options: Arc::default() })
    }

    fn literal(bytes: usize) -> ColumnarValue {
        ColumnarValue::Scalar(ScalarValue::Utf8View(Some("x".repeat(bytes))))
    }

    #[test]
    fn a_literal_counts_for_each_row() {
        assert!(checked(vec![literal(BYTES_MAX >> 10)], DataType::Utf8View, 1 << 10).is_ok());
        assert!(checked(vec![literal(BYTES_MAX >> 10), literal(1)], DataType::Utf8View, 1 << 10).is_err());
        assert!(checked(vec![literal(BYTES_MAX >> 10), literal(1)], DataType::Int64, 1 << 10).is_ok());
    }

    #[test]
    fn a_list_multiplies() {
        let numbers = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1); 1 << 10])]);
        let list = |rows| vec![ColumnarValue::Array(Arc::new(numbers.clone())), literal(rows)];
        assert!(checked(list(1 << 17), DataType::Utf8View, 1).is_ok());
        assert!(checked(list(1 << 18), DataType::Utf8View, 1).is_err());
        // And a text may become one.
        let list = DataType::List(Arc::new(Field::new("item", DataType::Utf8View, true)));
        assert!(checked(vec![literal(BYTES_MAX / 32)], list.clone(), 1).is_ok());
        assert!(checked(vec![literal(BYTES_MAX / 8)], list, 1).is_err());
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
        assert_eq!(rows_to_copy(&batch("short")), 100);
        assert_eq!(rows_to_copy(&batch(&"x".repeat(COPIED_BYTES / 10))), 10);
        assert_eq!(rows_to_copy(&batch(&"x".repeat(COPIED_BYTES * 2))), 1);
    }
}
