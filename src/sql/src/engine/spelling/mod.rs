//! SQL that the engine's planner does not take, spelled in a way that it does.
//!
//! The syntax tree is changed in place, before planning and without types: what needs types is `meaning`'s.
//!
//! | as written                                   | as planned                                   |
//! |----------------------------------------------|----------------------------------------------|
//! | `FETCH FIRST n ROWS ONLY`                    | `LIMIT n`                                    |
//! | `a LIKE p ESCAPE e`                          | `a LIKE like_pattern(p, e)`                  |
//! | `(a, b) = (c, d)`, `<`, IN a list of rows    | comparisons joined by AND and OR             |
//! | `(a, b) IN (subquery)`                       | EXISTS, as CASE where NULL can come of it    |
//! | `(a, b) IS NULL`, `IS NOT NULL`              | of each of them                              |
//! | `a < ANY (ARRAY[b, c])`                      | `a < b OR a < c`                             |
//! | columns of one name in a result              | names of their own, which nobody sees        |
//! | `max((SELECT a FROM t))`                     | with a name of its own for the subquery's column |
//! | `t AS u (x)` with fewer names than columns   | the other columns keep theirs                |
//! | `CAST(a AS type)`, `(a - b)`                 | `as_written(CAST(a AS type), 'type')`, `as_written((a - b), '()')` |
//! | `OVER (w ORDER BY a)`                        | with what the window w says                  |
//! | `RIGHT JOIN`, `FULL JOIN` with USING         | LEFT JOIN; ON, and COALESCE of the columns   |
//! | `*` over USING and NATURAL joins of tables   | the columns, in the standard's order         |
//! | `NATURAL RIGHT` and `FULL JOIN` of tables    | with USING                                   |
//! | `INTERVAL '1-2' YEAR TO MONTH` and the like  | `INTERVAL '1 years 2 months'`                |
//! | `1e3`, `U&'\0061'`                           | an exact decimal, a plain text               |
//! | CURRENT_TIMESTAMP and its kin                | the moment at which the statement is planned |

mod interval;
mod joins;
mod order_by;
mod wildcards;

use crate::cluster::Schema;
use crate::front::parse::fold;
use crate::walk;
use model::{Code, Error, Result};
use sqlparser::ast::helpers::attached_token::AttachedToken;
use sqlparser::ast::{
    self, BinaryOperator, Expr, Fetch, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments,
    Ident, LimitClause, ObjectName, Query, Select, SelectItem, SetExpr, TableAliasColumnDef, TableFactor,
    UnaryOperator, Value,
};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{SystemTime, UNIX_EPOCH};

/// Rewrites a query in place.
///
/// Errors: `Unsupported` for what has no other spelling, `InvalidStatement` for rows of different lengths.
pub fn respell(query: &mut Query, schema: &dyn Schema) -> Result<()> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_us = i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX);
    walk::change(query, &mut Speller { schema, names: 0, now_us, tables_of_with: Vec::new() })
}

struct Speller<'a> {
    schema: &'a dyn Schema,
    /// Names that were given away.
    names: usize,
    /// The statement's moment, in microseconds since 1970-01-01 UTC.
    now_us: i64,
    /// The names that the WITH clauses of the queries around define, a list for each query.
    tables_of_with: Vec<Vec<String>>,
}

