//! Whether a statement is on one key or a few, and its compilation when it is.
//!
//! Only forms whose meaning is certain are taken; everything else, errors included, is the engine path's.

use super::{Action, Assignment, Exact, Filter, KEYS_MAX, PointPlan, ROWS_MAX, Select, Source, write_exact};
use crate::cluster::Schema;
use crate::front::literal;
use crate::front::parse::{Parsed, fold};
use crate::front::statement::{Delete, Insert, InsertSource, Name, OnConflict, Statement, Update};
use crud::Layout;
use crud::request::Projection;
use crud::selection::Operator;
use crud::wire::Verb;
use model::{ColumnType, Table, Value, msgpack};
use sqlparser::ast::{self, BinaryOperator, Expr, GroupByExpr, LimitClause, SelectItem, SetExpr, TableFactor};
use std::sync::Arc;

/// The plan of a point statement; None when the statement is none.
pub fn recognise(parsed: &Parsed, schema: &dyn Schema) -> Option<PointPlan> {
    let (table, action) = match &parsed.statement {
        Statement::Query(query) => select(query, schema)?,
        Statement::Insert(statement) => insert(statement, schema)?,
        Statement::Update(statement) => update(statement, schema)?,
        Statement::Delete(statement) => delete(statement, schema)?,
        Statement::Explain { .. } | Statement::Schema(_) | Statement::Transaction(_) => return None,
    };
    let plan = PointPlan { layout: Arc::new(Layout::new(table)), params_count: parsed.params_count, action };
    // A global table is written through the Raft log.
    (!plan.is_write() || plan.layout.is_sharded()).then_some(plan)
}

/// A table and the name that its columns may be qualified with.
struct Scope {
    table: Arc<Table>,
    qualifier: String,
}

impl Scope {
    fn new(schema: &dyn Schema, table: &Name, alias: Option<&Name>) -> Option<Scope> {
        let found = schema.table(&table.text)?;
        Some(Scope { table: found, qualifier: alias.unwrap_or(table).text.clone() })
    }

    fn column(&self, expr: &Expr) -> Option<usize> {
        match expr {
            Expr::Identifier(ident) => self.table.column_position(&fold(ident).text),
            Expr::CompoundIdentifier(parts) => match &parts[..] {
                [qualifier, column] if fold(qualifier).text == self.qualifier => {
                    self.table.column_position(&fold(column).text)
                }
                _ => None,
            },
            Expr::Nested(inner) => self.column(inner),
            _ => None,
        }
    }

    fn ty(&self, column: usize) -> ColumnType {
        self.table.columns[column].ty
    }
}

fn param(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(value) => match &value.value {
            ast::Value::Placeholder(name) => name.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1),
            _ => None,
        },
        Expr::Nested(inner) => param(inner),
        _ => None,
    }
}

/// A value to compare a column with. `Some(None)`: no row can be equal to it.
fn compared(expr: &Expr, ty: ColumnType) -> Option<Option<Source>> {
    if let Some(at) = param(expr) {
        return Some(Some(Source::Param(at)));
    }
    let value = literal::constant(expr)?.ok()?;
    // Typed literals have no form of their own in MessagePack.
    let is_temporal = matches!(value, Value::Date(_) | Value::Time(_) | Value::Timestamp(_) | Value::TimestampTz(_));
    if is_temporal && value.clone().coerce(ty).ok()? != value {
        return None;
    }
    let (mut raw, mut stored) = (Vec::new(), Vec::new());
    value.write_shown(&mut raw);
    match write_exact(ty, &raw, &mut stored) {
        Exact::Is => Some(Some(Source::Constant(stored))),
        Exact::Never => Some(None),
        Exact::Unclear => None,
    }
}

/// A value to put into a column; None in the place of an expression stands for DEFAULT.
fn assigned(expr: Option<&Expr>, table: &Table, column: usize) -> Option<Source> {
    let column = &table.columns[column];
    let value = match expr {
        None if column.generated.is_some() => return None,
        None => column.default.clone().unwrap_or(Value::Null),
        Some(expr) => match param(expr) {
            Some(at) => return Some(Source::Param(at)),
            None => literal::constant(expr)?.ok()?.coerce(column.ty).ok()?,
        },
    };
    if value.is_null() && !column.nullable {
        return None;
    }
    let mut raw = Vec::new();
    value.write_shown(&mut raw);
    Some(Source::Constant(raw))
}

/// What WHERE says, when it fixes the primary key.
struct Condition {
    keys: Vec<Vec<Source>>,
    filters: Vec<Filter>,
    /// Whether it is one key, by equality.
    is_single: bool,
}

