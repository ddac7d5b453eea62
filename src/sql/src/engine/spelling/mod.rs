//! SQL that the engine's planner does not take, spelled in a way that it does.
//!
//! The syntax tree is changed in place, before planning and without types: what needs types is `meaning`'s.
//!
//! | as written                                   | as planned                                   |
//! |----------------------------------------------|----------------------------------------------|
//! | `FETCH FIRST n ROWS ONLY`                    | `LIMIT n`                                    |
//! | `a LIKE p ESCAPE e`                          | `a LIKE like_pattern(p, e)`                  |
//! | `(a, b) = (c, d)`, `<`, IN a list of rows    | comparisons joined by AND and OR             |
//! | `(a, b) IN (subquery)`, with ANY, ALL        | EXISTS, as CASE where NULL can come of it    |
//! | `(a, b) = (subquery)`                        | a subquery that compares them                |
//! | `(a, b) IS NULL`, `IS NOT NULL`              | of each of them                              |
//! | `a < ANY (ARRAY[b, c])`                      | `a < b OR a < c`                             |
//! | columns of one name in a result              | names of their own, which nobody sees        |
//! | a WITH that gives a name of one outside      | another name                                 |
//! | `ROLLUP ((a, b), c)`, `GROUPING SETS (CUBE (a, b))` | GROUPING SETS of columns              |
//! | `max((SELECT a FROM t))`                     | with a name of its own for the subquery's column |
//! | `t AS u (x)` with fewer names than columns   | the other columns keep theirs                |
//! | `CAST(a AS type)`, `(a - b)`                 | `as_written(CAST(a AS type), 'type')`, `as_written((a - b), '()')` |
//! | `OVER (w ORDER BY a)`                        | with what the window w says                  |
//! | `RIGHT JOIN`, `FULL JOIN` with USING         | LEFT JOIN; ON, and COALESCE of the columns   |
//! | `*` over USING and NATURAL joins of tables   | the columns, in the standard's order         |
//! | `NATURAL RIGHT` and `FULL JOIN` of tables    | with USING                                   |
//! | `INTERVAL '1-2' YEAR TO MONTH` and the like  | `INTERVAL '1 years 2 months'`                |
//! | `a COLLATE "C"`                              | `a`                                          |
//! | `string_agg(a, ',') OVER (w)`                | `string_agg_over`, which counts what it makes |
//! | `generate_series(1, 3) g`                    | with the column's name, `g (g)`              |
//! | `1e3`, `U&'\0061'`                           | an exact decimal, a plain text               |
//! | CURRENT_TIMESTAMP and its kin                | the moment at which the statement is planned |

mod grouping;
mod interval;
mod joins;
mod order_by;
mod rows;
mod scopes;
mod twins;
mod wildcards;

use super::functions::windowed::name_over;
use super::names;
use crate::cluster::Schema;
use crate::front::parse::fold;
use crate::walk;
use model::{Code, Error, Result};
use rows::Copies;
use scopes::Scopes;
use sqlparser::ast::{
    self, BinaryOperator, Expr, Fetch, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments,
    Ident, LimitClause, ObjectName, Query, Select, SelectItem, SetExpr, TableAlias, TableAliasColumnDef, TableFactor,
    UnaryOperator, Value,
};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{SystemTime, UNIX_EPOCH};
pub use twins::ambiguous;

/// Rewrites a query in place.
///
/// Errors: `Unsupported` for what has no other spelling, `InvalidStatement` for rows of different lengths.
pub fn respell(query: &mut Query, schema: &dyn Schema) -> Result<()> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_us = i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX);
    walk::change(query, &mut Speller { schema, names: 0, now_us, scopes: Scopes::default(), copies: Copies::new() })
}

struct Speller<'a> {
    schema: &'a dyn Schema,
    /// Names that were given away.
    names: usize,
    /// The statement's moment, in microseconds since 1970-01-01 UTC.
    now_us: i64,
    /// What the WITH clauses of the queries around define.
    scopes: Scopes,
    copies: Copies,
}

