//! Row values: `(a, b)` compared with another row, with the rows of a subquery, and with NULL.
//!
//! What is compared is written down more than once, and so is what is compared inside of it: `Copies` bounds that.

use super::{Speller, binary, boolean, joined, negated_if, null};
use crate::walk;
use model::{Code, Error, Result};
use sqlparser::ast::helpers::attached_token::AttachedToken;
use sqlparser::ast::{
    self, BinaryOperator, Expr, Ident, Query, Select, SelectItem, SetExpr, TableAliasColumnDef, TableFactor, Value,
};

/// How much a statement may still write down once more.
pub struct Copies {
    left: usize,
}

/// Expressions of a statement that are copied; each time that one is counts.
const COPIES_MAX: usize = 500_000;
/// What a query in them counts for: each is planned.
const QUERY_COPIES: usize = 500;

impl Copies {
    pub fn new() -> Self {
        Self { left: COPIES_MAX }
    }

    /// Errors: `LimitExceeded`.
    pub fn take(&mut self, tree: &impl ast::Visit, times: usize) -> Result<()> {
        let times = times.max(1);
        let mut size = Size { left: self.left / times, taken: 0 };
        walk::read(tree, &mut size)?;
        self.left -= size.taken * times;
        Ok(())
    }
}

/// What a tree has, and may still have.
struct Size {
    left: usize,
    taken: usize,
}

impl Size {
    fn count(&mut self, weight: usize) -> Result<()> {
        if self.left - self.taken < weight {
            let message = "comparisons of rows, or with ANY and ALL, are too many or too deep inside one another";
            return Err(Error::new(Code::LimitExceeded, message));
        }
        self.taken += weight;
        Ok(())
    }
}

impl walk::Read for Size {
    fn enter_query(&mut self, _: &Query) -> Result<()> {
        self.count(QUERY_COPIES)
    }

    fn enter_expr(&mut self, _: &Expr) -> Result<()> {
        self.count(1)
    }
}

/// `row IN (list of rows)`.
///
/// Errors: `InvalidStatement` for rows of different lengths.
pub fn in_list(row: &Expr, list: &[Expr], negated: bool, copies: &mut Copies) -> Result<Option<Expr>> {
    let Some(values) = row_of(row) else { return Ok(None) };
    copies.take(row, list.len())?;
    let row = values;
    let mut found = Vec::with_capacity(list.len());
    for item in list {
        let item = row_of(item).ok_or_else(|| lengths_differ(row.len()))?;
        found.push(rows_compared(row, &BinaryOperator::Eq, item)?);
    }
    Ok(Some(negated_if(negated, joined(found.into_iter(), BinaryOperator::Or, false))))
}

/// What is true of a row when it is of each of its values.
pub fn each(row: &Expr, test: impl Fn(Box<Expr>) -> Expr) -> Option<Expr> {
    let row = row_of(row)?;
    Some(joined(row.iter().map(|value| test(Box::new(value.clone()))), BinaryOperator::And, true))
}

