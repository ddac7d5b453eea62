//! Parameters in the parser's tree: each placeholder gives way to its value, of exactly the value's type.

use super::literal::{expression, expression_not_ordinal};
use crate::walk;
use model::{Code, Error, Result, Value};
use sqlparser::ast::{self, Expr, GroupByExpr, OrderByKind, Query, Select, VisitMut};

/// The error of a call with too many or too few parameters.
pub fn wrong_count(wanted: usize, given: usize) -> Error {
    let verb = if given == 1 { "is" } else { "are" };
    Error::new(Code::Argument, format!("the statement takes {wanted} parameters, {given} {verb} given"))
}

/// Replaces all placeholders of a query or an expression. The caller has checked that there are enough values.
pub fn substitute(tree: &mut impl VisitMut, params: &[Value]) {
    if !params.is_empty() {
        // The substitution refuses nothing.
        let _ = walk::change(tree, &mut Substitution { params });
    }
}

struct Substitution<'a> {
    params: &'a [Value],
}

impl Substitution<'_> {
    fn value(&self, expr: &Expr) -> Option<&Value> {
        let Expr::Value(value) = expr else { return None };
        let ast::Value::Placeholder(name) = &value.value else { return None };
        let number: usize = name.strip_prefix('$')?.parse().ok()?;
        self.params.get(number.checked_sub(1)?)
    }

    /// `ORDER BY ?` is by a constant, whatever number it is, and not by an output column.
    fn not_ordinal(&self, expr: &mut Expr) {
        if let Some(value) = self.value(expr) {
            *expr = expression_not_ordinal(value);
        }
    }
}

impl walk::Change for Substitution<'_> {
    fn enter_query(&mut self, query: &mut Query) -> Result<()> {
        if let Some(order_by) = &mut query.order_by
            && let OrderByKind::Expressions(keys) = &mut order_by.kind
        {
            keys.iter_mut().for_each(|key| self.not_ordinal(&mut key.expr));
        }
        Ok(())
    }

    fn enter_select(&mut self, select: &mut Select) -> Result<()> {
        if let GroupByExpr::Expressions(keys, _) = &mut select.group_by {
            keys.iter_mut().for_each(|key| self.not_ordinal(key));
        }
        Ok(())
    }

    fn enter_expr(&mut self, expr: &mut Expr) -> Result<()> {
        if let Some(value) = self.value(expr) {
            *expr = expression(value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Statement, parse};
    use super::*;

    #[test]
    fn placeholders_become_literals_of_their_type() {
        let Statement::Query(mut query) =
            parse("SELECT ?, a + ? FROM t WHERE b = ? GROUP BY ? ORDER BY ? LIMIT ?").unwrap().statement
        else {
            panic!()
        };
        let values = [
            Value::Null,
            Value::Decimal("1.50".parse().unwrap()),
            Value::Text("it's $1".into()),
            Value::Integer(2),
            Value::Integer(1),
            Value::Integer(10),
        ];
        substitute(&mut query, &values);
        assert_eq!(
            query.to_string(),
            "SELECT NULL, a + CAST('1.50' AS DECIMAL(3,2)) FROM t WHERE b = 'it''s $1' \
             GROUP BY CAST('2' AS BIGINT) ORDER BY CAST('1' AS BIGINT) LIMIT 10"
        );
    }
}
