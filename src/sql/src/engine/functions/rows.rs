//! The value of a scalar subquery that may give several rows.

use super::{Function, call, wrong_types};
use crate::engine::errors::wrap;
use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF};
use model::{Code, Error};
use std::sync::{Arc, LazyLock};

static ONLY_ROW: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    Function::new(
        "only_row",
        |types| match types {
            [value, _] => Ok(vec![value.clone(), DataType::Int64]),
            _ => wrong_types("only_row"),
        },
        |args: &ReturnFieldArgs<'_>| Ok(args.arg_fields[0].as_ref().clone().with_nullable(true)),
        check,
    )
    .udf()
});

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![ONLY_ROW.clone()]
}

/// `value`, when `rows` is at most one; an error otherwise.
pub fn only_row(value: Expr, rows: Expr) -> Expr {
    call(ONLY_ROW.clone(), vec![value, rows])
}

/// The error of a subquery that stands for a value and gives several.
pub fn several_rows() -> Error {
    Error::new(Code::InvalidStatement, "a subquery that stands for a value gives more than one row")
        .with_hint("add LIMIT 1, or an aggregate")
}

fn check(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    let rows = args[1].as_primitive::<Int64Type>();
    let several = (0..rows.len()).any(|at| rows.is_valid(at) && rows.value(at) > 1);
    if several { Err(wrap(several_rows())) } else { Ok(args[0].clone()) }
}