impl Speller<'_> {
    /// Rows on both sides, or a row and a subquery of at most one.
    pub fn rows_of_comparison(&mut self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Result<Option<Expr>> {
        match (row_of(left), row_of(right)) {
            (Some(l), Some(r)) => {
                self.copies.take(left, 2)?;
                self.copies.take(right, 2)?;
                rows_compared(l, op, r).map(Some)
            }
            (Some(row), None) => match subquery_of(right) {
                Some(subquery) => self.row_with_only(row, op, subquery).map(Some),
                None => Ok(None),
            },
            (None, Some(row)) => match subquery_of(left) {
                Some(subquery) => self.row_with_only(row, &turned(op), subquery).map(Some),
                None => Ok(None),
            },
            (None, None) => Ok(None),
        }
    }

    pub fn row_of_any(&mut self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Result<Option<Expr>> {
        match (row_of(left), subquery_of(right)) {
            (Some(row), Some(subquery)) => self.row_within(row, op, subquery, false).map(Some),
            _ => Ok(None),
        }
    }

    pub fn row_of_all(&mut self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Result<Option<Expr>> {
        match (row_of(left), subquery_of(right)) {
            (Some(row), Some(subquery)) => {
                self.row_within(row, op, subquery, true).map(|any| Some(negated_if(true, any)))
            }
            _ => Ok(None),
        }
    }

    pub fn row_in_subquery(&mut self, row: &Expr, subquery: &Query, negated: bool) -> Result<Option<Expr>> {
        let Some(row) = row_of(row) else { return Ok(None) };
        let within = self.row_within(row, &BinaryOperator::Eq, subquery, false)?;
        Ok(Some(negated_if(negated, within)))
    }

    /// Whether a row compares so with any of a subquery, or, `negated`, whether it does not with any: true when it is so of
    /// one, unknown when it might be.
    fn row_within(&mut self, row: &[Expr], op: &BinaryOperator, subquery: &Query, negated: bool) -> Result<Expr> {
        row.iter().try_for_each(|value| self.copies.take(value, 4))?;
        self.copies.take(subquery, 2)?;
        let (table, columns) = self.named_rows(row.len());
        let holds = negated_if(negated, rows_compared(row, op, &of_table(&table, &columns))?);
        let one = || Expr::Value(Value::Number("1".into(), false).into());
        let exists = |condition: Expr| Expr::Exists {
            subquery: Box::new(selection(subquery.clone(), &table, &columns, one(), Some(condition))),
            negated: false,
        };
        let when = |condition, result| ast::CaseWhen { condition, result };
        Ok(Expr::Case {
            case_token: AttachedToken::empty(),
            end_token: AttachedToken::empty(),
            operand: None,
            conditions: vec![
                when(exists(holds.clone()), boolean(true)),
                when(exists(Expr::IsNull(Box::new(Expr::Nested(Box::new(holds))))), null()),
            ],
            else_result: Some(Box::new(boolean(false))),
        })
    }

    /// How a row compares with the only one of a subquery; NULL when it has none.
    fn row_with_only(&mut self, row: &[Expr], op: &BinaryOperator, subquery: &Query) -> Result<Expr> {
        let (table, columns) = self.named_rows(row.len());
        let compared = rows_compared(row, op, &of_table(&table, &columns))?;
        Ok(Expr::Subquery(Box::new(selection(subquery.clone(), &table, &columns, compared, None))))
    }

    fn named_rows(&mut self, width: usize) -> (Ident, Vec<Ident>) {
        self.names += 1;
        let columns = (1..=width).map(|at| Ident::new(format!("__column_{at}")));
        (Ident::new(format!("__rows_{}", self.names)), columns.collect())
    }
}

fn of_table(table: &Ident, columns: &[Ident]) -> Vec<Expr> {
    columns.iter().map(|column| Expr::CompoundIdentifier(vec![table.clone(), column.clone()])).collect()
}

fn subquery_of(expr: &Expr) -> Option<&Query> {
    match expr {
        Expr::Nested(inner) => subquery_of(inner),
        Expr::Subquery(query) => Some(query),
        _ => None,
    }
}

/// The comparison of the sides exchanged.
fn turned(op: &BinaryOperator) -> BinaryOperator {
    use BinaryOperator as B;
    match op {
        B::Lt => B::Gt,
        B::LtEq => B::GtEq,
        B::Gt => B::Lt,
        B::GtEq => B::LtEq,
        other => other.clone(),
    }
}

fn row_of(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::Nested(inner) => row_of(inner),
        Expr::Tuple(items) if items.len() > 1 => Some(items),
        _ => None,
    }
}

fn lengths_differ(length: usize) -> Error {
    Error::new(Code::InvalidStatement, format!("a row of {length} values is compared with something of another length"))
}

/// Rows compared value by value, from the left.
fn rows_compared(left: &[Expr], op: &BinaryOperator, right: &[Expr]) -> Result<Expr> {
    use BinaryOperator as B;
    if left.len() != right.len() {
        return Err(lengths_differ(left.len()));
    }
    let each = |op: &BinaryOperator| {
        left.iter().zip(right).map(|(l, r)| binary(l.clone(), op.clone(), r.clone())).collect::<Vec<_>>()
    };
    Ok(match op {
        B::Eq => joined(each(&B::Eq).into_iter(), B::And, true),
        B::NotEq => joined(each(&B::NotEq).into_iter(), B::Or, false),
        B::Lt | B::LtEq | B::Gt | B::GtEq => {
            let strict = if matches!(op, B::Lt | B::LtEq) { B::Lt } else { B::Gt };
            let mut ordered: Option<Expr> = None;
            for (at, (l, r)) in left.iter().zip(right).enumerate().rev() {
                let last = at + 1 == left.len();
                let first = binary(l.clone(), if last { op.clone() } else { strict.clone() }, r.clone());
                ordered = Some(match ordered {
                    None => first,
                    Some(rest) => {
                        let equal = binary(l.clone(), B::Eq, r.clone());
                        let rest = joined([equal, rest].into_iter(), B::And, true);
                        joined([first, rest].into_iter(), B::Or, false)
                    }
                });
            }
            ordered.unwrap_or_else(|| boolean(false))
        }
        other => {
            let message = format!("rows can not be compared by {other}");
            return Err(Error::new(Code::InvalidStatement, message));
        }
    })
}

/// `SELECT item FROM (query) AS table (columns) WHERE condition`.
fn selection(query: Query, table: &Ident, columns: &[Ident], item: Expr, condition: Option<Expr>) -> Query {
    let columns = columns.iter().map(|name| TableAliasColumnDef { name: name.clone(), data_type: None }).collect();
    let alias = ast::TableAlias { explicit: true, name: table.clone(), columns, at: None };
    let derived = TableFactor::Derived { lateral: false, subquery: Box::new(query), alias: Some(alias), sample: None };
    let from = ast::TableWithJoins { relation: derived, joins: Vec::new() };
    let select = Select {
        select_token: AttachedToken::empty(),
        optimizer_hints: Vec::new(),
        distinct: None,
        select_modifiers: None,
        top: None,
        top_before_distinct: false,
        projection: vec![SelectItem::UnnamedExpr(item)],
        exclude: None,
        into: None,
        from: vec![from],
        lateral_views: Vec::new(),
        prewhere: None,
        selection: condition,
        connect_by: Vec::new(),
        group_by: ast::GroupByExpr::Expressions(Vec::new(), Vec::new()),
        cluster_by: Vec::new(),
        distribute_by: Vec::new(),
        sort_by: Vec::new(),
        having: None,
        named_window: Vec::new(),
        qualify: None,
        window_before_qualify: false,
        value_table_mode: None,
        flavor: ast::SelectFlavor::Standard,
    };
    Query {
        with: None,
        body: Box::new(SetExpr::Select(Box::new(select))),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: Vec::new(),
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: Vec::new(),
    }
}
