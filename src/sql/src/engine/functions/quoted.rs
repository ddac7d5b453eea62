//! Literal texts beside operators: `1 + '2'`. As in PostgreSQL, such a text is read as a value of the other side's type.

use super::convert::{convert_to, unreadable};
use crate::engine::errors::wrap;
use datafusion::arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::planner::RawBinaryExpr;
use datafusion::logical_expr::{Expr, cast, lit};
use datafusion::scalar::ScalarValue;
use model::{ColumnType, Decimal};
use sqlparser::ast::BinaryOperator;

/// Gives the literal of an arithmetic operator its type; None where there is none, or two.
pub fn typed(expr: &RawBinaryExpr, left: &DataType, right: &DataType) -> DfResult<Option<RawBinaryExpr>> {
    Ok(match (text_of(&expr.left), text_of(&expr.right)) {
        (None, Some(text)) => like(text, left, &expr.op)?.map(|right| RawBinaryExpr {
            right,
            left: expr.left.clone(),
            op: expr.op.clone(),
        }),
        (Some(text), None) => like(text, right, &expr.op)?.map(|left| RawBinaryExpr {
            left,
            right: expr.right.clone(),
            op: expr.op.clone(),
        }),
        _ => None,
    })
}

fn text_of(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)), _) => Some(text),
        _ => None,
    }
}

/// The text as a value that goes with one of a type.
fn like(text: &str, other: &DataType, op: &BinaryOperator) -> DfResult<Option<Expr>> {
    let is_minus = *op == BinaryOperator::Minus;
    Ok(match other {
        DataType::Int16 | DataType::Int32 => Some(convert_to(lit(text), ColumnType::Integer)),
        DataType::Int64 | DataType::UInt64 => Some(convert_to(lit(text), ColumnType::BigInt)),
        DataType::Float32 | DataType::Float64 => Some(convert_to(lit(text), ColumnType::Double)),
        DataType::Decimal128(..) => {
            let ty = ColumnType::Decimal { precision: 38, scale: 0 };
            let Decimal { unscaled, scale } = text.trim().parse().map_err(|_| wrap(unreadable(text, ty)))?;
            let digits = unscaled.unsigned_abs().checked_ilog10().map_or(1, |log| log as u8 + 1);
            Some(lit(ScalarValue::Decimal128(Some(unscaled), digits.max(scale).max(1), scale as i8)))
        }
        DataType::Date32 if is_minus => Some(convert_to(lit(text), ColumnType::Date)),
        DataType::Time64(_) if is_minus => Some(convert_to(lit(text), ColumnType::Time)),
        DataType::Timestamp(..) if is_minus => Some(convert_to(lit(text), ColumnType::Timestamp)),
        DataType::Timestamp(TimeUnit::Microsecond, _) if *op == BinaryOperator::Plus => {
            Some(cast(lit(text), DataType::Interval(IntervalUnit::MonthDayNano)))
        }
        _ => None,
    })
}