impl walk::Change for Speller<'_> {
    fn enter_query(&mut self, query: &mut Query) -> Result<()> {
        if let Some(fetch) = query.fetch.take() {
            query.limit_clause = Some(limit_of(fetch, query.limit_clause.take())?);
        }
        if matches!(&*query.body, SetExpr::SetOperation { .. }) {
            self.rename_operands(&mut query.body, true);
        }
        let mut names = Vec::new();
        if let Some(with) = &mut query.with {
            with.cte_tables.iter_mut().for_each(|cte| name_outputs(&mut cte.query));
            names.extend(with.cte_tables.iter().map(|cte| fold(&cte.alias.name).text));
        }
        self.tables_of_with.push(names);
        self.order_by(query)
    }

    fn leave_query(&mut self, _: &mut Query) -> Result<()> {
        self.tables_of_with.pop();
        Ok(())
    }

    fn enter_select(&mut self, select: &mut Select) -> Result<()> {
        wildcards::spell_out(select, self.schema, |name| self.is_defined(name))?;
        joins::respell(select)?;
        if let ast::GroupByExpr::Expressions(groups, _) = &mut select.group_by {
            groups.retain(|group| !matches!(group, Expr::Tuple(items) if items.is_empty()));
        }
        inherit_windows(select)?;
        self.tell_outputs_apart(select);
        Ok(())
    }

    fn enter_value(&mut self, value: &mut ast::ValueWithSpan) -> Result<()> {
        if let Value::UnicodeStringLiteral(text) | Value::NationalStringLiteral(text) = &mut value.value {
            value.value = Value::SingleQuotedString(std::mem::take(text));
        }
        Ok(())
    }

    fn enter_table(&mut self, factor: &mut TableFactor) -> Result<()> {
        match factor {
            TableFactor::Derived { subquery, .. } => name_outputs(subquery),
            TableFactor::Table { name, alias: Some(alias), .. } if !alias.columns.is_empty() => {
                let [ast::ObjectNamePart::Identifier(ident)] = &name.0[..] else { return Ok(()) };
                let name = fold(ident).text;
                if let Some(table) = self.schema.table(&name) {
                    let visible = table.columns.iter().filter(|column| !column.hidden);
                    let rest = visible.skip(alias.columns.len());
                    alias.columns.extend(rest.map(|column| TableAliasColumnDef {
                        name: Ident::with_quote('"', &column.name),
                        data_type: None,
                    }));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn enter_expr(&mut self, expr: &mut Expr) -> Result<()> {
        if let Expr::Subquery(query) = expr {
            name_scalar(query);
        }
        Ok(())
    }

    fn leave_expr(&mut self, expr: &mut Expr) -> Result<()> {
        if let Some(other) = self.expression(expr)? {
            *expr = other;
        }
        Ok(())
    }
}

impl Speller<'_> {
    /// Whether a WITH around gives the name to something.
    fn is_defined(&self, name: &str) -> bool {
        self.tables_of_with.iter().flatten().any(|known| known == name)
    }

    /// The planner takes no two columns of one name; users may have them. Results are named by `names`.
    fn tell_outputs_apart(&mut self, select: &mut Select) {
        let has_wild = select.projection.iter().any(is_wild);
        let mut seen: Vec<String> = Vec::new();
        let alone: Vec<String> = select.projection.iter().filter_map(named_alone).collect();
        for item in &mut select.projection {
            let (name, expr) = match item {
                SelectItem::UnnamedExpr(expr @ (Expr::Identifier(_) | Expr::CompoundIdentifier(_))) => {
                    (expr.to_string().to_lowercase(), expr.clone())
                }
                SelectItem::UnnamedExpr(expr) => (expr.to_string(), expr.clone()),
                SelectItem::ExprWithAlias { expr, alias } => (fold(alias).text, expr.clone()),
                _ => continue,
            };
            let is_column = matches!(item, SelectItem::UnnamedExpr(Expr::Identifier(_) | Expr::CompoundIdentifier(_)));
            // The planner's names of these leave out what tells them apart.
            let is_computed = matches!(item, SelectItem::UnnamedExpr(_)) && !is_column;
            let is_vague = is_computed && ["SELECT ", "CAST(", "::"].iter().any(|part| name.contains(part));
            let name = if is_computed { unqualified(&name) } else { name };
            // A column of a table, beside what has the same name and no table's.
            let is_beside = matches!(&*item, SelectItem::UnnamedExpr(Expr::CompoundIdentifier(names))
                if names.last().is_some_and(|name| alone.contains(&fold(name).text)));
            if seen.contains(&name) || (has_wild && is_column) || is_vague || is_beside {
                self.names += 1;
                *item = SelectItem::ExprWithAlias { expr, alias: Ident::new(format!("__again_{}", self.names)) };
            } else {
                seen.push(name);
            }
        }
    }

    /// The planner joins the operands of INTERSECT and EXCEPT by the names of their columns, so these have to differ. The
    /// first operand's are the result's, and keep their names unless two are the same.
    fn rename_operands(&mut self, body: &mut SetExpr, is_first: bool) {
        match body {
            SetExpr::SetOperation { left, right, .. } => {
                self.rename_operands(left, is_first);
                self.rename_operands(right, false);
            }
            // Its order may go by the names.
            SetExpr::Query(query) if query.order_by.is_none() => self.rename_operands(&mut query.body, is_first),
            SetExpr::Select(select) => {
                let groups = !matches!(&select.group_by, ast::GroupByExpr::Expressions(keys, _) if keys.is_empty());
                let mut seen: Vec<String> = Vec::new();
                for item in &mut select.projection {
                    let (name, expr) = match item {
                        SelectItem::UnnamedExpr(Expr::Identifier(name)) => {
                            (fold(name).text, Expr::Identifier(name.clone()))
                        }
                        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(names)) => {
                            let last = names.last().map(|name| fold(name).text).unwrap_or_default();
                            (last, Expr::CompoundIdentifier(names.clone()))
                        }
                        SelectItem::UnnamedExpr(expr) => (expr.to_string(), expr.clone()),
                        SelectItem::ExprWithAlias { expr, alias } if !groups => (fold(alias).text, expr.clone()),
                        _ => continue,
                    };
                    if !is_first || seen.contains(&name) {
                        self.names += 1;
                        let alias = Ident::new(format!("__operand_{}", self.names));
                        *item = SelectItem::ExprWithAlias { expr, alias };
                    } else {
                        seen.push(name);
                    }
                }
            }
            _ => {}
        }
    }

    fn expression(&mut self, expr: &mut Expr) -> Result<Option<Expr>> {
        Ok(match expr {
            Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
                if let Some(escape) = escape_char.take() {
                    let inner = std::mem::replace(&mut **pattern, null());
                    **pattern = call("like_pattern", vec![inner, Expr::Value(escape)]);
                }
                None
            }
            Expr::AnyOp { left, compare_op, right, .. } => listed(right).map(|list| {
                let compare = |item: &Expr| binary(left.as_ref().clone(), compare_op.clone(), item.clone());
                joined(list.iter().map(compare), BinaryOperator::Or, false)
            }),
            Expr::AllOp { left, compare_op, right } => listed(right).map(|list| {
                let compare = |item: &Expr| binary(left.as_ref().clone(), compare_op.clone(), item.clone());
                joined(list.iter().map(compare), BinaryOperator::And, true)
            }),
            Expr::BinaryOp { left, op, right } => match (row_of(left), row_of(right)) {
                (Some(left), Some(right)) => Some(rows_compared(left, op, right)?),
                _ => None,
            },
            Expr::InList { expr: row, list, negated } => match row_of(row) {
                Some(row) => {
                    let mut found = Vec::with_capacity(list.len());
                    for item in list {
                        let item = row_of(item).ok_or_else(|| lengths_differ(row.len()))?;
                        found.push(rows_compared(row, &BinaryOperator::Eq, item)?);
                    }
                    Some(negated_if(*negated, joined(found.into_iter(), BinaryOperator::Or, false)))
                }
                None => None,
            },
            Expr::InSubquery { expr: row, subquery, negated } => {
                row_of(row).map(|row| negated_if(*negated, self.row_within(row, subquery)))
            }
            Expr::IsNull(row) => row_of(row).map(|row| {
                joined(row.iter().map(|value| Expr::IsNull(Box::new(value.clone()))), BinaryOperator::And, true)
            }),
            Expr::IsNotNull(row) => row_of(row).map(|row| {
                joined(row.iter().map(|value| Expr::IsNotNull(Box::new(value.clone()))), BinaryOperator::And, true)
            }),
            Expr::SimilarTo { negated, expr, pattern, escape_char } => {
                let escape = escape_char.take().map_or_else(|| text("\\"), Expr::Value);
                let pattern = call("similar_pattern", vec![pattern.as_ref().clone(), escape]);
                let op = if *negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
                Some(Expr::Nested(Box::new(binary(expr.as_ref().clone(), op, pattern))))
            }
            Expr::Value(value) => match &value.value {
                Value::Number(digits, _) if digits.contains(['e', 'E']) => {
                    crate::front::literal::constant(expr).transpose()?.map(|value| exact(&value))
                }
                _ => None,
            },
            Expr::Interval(interval) => {
                interval::respell(interval)?;
                None
            }
            Expr::GroupingSets(sets) if sets.len() > 1 && sets.iter().all(Vec::is_empty) => {
                let message = "GROUPING SETS of nothing but () are not supported";
                return Err(Error::new(Code::Unsupported, message));
            }
            Expr::Function(function) => self.function_renamed(function),
            Expr::Cast { expr: inner, data_type, .. } if !matches!(**inner, Expr::Value(_)) => {
                let ty = text(&data_type.to_string());
                Some(call("as_written", vec![expr.clone(), ty]))
            }
            Expr::Nested(inner) if is_arithmetic(inner) => {
                let parentheses = text("()");
                Some(call("as_written", vec![expr.clone(), parentheses]))
            }
            _ => None,
        })
    }

    /// `row IN (subquery)`: true when one equals it, unknown when one might.
    fn row_within(&mut self, row: &[Expr], subquery: &Query) -> Expr {
        self.names += 1;
        let table = Ident::new(format!("__rows_{}", self.names));
        let columns: Vec<Ident> = (1..=row.len()).map(|at| Ident::new(format!("__column_{at}"))).collect();
        let equal = row.iter().zip(&columns).map(|(value, column)| {
            let column = Expr::CompoundIdentifier(vec![table.clone(), column.clone()]);
            binary(value.clone(), BinaryOperator::Eq, column)
        });
        let equal = joined(equal, BinaryOperator::And, true);
        let exists = |condition: Expr| Expr::Exists {
            subquery: Box::new(selection(subquery.clone(), &table, &columns, condition)),
            negated: false,
        };
        let when = |condition, result| ast::CaseWhen { condition, result };
        Expr::Case {
            case_token: AttachedToken::empty(),
            end_token: AttachedToken::empty(),
            operand: None,
            conditions: vec![
                when(exists(equal.clone()), boolean(true)),
                when(exists(Expr::IsNull(Box::new(Expr::Nested(Box::new(equal))))), null()),
            ],
            else_result: Some(Box::new(boolean(false))),
        }
    }
}