fn condition(scope: &Scope, selection: Option<&Expr>) -> Option<Condition> {
    let primary_key = &scope.table.primary_key;
    let mut fixed: Vec<Option<Option<Source>>> = vec![None; primary_key.len()];
    let (mut list, mut filters) = (None, Vec::new());
    let mut conjuncts = vec![selection?];
    while let Some(expr) = conjuncts.pop() {
        match expr {
            Expr::Nested(inner) => conjuncts.push(inner),
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => conjuncts.extend([&**left, &**right]),
            Expr::InList { expr, list: items, negated: false } if primary_key[..] == [scope.column(expr)?] => {
                if list.replace(items).is_some() {
                    return None;
                }
            }
            Expr::BinaryOp { left, op, right } => {
                let (column, operator, value) = comparison(scope, left, op, right)?;
                let place = primary_key.iter().position(|p| *p == column);
                match place {
                    Some(place) if operator == Operator::Equal && fixed[place].is_none() => {
                        fixed[place] = Some(compared(value, scope.ty(column))?);
                    }
                    _ => filters.push(filter(scope, column, operator, value)?),
                }
            }
            _ => return None,
        }
    }
    let keys = match list {
        Some(items) if items.len() <= KEYS_MAX && fixed[0].is_none() => {
            let ty = scope.ty(primary_key[0]);
            let keys: Option<Vec<_>> = items.iter().map(|item| compared(item, ty)).collect();
            keys?.into_iter().flatten().map(|key| vec![key]).collect()
        }
        Some(_) => return None,
        None => {
            let parts: Option<Vec<_>> = fixed.into_iter().collect();
            // One part that equals nothing leaves no key.
            parts?.into_iter().collect::<Option<Vec<Source>>>().into_iter().collect()
        }
    };
    Some(Condition { is_single: list.is_none(), keys, filters })
}

fn comparison<'e>(
    scope: &Scope,
    left: &'e Expr,
    op: &BinaryOperator,
    right: &'e Expr,
) -> Option<(usize, Operator, &'e Expr)> {
    let (operator, mirrored) = match op {
        BinaryOperator::Eq => (Operator::Equal, Operator::Equal),
        BinaryOperator::Lt => (Operator::Less, Operator::Greater),
        BinaryOperator::LtEq => (Operator::LessOrEqual, Operator::GreaterOrEqual),
        BinaryOperator::GtEq => (Operator::GreaterOrEqual, Operator::LessOrEqual),
        BinaryOperator::Gt => (Operator::Greater, Operator::Less),
        _ => return None,
    };
    match (scope.column(left), scope.column(right)) {
        (Some(column), None) => Some((column, operator, right)),
        (None, Some(column)) => Some((column, mirrored, left)),
        _ => None,
    }
}

fn filter(scope: &Scope, column: usize, operator: Operator, value: &Expr) -> Option<Filter> {
    let ty = scope.ty(column);
    // The order of the others is the engine's to know.
    let is_simple =
        ty.is_integer() || matches!(ty, ColumnType::Text | ColumnType::Varchar { .. } | ColumnType::Boolean);
    let value = compared(value, ty).filter(|_| is_simple)??;
    Some(Filter { column, ty, operator, value })
}

fn select(query: &ast::Query, schema: &dyn Schema) -> Option<(Arc<Table>, Action)> {
    let is_plain = query.with.is_none()
        && query.order_by.is_none()
        && query.fetch.is_none()
        && query.locks.is_empty()
        && query.for_clause.is_none()
        && query.settings.is_none()
        && query.format_clause.is_none()
        && query.pipe_operators.is_empty();
    let SetExpr::Select(select) = &*query.body else { return None };
    let no_groups = matches!(&select.group_by, GroupByExpr::Expressions(exprs, modifiers) if exprs.is_empty() && modifiers.is_empty());
    let is_plain = is_plain
        && no_groups
        && select.distinct.is_none()
        && select.top.is_none()
        && select.into.is_none()
        && select.lateral_views.is_empty()
        && select.prewhere.is_none()
        && select.having.is_none()
        && select.qualify.is_none()
        && select.named_window.is_empty()
        && select.connect_by.is_empty()
        && select.exclude.is_none();
    let [from] = &select.from[..] else { return None };
    if !is_plain || !from.joins.is_empty() {
        return None;
    }
    let scope = scope_of(&from.relation, schema)?;
    let condition = condition(&scope, select.selection.as_ref())?;
    match &query.limit_clause {
        None => {}
        Some(LimitClause::LimitOffset { limit: Some(limit), offset: None, limit_by }) if limit_by.is_empty() => {
            let at_least_one = matches!(literal::constant(limit), Some(Ok(Value::Integer(1..))));
            if !at_least_one || !condition.is_single {
                return None;
            }
        }
        Some(_) => return None,
    }
    let (projection, metadata) = projection(&scope, &select.projection)?;
    let select = Select { keys: condition.keys, filters: condition.filters, projection, metadata };
    Some((scope.table, Action::Select(select)))
}

