//! Rows that a statement holds, as a relation that the engine can compute on: literals with the types of their columns.

use super::{quoted, template};
use crate::front::literal;
use model::{ColumnType, Error, Result, Table, Value};
use sqlparser::ast::{Expr, Ident, SetExpr, TableFactor, TableWithJoins};

/// The column that numbers the rows, from 0.
pub(super) const NUMBER: &str = "#";

/// The rows of a table as a relation of this name, with one more column that numbers them. Without rows it has one of
/// nulls.
pub(super) fn relation<'r>(
    table: &Table,
    name: &str,
    rows: impl Iterator<Item = &'r [Value]>,
) -> Result<TableWithJoins> {
    let casts = table.columns.iter().enumerate().map(|(at, column)| {
        let name = quoted(&column.name);
        format!("CAST(\"v\".\"c{at}\" AS {}) AS {name}", sql_type(column.ty))
    });
    let casts: Vec<String> = casts.collect();
    let names: Vec<String> = (0..table.columns.len()).map(|at| format!("\"c{at}\"")).collect();
    let text = format!(
        "SELECT 1 FROM (SELECT \"v\".\"{NUMBER}\", {} FROM (VALUES (1)) AS \"v\" (\"{NUMBER}\", {})) AS {}",
        casts.join(", "),
        names.join(", "),
        quoted(name)
    );
    let mut query = template(&text)?;
    let outer = only_from(&mut query.body)?;
    let inner = only_from(&mut subquery(outer)?.body)?;
    let SetExpr::Values(values) = &mut *subquery(inner)?.body else { return Err(not_as_made()) };
    let pattern = values.rows.pop().ok_or_else(not_as_made)?;
    let mut push = |number: usize, row: &mut dyn Iterator<Item = &Value>| {
        let mut parens = pattern.clone();
        parens.content = std::iter::once(Value::Integer(number as i64)).map(|n| literal::expression(&n)).collect();
        parens.content.extend(row.map(literal::expression));
        values.rows.push(parens);
    };
    let mut count = 0;
    for row in rows {
        push(count, &mut row.iter());
        count += 1;
    }
    if count == 0 {
        push(0, &mut std::iter::repeat_n(&Value::Null, table.columns.len()));
    }
    Ok(outer.clone())
}

fn only_from(body: &mut SetExpr) -> Result<&mut TableWithJoins> {
    match body {
        SetExpr::Select(select) => select.from.first_mut().ok_or_else(not_as_made),
        _ => Err(not_as_made()),
    }
}

fn subquery(from: &mut TableWithJoins) -> Result<&mut sqlparser::ast::Query> {
    match &mut from.relation {
        TableFactor::Derived { subquery, .. } => Ok(subquery),
        _ => Err(not_as_made()),
    }
}

fn not_as_made() -> Error {
    Error::internal("a template is not what it was made to be")
}

/// A type in the engine's SQL. Lengths do not matter for what has been stored.
fn sql_type(ty: ColumnType) -> String {
    use ColumnType as T;
    match ty {
        T::Boolean => "BOOLEAN".into(),
        T::SmallInt => "SMALLINT".into(),
        T::Integer => "INTEGER".into(),
        T::BigInt | T::Unsigned => "BIGINT".into(),
        T::Real => "REAL".into(),
        T::Double => "DOUBLE PRECISION".into(),
        T::Decimal { precision, scale } => format!("DECIMAL({precision}, {scale})"),
        T::Char { .. } | T::Varchar { .. } | T::Text | T::Json | T::Uuid => "VARCHAR".into(),
        T::Varbinary => "BYTEA".into(),
        T::Date => "DATE".into(),
        T::Time => "TIME".into(),
        T::Timestamp => "TIMESTAMP(6)".into(),
        T::TimestampTz => "TIMESTAMP(6) WITH TIME ZONE".into(),
    }
}

/// A column of a relation.
pub(super) fn column(relation: &str, name: &str) -> Expr {
    let parts: Vec<Ident> = vec![quoted(relation), quoted(name)];
    Expr::CompoundIdentifier(parts)
}