/// Whether `a - (b - c)` is another value than `a - b - c`, which the planner has the same name for.
fn is_arithmetic(expr: &Expr) -> bool {
    use BinaryOperator as O;
    matches!(expr, Expr::BinaryOp { op: O::Plus | O::Minus | O::Multiply | O::Divide | O::Modulo, .. })
}

/// The name of what stands in a result without a table's.
fn named_alone(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(Expr::Identifier(name)) | SelectItem::ExprWithAlias { alias: name, .. } => {
            Some(fold(name).text)
        }
        _ => None,
    }
}

fn is_wild(item: &SelectItem) -> bool {
    matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
}

fn null() -> Expr {
    Expr::Value(Value::Null.into())
}

fn boolean(value: bool) -> Expr {
    Expr::Value(Value::Boolean(value).into())
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

fn negated_if(negated: bool, expr: Expr) -> Expr {
    match negated {
        true => Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(Expr::Nested(Box::new(expr))) },
        false => expr,
    }
}

/// The conditions in one chain; `empty` when there are none.
fn joined(conditions: impl Iterator<Item = Expr>, op: BinaryOperator, empty: bool) -> Expr {
    let chain = conditions.map(|condition| Expr::Nested(Box::new(condition)));
    let joined = chain.reduce(|left, right| binary(left, op.clone(), right));
    Expr::Nested(Box::new(joined.unwrap_or_else(|| boolean(empty))))
}

fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

fn limit_of(fetch: Fetch, limit: Option<LimitClause>) -> Result<LimitClause> {
    let unsupported = |what: &str| Err(Error::new(Code::Unsupported, format!("{what} is not supported")));
    if fetch.with_ties {
        return unsupported("FETCH ... WITH TIES")
            .map_err(|error| error.with_hint("compare rank() OVER (ORDER BY ...)"));
    }
    if fetch.percent {
        return unsupported("FETCH ... PERCENT");
    }
    let one = || Expr::Value(Value::Number("1".into(), false).into());
    let limit_count = Some(fetch.quantity.unwrap_or_else(one));
    match limit {
        None => Ok(LimitClause::LimitOffset { limit: limit_count, offset: None, limit_by: Vec::new() }),
        Some(LimitClause::LimitOffset { limit: None, offset, limit_by }) => {
            Ok(LimitClause::LimitOffset { limit: limit_count, offset, limit_by })
        }
        Some(_) => Err(Error::new(Code::InvalidStatement, "LIMIT and FETCH in one query: write one of them")),
    }
}

/// Derived tables name their functions' columns after the functions.
fn name_outputs(query: &mut Query) {
    let SetExpr::Select(select) = leftmost(&mut query.body) else { return };
    let mut taken: Vec<String> = Vec::new();
    for item in &mut select.projection {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        let name = match expr {
            Expr::Function(function) => function.name.to_string().to_lowercase(),
            Expr::Case { .. } => "case".to_owned(),
            Expr::Exists { .. } => "exists".to_owned(),
            _ => continue,
        };
        if !taken.contains(&name) {
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('"', &name) };
            taken.push(name);
        }
    }
    let is_sorted = query.order_by.is_some();
    let SetExpr::Select(select) = leftmost(&mut query.body) else { return };
    let ast::GroupByExpr::Expressions(groups, _) = &mut select.group_by else { return };
    // DISTINCT finds what it is sorted by among the columns only.
    if groups.is_empty() || (select.distinct.is_some() && is_sorted) {
        return;
    }
    for group in groups {
        let item = position_of(group).and_then(|at| select.projection.get(at));
        if let Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item {
            *group = expr.clone();
        }
    }
    select.projection.iter_mut().for_each(hide_column);
}