fn scope_of(relation: &TableFactor, schema: &dyn Schema) -> Option<Scope> {
    let TableFactor::Table {
        name,
        alias,
        args: None,
        with_hints,
        version: None,
        with_ordinality: false,
        partitions,
        json_path: None,
        sample: None,
        index_hints,
    } = relation
    else {
        return None;
    };
    let [ast::ObjectNamePart::Identifier(table)] = &name.0[..] else { return None };
    let alias = alias.as_ref().map(|alias| alias.columns.is_empty().then(|| fold(&alias.name)));
    let alias = match alias {
        Some(None) => return None,
        other => other.flatten(),
    };
    let is_plain = with_hints.is_empty() && partitions.is_empty() && index_hints.is_empty();
    is_plain.then(|| Scope::new(schema, &fold(table), alias.as_ref()))?
}

/// The output columns, None for all of them as they are, and their metadata.
fn projection(scope: &Scope, items: &[SelectItem]) -> Option<(Option<Projection>, Vec<u8>)> {
    let all = &scope.table.columns;
    if let [SelectItem::Wildcard(options)] = items {
        let is_plain = options.opt_ilike.is_none()
            && options.opt_exclude.is_none()
            && options.opt_except.is_none()
            && options.opt_replace.is_none()
            && options.opt_rename.is_none()
            && options.opt_alias.is_none();
        let visible: Vec<_> = scope.table.visible().map(|at| (all[at].name.as_str(), all[at].ty)).collect();
        let metadata = metadata(visible.into_iter());
        return is_plain.then_some((None, metadata));
    }
    let mut columns = Vec::with_capacity(items.len());
    let mut names = Vec::with_capacity(items.len());
    for item in items {
        let (expr, alias) = match item {
            SelectItem::UnnamedExpr(expr) => (expr, None),
            SelectItem::ExprWithAlias { expr, alias } => (expr, Some(fold(alias).text)),
            _ => return None,
        };
        let column = scope.column(expr)?;
        names.push(alias.unwrap_or_else(|| all[column].name.clone()));
        columns.push(column);
    }
    let metadata = metadata(names.iter().zip(&columns).map(|(name, column)| (name.as_str(), all[*column].ty)));
    (!columns.is_empty()).then(|| (Some(Projection { columns, metadata: metadata.clone() }), metadata))
}

fn metadata<'n>(columns: impl ExactSizeIterator<Item = (&'n str, ColumnType)>) -> Vec<u8> {
    let mut out = Vec::new();
    msgpack::write_array_len(&mut out, columns.len());
    for (name, ty) in columns {
        msgpack::write_map_len(&mut out, 2);
        msgpack::write_str(&mut out, "name");
        msgpack::write_str(&mut out, name);
        msgpack::write_str(&mut out, "type");
        msgpack::write_str(&mut out, &shown_type(ty));
    }
    out
}

/// A type as results name it. Lengths and precisions are the table's affair: expressions have none, so the engine names
/// none, and a statement's metadata must not depend on the path that it takes.
pub(crate) fn shown_type(ty: ColumnType) -> String {
    match ty {
        ColumnType::Char { .. } | ColumnType::Varchar { .. } => ColumnType::Text.to_string(),
        ColumnType::Decimal { .. } => "decimal".to_owned(),
        ColumnType::Unsigned => ColumnType::BigInt.to_string(),
        other => other.to_string(),
    }
}

