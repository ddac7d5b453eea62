//! Lists of values with their sort keys, put in order: what an aggregate with ORDER BY makes of an unordered one.

use super::{Function, call, is_text, nullable, wrong_types};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, ListArray, StringViewBuilder, UInt32Array};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::{SortColumn, SortOptions, lexsort_to_indices, take};
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, SortExpr, lit};
use std::sync::{Arc, LazyLock};

static LIST: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Function::new("sorted_list", |types| entries(types, 2), list_type, list).udf());

static TEXT: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    Function::new("sorted_text", |types| entries(types, 3), |_| Ok(nullable(DataType::Utf8View)), text).udf()
});

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![LIST.clone(), TEXT.clone()]
}

/// The first parts of the structures in a list, in the order of their other parts.
pub fn sorted_list(entries: Expr, order: &[SortExpr]) -> Expr {
    call(LIST.clone(), vec![entries, lit(spelled(order))])
}

/// The same as one text; NULLs are left out.
pub fn sorted_text(entries: Expr, order: &[SortExpr], delimiter: Expr) -> Expr {
    call(TEXT.clone(), vec![entries, lit(spelled(order)), delimiter])
}

/// For each key its direction, and whether NULLs come first.
fn spelled(order: &[SortExpr]) -> String {
    let letters = |key: &SortExpr| [if key.asc { 'a' } else { 'd' }, if key.nulls_first { 'f' } else { 'l' }];
    order.iter().flat_map(letters).collect()
}

/// The types as they are: entries, their order and what else there is, so many in all.
fn entries(types: &[DataType], count: usize) -> DfResult<Vec<DataType>> {
    let are_entries = |ty: &DataType| match ty {
        DataType::List(entry) => matches!(entry.data_type(), DataType::Struct(parts) if parts.len() > 1),
        _ => false,
    };
    match types {
        [list, texts @ ..] if types.len() == count && are_entries(list) && texts.iter().all(is_text) => {
            Ok(types.to_vec())
        }
        _ => wrong_types("sorted_list"),
    }
}

fn list_type(args: &ReturnFieldArgs<'_>) -> DfResult<Field> {
    match args.arg_fields[0].data_type() {
        DataType::List(entry) => match entry.data_type() {
            DataType::Struct(parts) if !parts.is_empty() => {
                let value = Field::new_list_field(parts[0].data_type().clone(), true);
                Ok(nullable(DataType::List(Arc::new(value))))
            }
            _ => wrong_types("sorted_list"),
        },
        _ => wrong_types("sorted_list"),
    }
}

fn list(args: &[ArrayRef], call: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    Ok(Arc::new(in_order(args[0].as_list(), call)?))
}

fn text(args: &[ArrayRef], call: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    let lists = in_order(args[0].as_list(), call)?;
    let delimiter = match call.args.get(2) {
        Some(ColumnarValue::Scalar(value)) if is_text(&value.data_type()) => value.try_as_str().flatten().unwrap_or(""),
        _ => return wrong_types("sorted_text"),
    };
    let mut made = StringViewBuilder::with_capacity(lists.len());
    for row in 0..lists.len() {
        let values = if lists.is_valid(row) { Some(lists.value(row)) } else { None };
        let joined = values.and_then(|values| {
            let values = datafusion::arrow::compute::cast(&values, &DataType::Utf8View).ok()?;
            let texts: Vec<&str> = values.as_string_view().iter().flatten().collect();
            (!texts.is_empty()).then(|| texts.join(delimiter))
        });
        made.append_option(joined);
    }
    Ok(Arc::new(made.finish()))
}

fn in_order(lists: &ListArray, call: &ScalarFunctionArgs) -> DfResult<ListArray> {
    let Some(ColumnarValue::Scalar(order)) = call.args.get(1) else { return wrong_types("sorted_list") };
    let letters = order.try_as_str().flatten().unwrap_or_default().as_bytes();
    let options: Vec<SortOptions> = letters
        .chunks(2)
        .map(|key| SortOptions { descending: key[0] == b'd', nulls_first: key.get(1) == Some(&b'f') })
        .collect();
    let entries = lists.values().as_struct();
    let (mut places, mut lengths) = (Vec::with_capacity(entries.len()), Vec::with_capacity(lists.len()));
    for (row, range) in lists.offsets().windows(2).enumerate() {
        let (first, length) = (range[0] as usize, (range[1] - range[0]) as usize);
        if lists.is_null(row) || length == 0 {
            lengths.push(0);
            continue;
        }
        let keys = entries.columns().iter().skip(1).zip(&options);
        let keys = keys.map(|(key, options)| SortColumn { values: key.slice(first, length), options: Some(*options) });
        let sorted = lexsort_to_indices(&keys.collect::<Vec<_>>(), None)?;
        places.extend(sorted.values().iter().map(|place| first as u32 + place));
        lengths.push(length);
    }
    let values = take(entries.column(0), &UInt32Array::from(places), None)?;
    let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    Ok(ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), values, lists.nulls().cloned())?)
}
