//! Dates beside timestamps: `day < DATE '2024-01-01' + INTERVAL '1' MONTH` compares a day with a timestamp, for which the engine
//! would make a timestamp of every row's day. Compared with the literal's own day, the rows stay as they are, and the
//! comparison can choose a range of an index.

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::{BinaryExpr, Cast};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator, binary_expr, lit};
use datafusion::scalar::ScalarValue;
use model::temporal::MICROS_PER_DAY;

/// The optimised plan with such conditions about days only.
pub fn compared_as_dates(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let rewritten = plan.transform_up(|node| {
        // Names of results follow expressions; these nodes give none.
        let schema = match &node {
            LogicalPlan::TableScan(scan) => scan.source.schema().as_ref().clone().try_into()?,
            LogicalPlan::Filter(_) | LogicalPlan::Join(_) => merge_schema(&node.inputs()),
            _ => return Ok(Transformed::no(node)),
        };
        let is_date = |expr: &Expr| matches!(expr, Expr::Column(_)) && is_date(expr, &schema);
        node.map_expressions(|expr| expr.transform_up(|part| Ok(by_day(part, &is_date))))
    })?;
    Ok(rewritten.data)
}

fn is_date(expr: &Expr, schema: &DFSchema) -> bool {
    // A scan's filters name columns with their table, which its source's schema does not know.
    let expr = match expr {
        Expr::Column(column) if !schema.has_column(column) => {
            Expr::Column(Column::new_unqualified(column.name.clone()))
        }
        other => other.clone(),
    };
    expr.get_type(schema).is_ok_and(|ty| ty == DataType::Date32)
}

fn by_day(expr: Expr, is_date: &impl Fn(&Expr) -> bool) -> Transformed<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = &expr else { return Transformed::no(expr) };
    let sides = match (day_of(left, is_date), moment_of(right)) {
        (Some(day), Some(moment)) => Some((day, *op, moment)),
        _ => match (day_of(right, is_date), moment_of(left), op.swap()) {
            (Some(day), Some(moment), Some(op)) => Some((day, op, moment)),
            _ => None,
        },
    };
    let Some((day, op, moment)) = sides else { return Transformed::no(expr) };
    let is_midnight = moment.rem_euclid(MICROS_PER_DAY) == 0;
    // The days that begin by a moment are those up to its own.
    let op = match op {
        Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq | Operator::Eq | Operator::NotEq
            if is_midnight =>
        {
            op
        }
        Operator::Lt | Operator::LtEq => Operator::LtEq,
        Operator::Gt | Operator::GtEq => Operator::Gt,
        _ => return Transformed::no(expr),
    };
    match i32::try_from(moment.div_euclid(MICROS_PER_DAY)) {
        Ok(days) => Transformed::yes(binary_expr(day.clone(), op, lit(ScalarValue::Date32(Some(days))))),
        Err(_) => Transformed::no(expr),
    }
}

/// The date that is cast to a timestamp.
fn day_of<'a>(expr: &'a Expr, is_date: &impl Fn(&Expr) -> bool) -> Option<&'a Expr> {
    let Expr::Cast(Cast { expr, field }) = expr else { return None };
    let is_timestamp = matches!(field.data_type(), DataType::Timestamp(TimeUnit::Microsecond, None));
    (is_timestamp && is_date(expr)).then_some(expr)
}

/// A literal timestamp, in microseconds.
fn moment_of(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::TimestampMicrosecond(Some(micros), None), _) => Some(*micros),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::logical_expr::{cast, col};

    const DAY: i64 = 19_723;

    fn condition(op: Operator, micros: i64) -> Expr {
        let moment = lit(ScalarValue::TimestampMicrosecond(Some(micros), None));
        binary_expr(cast(col("day"), DataType::Timestamp(TimeUnit::Microsecond, None)), op, moment)
    }

    fn rewritten(op: Operator, micros: i64) -> String {
        by_day(condition(op, micros), &|expr| *expr == col("day")).data.to_string()
    }

    #[test]
    fn midnight_is_its_day() {
        let by = [(Operator::Lt, "<"), (Operator::GtEq, ">="), (Operator::Eq, "="), (Operator::NotEq, "!=")];
        for (op, sign) in by {
            assert_eq!(rewritten(op, DAY * MICROS_PER_DAY), format!("day {sign} Date32(\"2024-01-01\")"));
        }
    }

    #[test]
    fn a_moment_in_a_day_comes_after_its_beginning() {
        let noon = DAY * MICROS_PER_DAY + MICROS_PER_DAY / 2;
        for (op, sign) in [(Operator::Lt, "<="), (Operator::LtEq, "<="), (Operator::Gt, ">"), (Operator::GtEq, ">")] {
            assert_eq!(rewritten(op, noon), format!("day {sign} Date32(\"2024-01-01\")"));
        }
        assert_eq!(rewritten(Operator::Lt, -1), "day <= Date32(\"1969-12-31\")");
        assert_eq!(rewritten(Operator::Eq, noon), condition(Operator::Eq, noon).to_string());
    }
}