fn insert(insert: &Insert, schema: &dyn Schema) -> Option<(Arc<Table>, Action)> {
    let InsertSource::Values(values) = &insert.source else { return None };
    let table = schema.table(&insert.table.text)?;
    if insert.returning.is_some() || table.has_hidden_key() {
        return None;
    }
    let columns: Vec<usize> = match &insert.columns {
        None => table.visible().collect(),
        Some(names) => names.iter().map(|name| table.column_position(&name.text)).collect::<Option<_>>()?,
    };
    let mut place_of: Vec<Option<usize>> = vec![None; table.columns.len()];
    for (place, column) in columns.iter().enumerate() {
        if place_of[*column].replace(place).is_some() || table.columns[*column].is_always_generated() {
            return None;
        }
    }
    let is_about_key = targets_primary_key(&table, insert.conflict_target.as_deref());
    // Without a target, DO NOTHING is about all unique keys.
    let is_about_all = insert.conflict_target.is_none() && insert.on_conflict == OnConflict::Skip;
    let has_others = table.indexes.iter().any(|index| index.unique);
    if !is_about_key || is_about_all && has_others || values.len() > ROWS_MAX {
        return None;
    }
    let mut rows = Vec::with_capacity(values.len());
    for row in values {
        if row.len() != columns.len() {
            return None;
        }
        let value = |(column, place): (usize, &Option<usize>)| {
            assigned(place.and_then(|place| row[place].as_ref()), &table, column)
        };
        let visible = table.visible().map(|column| (column, &place_of[column]));
        rows.push(visible.map(value).collect::<Option<Vec<Source>>>()?);
    }
    let verb = match insert.on_conflict {
        OnConflict::Fail => Verb::Insert,
        OnConflict::Skip => Verb::InsertOrSkip,
        OnConflict::Replace => Verb::Replace,
        OnConflict::Update { .. } => return None,
    };
    Some((table, Action::Insert { verb, rows }))
}

/// Whether ON CONFLICT names no columns or just those of the primary key.
fn targets_primary_key(table: &Table, target: Option<&[Name]>) -> bool {
    let Some(target) = target else { return true };
    let positions: Vec<Option<usize>> = target.iter().map(|name| table.column_position(&name.text)).collect();
    let is_key = |position: &Option<usize>| position.is_some_and(|p| table.primary_key.contains(&p));
    positions.iter().all(is_key) && table.primary_key.iter().all(|p| positions.contains(&Some(*p)))
}

fn update(update: &Update, schema: &dyn Schema) -> Option<(Arc<Table>, Action)> {
    let scope = Scope::new(schema, &update.table, update.alias.as_ref())?;
    let mut condition = condition(&scope, update.selection.as_ref())?;
    let is_plain = update.with.is_none() && update.from.is_empty() && update.returning.is_none();
    if !is_plain || !condition.is_single || !condition.filters.is_empty() {
        return None;
    }
    let mut assignments: Vec<Assignment> = Vec::with_capacity(update.assignments.len());
    for (name, value) in &update.assignments {
        let column = scope.table.column_position(&name.text)?;
        let is_known = assignments.iter().any(|other| other.column == column);
        // What numbers are for is the other path's to know.
        if is_known || scope.table.columns[column].is_always_generated() || scope.table.primary_key.contains(&column) {
            return None;
        }
        assignments.push(assignment(&scope, column, value.as_ref())?);
    }
    // A key that no row can have: there is nothing to do, and the engine path says so.
    let key = condition.keys.pop()?;
    Some((scope.table, Action::Update { key, assignments }))
}

fn assignment(scope: &Scope, column: usize, value: Option<&Expr>) -> Option<Assignment> {
    if let Some(value) = assigned(value, &scope.table, column) {
        return Some(Assignment { column, operator: "=", value });
    }
    let Some(Expr::BinaryOp { left, op, right }) = value else { return None };
    let definition = &scope.table.columns[column];
    // The host adds integers as SQL does, but for NULL, which these columns do not hold.
    if !definition.ty.is_integer() || definition.nullable || scope.column(left) != Some(column) {
        return None;
    }
    let operator = match op {
        BinaryOperator::Plus => "+",
        BinaryOperator::Minus => "-",
        _ => return None,
    };
    let value = match (param(right), literal::constant(right)) {
        (Some(at), _) => Source::Param(at),
        (None, Some(Ok(Value::Integer(integer)))) => {
            let mut raw = Vec::new();
            msgpack::write_int(&mut raw, integer);
            Source::Constant(raw)
        }
        _ => return None,
    };
    Some(Assignment { column, operator, value })
}

fn delete(delete: &Delete, schema: &dyn Schema) -> Option<(Arc<Table>, Action)> {
    let scope = Scope::new(schema, &delete.table, delete.alias.as_ref())?;
    let condition = condition(&scope, delete.selection.as_ref())?;
    let is_plain = delete.with.is_none() && delete.using.is_empty() && delete.returning.is_none();
    (is_plain && condition.filters.is_empty()).then_some((scope.table, Action::Delete { keys: condition.keys }))
}