/// The place in the select list that `GROUP BY 1` means.
fn position_of(group: &Expr) -> Option<usize> {
    let Expr::Value(ast::ValueWithSpan { value: Value::Number(digits, _), .. }) = group else { return None };
    digits.to_string().parse::<usize>().ok()?.checked_sub(1)
}

/// A column as an expression: the planner takes those that a derived table was grouped by to determine its other columns, also
/// of a LATERAL one, and adds these to the GROUP BY outside.
fn hide_column(item: &mut SelectItem) {
    let (expr, alias) = match &*item {
        SelectItem::UnnamedExpr(expr) => (expr, None),
        SelectItem::ExprWithAlias { expr, alias } => (expr, Some(alias)),
        _ => return,
    };
    let mut column = expr;
    while let Expr::Nested(inner) = column {
        column = inner;
    }
    let name = match column {
        Expr::Identifier(name) => Some(name),
        Expr::CompoundIdentifier(names) => names.last(),
        _ => None,
    };
    let Some(name) = name else { return };
    let (expr, alias) = (expr.clone(), alias.unwrap_or(name).clone());
    *item = SelectItem::ExprWithAlias { expr: call("as_written", vec![expr, text("()")]), alias };
}

fn leftmost(body: &mut SetExpr) -> &mut SetExpr {
    match body {
        SetExpr::Query(query) => leftmost(&mut query.body),
        SetExpr::SetOperation { left, .. } => leftmost(left),
        other => other,
    }
}

/// Gives the column of a scalar subquery a name that is no other's: the planner calls the subquery by it, and takes no two
/// aggregates, windows or groups that it calls the same. Subqueries of the same text have the same.
fn name_scalar(query: &mut Query) {
    let mut hasher = DefaultHasher::new();
    query.to_string().hash(&mut hasher);
    let is_sorted = query.order_by.is_some();
    let SetExpr::Select(select) = &mut *query.body else { return };
    let [SelectItem::UnnamedExpr(expr)] = &select.projection[..] else { return };
    let is_column = matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
    // An order goes by the columns of tables too, but not above DISTINCT.
    if !is_sorted || (is_column && select.distinct.is_none()) {
        let alias = Ident::new(format!("__scalar_{:x}", hasher.finish()));
        select.projection = vec![SelectItem::ExprWithAlias { expr: expr.clone(), alias }];
    }
}

/// An expression's text as it is when tables, quotes and parentheses are left out, as the planner does in some of its names.
fn unqualified(text: &str) -> String {
    let is_part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut short = String::with_capacity(text.len());
    for c in text.chars().filter(|c| *c != '"') {
        match c {
            '.' if short.ends_with(is_part_of_name) => short.truncate(short.trim_end_matches(is_part_of_name).len()),
            c => short.push(c),
        }
    }
    short.replace(['(', ')'], "").to_lowercase()
}