impl walk::Change for Speller<'_> {
    fn enter_query(&mut self, query: &mut Query) -> Result<()> {
        if let Some(fetch) = query.fetch.take() {
            query.limit_clause = Some(limit_of(fetch, query.limit_clause.take())?);
        }
        if matches!(&*query.body, SetExpr::SetOperation { .. }) {
            self.rename_operands(&mut query.body, true);
        }
        self.enter_scope(query)?;
        self.order_by(query)
    }

    fn leave_query(&mut self, query: &mut Query) -> Result<()> {
        self.scopes.leave(query);
        Ok(())
    }

    fn enter_select(&mut self, select: &mut Select) -> Result<()> {
        select.from.iter().try_for_each(joins::check)?;
        twins::check(select, |name| self.scopes.twins_of(name))?;
        wildcards::spell_out(select, self.schema, |name| self.scopes.is_defined(name))?;
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
        if self.scopes.resolve(factor)? {
            return Ok(());
        }
        match factor {
            TableFactor::Derived { subquery, alias, .. } => name_outputs(subquery, alias.as_mut())?,
            TableFactor::NestedJoin { table_with_joins, .. } => joins::check(table_with_joins)?,
            TableFactor::Table { name, alias, args: Some(_), .. } => name_function(name, alias),
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
    /// The planner takes no two columns of one name; users may have them. Results are named by `names`.
    fn tell_outputs_apart(&mut self, select: &mut Select) {
        let has_wild = select.projection.iter().any(is_wild);
        let brought = wildcards::names_brought(select, self.schema, |name| self.scopes.is_defined(name));
        let is_brought =
            |name: &str| has_wild && brought.as_ref().is_none_or(|brought| brought.iter().any(|other| other == name));
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
            let own = names::written_name(item);
            let is_hidden = is_column && own.as_ref().is_some_and(|own| is_brought(own));
            if seen.contains(&name) || is_hidden || is_vague || is_beside {
                self.names += 1;
                let rest = own.map_or(String::new(), |own| format!("_{own}"));
                let alias = Ident::with_quote('"', format!("{}{}{rest}", names::AGAIN, self.names));
                *item = SelectItem::ExprWithAlias { expr, alias };
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
            Expr::AnyOp { left, compare_op, right, .. } => match listed(right) {
                Some(list) => {
                    self.copies.take(&**left, list.len())?;
                    let compare = |item: &Expr| binary(left.as_ref().clone(), compare_op.clone(), item.clone());
                    Some(joined(list.iter().map(compare), BinaryOperator::Or, false))
                }
                None => self.row_of_any(left, compare_op, right)?,
            },
            Expr::AllOp { left, compare_op, right } => match listed(right) {
                Some(list) => {
                    self.copies.take(&**left, list.len())?;
                    let compare = |item: &Expr| binary(left.as_ref().clone(), compare_op.clone(), item.clone());
                    Some(joined(list.iter().map(compare), BinaryOperator::And, true))
                }
                None => self.row_of_all(left, compare_op, right)?,
            },
            Expr::BinaryOp { left, op, right } => self.rows_of_comparison(left, op, right)?,
            Expr::InList { expr: row, list, negated } => rows::in_list(row, list, *negated, &mut self.copies)?,
            Expr::InSubquery { expr: row, subquery, negated } => self.row_in_subquery(row, subquery, *negated)?,
            Expr::IsNull(row) => rows::each(row, Expr::IsNull),
            Expr::IsNotNull(row) => rows::each(row, Expr::IsNotNull),
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
            Expr::Collate { expr: inner, collation } => {
                let collation = collation.to_string();
                if !BY_BYTES.contains(&collation.trim_matches('"').to_lowercase().as_str()) {
                    let error = Error::new(Code::Unsupported, format!("collation {collation} is not supported"));
                    return Err(error.with_hint("texts order by their bytes: collation \"C\""));
                }
                Some(inner.as_ref().clone())
            }
            Expr::Rollup(_) | Expr::Cube(_) | Expr::GroupingSets(_) if grouping::is_composed(expr) => {
                grouping::as_sets(expr)?;
                None
            }
            Expr::GroupingSets(sets) if sets.len() > 1 && sets.iter().all(Vec::is_empty) => {
                let message = "GROUPING SETS of nothing but () are not supported";
                return Err(Error::new(Code::Unsupported, message));
            }
            Expr::Function(function) => self.function_renamed(function),
            Expr::Cast { expr: inner, data_type: ast::DataType::Interval { .. }, .. } => {
                if let Expr::Value(ast::ValueWithSpan { value: Value::SingleQuotedString(text), .. }) = &mut **inner {
                    interval::respell_text(text);
                }
                None
            }
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
}

/// Names of the order that texts have.
const BY_BYTES: [&str; 4] = ["c", "posix", "ucs_basic", "default"];

/// The column of a function in FROM is called as its alias says, or as the function.
fn name_function(name: &ObjectName, alias: &mut Option<TableAlias>) {
    let [ast::ObjectNamePart::Identifier(function)] = &name.0[..] else { return };
    let alias = alias.get_or_insert_with(|| TableAlias {
        explicit: true,
        name: function.clone(),
        columns: Vec::new(),
        at: None,
    });
    if alias.columns.is_empty() {
        alias.columns.push(TableAliasColumnDef { name: alias.name.clone(), data_type: None });
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
///
/// Errors: those of `twins::tell_apart`.
fn name_outputs(query: &mut Query, alias: Option<&mut ast::TableAlias>) -> Result<()> {
    let SetExpr::Select(select) = leftmost(&mut query.body) else { return Ok(()) };
    let mut taken: Vec<String> = Vec::new();
    for item in &mut select.projection {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        let Some(name) = name_of_call(expr) else { continue };
        if !taken.contains(&name) {
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('"', &name) };
            taken.push(name);
        }
    }
    twins::tell_apart(query, alias)?;
    let is_sorted = query.order_by.is_some();
    let SetExpr::Select(select) = leftmost(&mut query.body) else { return Ok(()) };
    let ast::GroupByExpr::Expressions(groups, _) = &mut select.group_by else { return Ok(()) };
    // DISTINCT finds what it is sorted by among the columns only.
    if groups.is_empty() || (select.distinct.is_some() && is_sorted) {
        return Ok(());
    }
    for group in groups {
        let item = position_of(group).and_then(|at| select.projection.get(at));
        if let Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item {
            *group = expr.clone();
        }
    }
    select.projection.iter_mut().for_each(hide_column);
    Ok(())
}

/// What a computed column of a derived table is called.
fn name_of_call(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Function(function) => Some(function.name.to_string().to_lowercase()),
        Expr::Case { .. } => Some("case".to_owned()),
        Expr::Exists { .. } => Some("exists".to_owned()),
        _ => None,
    }
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
        if let (Some(_), Some(over)) = (&function.over, name_over(&name.value.to_lowercase())) {
            name.value = over.into();
            return None;
        }
        match name.value.to_lowercase().as_str() {
            "every" => name.value = "bool_and".into(),
            "gen_random_uuid" => name.value = "uuid".into(),
            "variance" => name.value = "var_samp".into(),
            "array_remove" => name.value = "array_remove_all".into(),
            "array_replace" => name.value = "array_replace_all".into(),
            "version" => return Some(text(concat!("picodata ", env!("CARGO_PKG_VERSION")))),
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
