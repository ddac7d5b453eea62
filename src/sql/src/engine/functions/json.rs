//! JSON in texts: `->`, `->>` and a few functions, on the text itself, of which parts are cut out as they were written.

use super::{Function, call, is_text, nullable, text, wrong_types};
use crate::engine::types::marked;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, StringViewArray};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::planner::RawBinaryExpr;
use datafusion::logical_expr::{Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF};
use model::ColumnType;
use model::json::{field, item, items, plain};
use sqlparser::ast::BinaryOperator;
use std::ops::RangeInclusive;
use std::sync::{Arc, LazyLock};

/// As PostgreSQL has it.
const ARGS_MAX: usize = 100;

static PART: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Function::new("json_part", coerce_part, json, part).udf());
static PART_TEXT: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Function::new("json_part_text", coerce_part, text, part_text).udf());

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        PART.clone(),
        PART_TEXT.clone(),
        Function::new("json_extract_path", |types| texts(types, 2..=ARGS_MAX, "json_extract_path"), json, path).udf(),
        Function::new(
            "json_extract_path_text",
            |types| texts(types, 2..=ARGS_MAX, "json_extract_path_text"),
            text,
            path_text,
        )
        .udf(),
        Function::new("json_typeof", |types| texts(types, 1..=1, "json_typeof"), text, type_of).udf(),
        Function::new(
            "json_array_length",
            |types| texts(types, 1..=1, "json_array_length"),
            |_| Ok(nullable(DataType::Int32)),
            array_length,
        )
        .udf(),
    ]
}

/// `->` and `->>` with a text or a number on the right.
pub fn plan(expr: &RawBinaryExpr, left: &DataType, right: &DataType) -> Option<Expr> {
    let function = match expr.op {
        BinaryOperator::Arrow => &PART,
        BinaryOperator::LongArrow => &PART_TEXT,
        _ => return None,
    };
    (is_text(left) && (is_text(right) || right.is_integer()))
        .then(|| call(Arc::clone(function), vec![expr.left.clone(), expr.right.clone()]))
}

/// As many texts as there are arguments.
fn texts(types: &[DataType], taken: RangeInclusive<usize>, name: &str) -> DfResult<Vec<DataType>> {
    if taken.contains(&types.len()) { Ok(vec![DataType::Utf8View; types.len()]) } else { wrong_types(name) }
}

fn coerce_part(types: &[DataType]) -> DfResult<Vec<DataType>> {
    match types {
        [_, key] if key.is_integer() => Ok(vec![DataType::Utf8View, DataType::Int64]),
        [_, _] => Ok(vec![DataType::Utf8View, DataType::Utf8View]),
        _ => wrong_types("->"),
    }
}

fn json(_: &ReturnFieldArgs<'_>) -> DfResult<Field> {
    Ok(marked(nullable(DataType::Utf8View), ColumnType::Json))
}

fn parts(args: &[ArrayRef], show: impl Fn(&str) -> Option<String>) -> ArrayRef {
    let (texts, key) = (args[0].as_string_view(), &args[1]);
    let found = (0..texts.len()).map(|row| {
        if texts.is_null(row) || key.is_null(row) {
            return None;
        }
        let found = match key.data_type() {
            DataType::Int64 => item(texts.value(row), key.as_primitive::<Int64Type>().value(row)),
            _ => field(texts.value(row), key.as_string_view().value(row)),
        };
        found.and_then(&show)
    });
    Arc::new(found.collect::<StringViewArray>())
}

fn part(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    Ok(parts(args, |part| Some(part.to_owned())))
}

fn part_text(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    Ok(parts(args, plain))
}

fn paths(args: &[ArrayRef], show: impl Fn(&str) -> Option<String>) -> ArrayRef {
    let texts: Vec<&StringViewArray> = args.iter().map(|arg| arg.as_string_view()).collect();
    let found = (0..texts[0].len()).map(|row| {
        if texts.iter().any(|text| text.is_null(row)) {
            return None;
        }
        let step = |json, key: &&StringViewArray| {
            let key = key.value(row);
            field(json, key).or_else(|| item(json, key.parse().ok()?))
        };
        texts[1..].iter().try_fold(texts[0].value(row), step).and_then(&show)
    });
    Arc::new(found.collect::<StringViewArray>())
}

fn path(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    Ok(paths(args, |part| Some(part.to_owned())))
}

fn path_text(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    Ok(paths(args, plain))
}

fn type_of(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    let name = |text: &str| match text.trim_start().bytes().next()? {
        b'{' => Some("object"),
        b'[' => Some("array"),
        b'"' => Some("string"),
        b't' | b'f' => Some("boolean"),
        b'n' => Some("null"),
        _ => Some("number"),
    };
    Ok(Arc::new(args[0].as_string_view().iter().map(|text| text.and_then(name)).collect::<StringViewArray>()))
}

fn array_length(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    let lengths = args[0].as_string_view().iter().map(|text| {
        let Some(text) = text else { return Ok(None) };
        let mut count = 0;
        match items(text, &mut |_| count += 1) {
            Some(()) => Ok(Some(count)),
            None => Err(super::wrong_value("json_array_length of what is no JSON array")),
        }
    });
    let lengths = lengths.collect::<DfResult<Int64Array>>()?;
    Ok(Arc::new(lengths.iter().map(|n| n.and_then(|n| i32::try_from(n).ok())).collect::<Int32Array>()))
}