/// The items of an array that is written down.
fn listed(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::Nested(inner) => listed(inner),
        Expr::Array(array) => Some(&array.elem),
        _ => None,
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

/// `SELECT 1 FROM (query) AS table (columns) WHERE condition`.
fn selection(query: Query, table: &Ident, columns: &[Ident], condition: Expr) -> Query {
    let columns = columns.iter().map(|name| TableAliasColumnDef { name: name.clone(), data_type: None }).collect();
    let alias = ast::TableAlias { explicit: true, name: table.clone(), columns, at: None };
    let derived = TableFactor::Derived { lateral: false, subquery: Box::new(query), alias: Some(alias), sample: None };
    let from = ast::TableWithJoins { relation: derived, joins: Vec::new() };
    let one = SelectItem::UnnamedExpr(Expr::Value(Value::Number("1".into(), false).into()));
    let select = Select {
        select_token: AttachedToken::empty(),
        optimizer_hints: Vec::new(),
        distinct: None,
        select_modifiers: None,
        top: None,
        top_before_distinct: false,
        projection: vec![one],
        exclude: None,
        into: None,
        from: vec![from],
        lateral_views: Vec::new(),
        prewhere: None,
        selection: Some(condition),
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

/// `OVER (w ...)` takes over what w says, as the engine would forget it.
fn inherit_windows(select: &mut Select) -> Result<()> {
    let mut named = Heir(Vec::new());
    for ast::NamedWindowDefinition(name, definition) in &mut select.named_window {
        if let ast::NamedWindowExpr::WindowSpec(spec) = definition {
            named.inherit(spec);
            named.0.push((fold(name).text, spec.clone()));
        }
    }
    if named.0.is_empty() { Ok(()) } else { walk::change(&mut select.projection, &mut named) }
}

/// Windows by their names.
struct Heir(Vec<(String, ast::WindowSpec)>);

impl Heir {
    fn inherit(&self, spec: &mut ast::WindowSpec) {
        let base = spec.window_name.as_ref().map(|name| fold(name).text);
        if let Some((_, base)) = base.and_then(|base| self.0.iter().find(|(name, _)| *name == base)) {
            spec.window_name = None;
            spec.partition_by.clone_from(&base.partition_by);
            if spec.order_by.is_empty() {
                spec.order_by.clone_from(&base.order_by);
            }
        }
    }
}

impl walk::Change for Heir {
    fn leave_expr(&mut self, expr: &mut Expr) -> Result<()> {
        if let Expr::Function(Function { over: Some(ast::WindowType::WindowSpec(spec)), .. }) = expr {
            self.inherit(spec);
        }
        Ok(())
    }
}

fn text(text: &str) -> Expr {
    Expr::Value(Value::SingleQuotedString(text.to_owned()).into())
}

/// A number as an expression of its own type, a whole one too.
fn exact(value: &model::Value) -> Expr {
    match value {
        model::Value::Integer(integer) => {
            crate::front::literal::expression(&model::Value::Decimal(model::Decimal::from(*integer)))
        }
        value => crate::front::literal::expression(value),
    }
}

impl Speller<'_> {
    /// The standard's names of functions that the engine has under others, and the moment of the statement.
    fn function_renamed(&self, function: &mut Function) -> Option<Expr> {
        let [ast::ObjectNamePart::Identifier(name)] = &mut function.name.0[..] else { return None };
        let moment = |ty| {
            let value = model::Value::Timestamp(self.now_us).coerce(ty).unwrap_or(model::Value::Null);
            Some(crate::front::literal::expression(&value))
        };
        let time = model::Value::Time(self.now_us.rem_euclid(model::temporal::MICROS_PER_DAY));
        match name.value.to_lowercase().as_str() {
            "every" => name.value = "bool_and".into(),
            "array_remove" => name.value = "array_remove_all".into(),
            "array_replace" => name.value = "array_replace_all".into(),
            "localtime" | "current_time" => return Some(crate::front::literal::expression(&time)),
            "localtimestamp" => return moment(model::ColumnType::Timestamp),
            "current_date" | "today" => return moment(model::ColumnType::Date),
            "current_timestamp" | "now" | "transaction_timestamp" | "statement_timestamp" => {
                return moment(model::ColumnType::TimestampTz);
            }
            _ => {}
        }
        None
    }
}
