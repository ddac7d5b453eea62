//! Expressions whose meaning depends on types that the engine does not know, or on PostgreSQL's rules for them.
//!
//! Works on the planner's output, before the engine's type coercion.
//!
//! | expression                                | becomes                                                |
//! |-------------------------------------------|--------------------------------------------------------|
//! | `as_written`, but in windows              | its first argument                                     |
//! | CAST that rounds, pads, cuts or reads text | `convert_to`                                           |
//! | an operation on numbers                   | the function for the types that they have               |
//! | `- integer`                               | a subtraction that fails instead of wrapping around    |
//! | CHAR(n) compared                          | both sides without padding, or a literal padded to n    |
//! | CHAR(n) in a function of texts, or `\|\|`    | without padding                                        |
//! | `\|\|` but of arrays                        | the function `concatenate`, of texts as CAST shows them |
//! | `concat`, `concat_ws`                     | of texts as CAST shows them; a boolean is `t` or `f`     |
//! | the engine's functions                    | those functions within bounds                           |
//! | a long text                               | a constant that rows share                              |
//! | UUID compared with a text                 | the text in a UUID's own spelling                       |
//! | a number, date and so on with a text literal | the literal as a value of the other side's type     |
//! | a number with any other text              | an error, as in PostgreSQL                             |
//! | a number with a date, a boolean with a number, and so on | an error, as in PostgreSQL              |
//! | `IS TRUE`, `IS NOT FALSE` and so on       | `IS [NOT] DISTINCT FROM` TRUE or FALSE                 |
//! | a decimal beside a DOUBLE PRECISION       | a DOUBLE PRECISION                                      |
//! | CHAR(n) in aggregates, windows and results of CASE | without padding                                |
//! | the columns of USING, INTERSECT, EXCEPT   | compared like all others                               |
//! | lists in several orders                   | lists that are put in order above the aggregate        |
//! | the sides of IN (subquery)                | both of one type                                       |
//! | `IS NOT DISTINCT FROM` of two columns      | equalities without NULLs                               |
//! | WHERE and HAVING of no boolean            | an error                                               |

use super::bounds::bounded;
use super::errors::wrap;
use super::functions::concat::concatenated;
use super::functions::{arithmetic, convert, is_ours, trim_padding};
use super::ordered;
use super::sets;
use super::types::{column_type_of, mark_of};
use super::unnest::{has_subquery, refreshed, same_values};
use datafusion::arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::{AggregateFunctionParams, Case, Cast, InList, InSubquery, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::utils::{conjunction, merge_schema};
use datafusion::logical_expr::{
    Between, BinaryExpr, Expr, ExprSchemable, Join, Like, LogicalPlan, LogicalPlanBuilder, Operator, Subquery,
    binary_expr, cast, lit,
};
use datafusion::scalar::ScalarValue;
use model::value::parse_uuid;
use model::{Code, ColumnType, Error, Value};
use std::sync::Arc;

/// How often types are looked at again.
const ROUNDS_MAX: usize = 8;

/// Functions that do not read their arguments as texts, or keep padding on purpose.
const KEEP_PADDING: [&str; 4] = ["octet_length", "convert_to", "only_row", "trim_padding"];

/// Functions whose arguments are all of one type.
const OF_ONE_TYPE: [&str; 4] = ["coalesce", "nullif", "greatest", "least"];

/// Longer texts are constants that rows share.
const COPIED_LITERAL_MAX: usize = 1024;

/// Gives the expressions of a plan, and of the subqueries in it, our meaning.
///
/// Errors: `WrongType`.
pub fn apply(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let mut plan = apply_once(plan)?;
    // Types that changed may change others, at most through all levels of subqueries.
    for _ in 0..ROUNDS_MAX {
        let refreshed = refreshed(plan)?;
        plan = refreshed.data;
        if !refreshed.transformed {
            break;
        }
        plan = apply_once(plan)?;
    }
    Ok(plan)
}

fn apply_once(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let applied = plan.transform_up_with_subqueries(|node| {
        if let LogicalPlan::Filter(filter) = &node {
            check_boolean(&filter.predicate, filter.input.schema())?;
        }
        let schema = merge_schema(&node.inputs());
        let names = NamePreserver::new(&node);
        let is_window = matches!(node, LogicalPlan::Window(_));
        let is_values = matches!(node, LogicalPlan::Values(_));
        let renamed = |expr: Expr| {
            let name = names.save(&expr);
            let expr = expr.transform_up(|part| match convert::as_written(&part) {
                // The engine mistakes two windows that turn out to be the same for a common part of their arguments.
                Some(_) if is_window => Ok(Transformed::no(part)),
                Some(cast) => Ok(Transformed::yes(cast.clone())),
                None if is_values => rewrite(part, &schema),
                None => rewrite(part, &schema)?.transform_data(|part| Ok(shared_by_rows(part))),
            })?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        };
        let node = node.map_expressions(|expr| match expr {
            // Its members have names, and it has none.
            Expr::GroupingSet(_) => expr.map_children(renamed),
            expr => renamed(expr),
        })?;
        let node = node.map_data(LogicalPlan::recompute_schema)?;
        match node.data {
            LogicalPlan::Union(union) => Ok(Transformed::yes(LogicalPlan::Union(sets::united(union)?))),
            LogicalPlan::RecursiveQuery(query) => {
                Ok(Transformed::yes(LogicalPlan::RecursiveQuery(sets::recursive(query)?)))
            }
            LogicalPlan::Aggregate(aggregate) => {
                let plan = ordered::collected(aggregate)?;
                let is_other = !matches!(plan, LogicalPlan::Aggregate(_));
                Ok(Transformed::new_transformed(plan, node.transformed || is_other))
            }
            LogicalPlan::Join(join) => {
                let (join, is_changed) = alike(join)?;
                match sets::is_of_all(&join) {
                    true => Ok(Transformed::yes(sets::counted(join)?)),
                    false => Ok(Transformed::new_transformed(LogicalPlan::Join(join), node.transformed || is_changed)),
                }
            }
            data => Ok(Transformed::new_transformed(data, node.transformed)),
        }
    })?;
    Ok(applied.data)
}

/// A join whose pairs of columns are compared as they mean.
fn alike(mut join: Join) -> DfResult<(Join, bool)> {
    let mut is_changed = false;
    for (left, right) in &mut join.on {
        let (Some(l), Some(r)) = (field_of(left, join.left.schema()), field_of(right, join.right.schema())) else {
            continue;
        };
        if mark_of(&l) == mark_of(&r) && l.data_type() == r.data_type() {
            continue;
        }
        let is_char = |field: &Field| matches!(mark_of(field), Some(ColumnType::Char { .. }));
        if is_char(&l) || is_char(&r) {
            let sides = (unpadded(left.clone(), join.left.schema()), unpadded(right.clone(), join.right.schema()));
            is_changed |= sides.0 != *left || sides.1 != *right;
            (*left, *right) = sides;
        } else if is_double_beside_decimal(l.data_type(), r.data_type()) {
            for (side, field) in [(&mut *left, &l), (&mut *right, &r)] {
                if field.data_type().is_decimal() {
                    *side = cast(side.clone(), DataType::Float64);
                    is_changed = true;
                }
            }
        }
    }
    Ok((join, is_changed))
}

fn check_boolean(predicate: &Expr, schema: &DFSchema) -> DfResult<()> {
    match predicate.get_type(schema) {
        Ok(ty) if !matches!(ty, DataType::Boolean | DataType::Null) => {
            Err(wrap(Error::new(Code::WrongType, "a condition is a boolean, and this one is not")))
        }
        _ => Ok(()),
    }
}

fn rewrite(expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    match expr {
        Expr::Cast(cast) => Ok(Transformed::yes(match convert::replace(&cast, schema) {
            Some(converted) => converted,
            // Without the mark that said what was written.
            None => Expr::Cast(Cast::new(cast.expr, cast.field.data_type().clone())),
        })),
        Expr::Case(case) => arithmetic::settled_case(case_of(case, schema)?, schema),
        Expr::AggregateFunction(call) if is_of_outer(&call.params) => {
            let message = "an aggregate of nothing but columns of a query outside belongs to that query";
            let error = Error::new(Code::Unsupported, message);
            Err(wrap(error.with_hint("compute it there, in a derived table or a CTE, and use its column here")))
        }
        Expr::AggregateFunction(mut call) => {
            call.params.args = call.params.args.into_iter().map(|arg| unpadded(arg, schema)).collect();
            Ok(Transformed::yes(Expr::AggregateFunction(call)))
        }
        Expr::WindowFunction(mut call) => {
            call.params.args = call.params.args.into_iter().map(|arg| unpadded(arg, schema)).collect();
            Ok(Transformed::yes(Expr::WindowFunction(call)))
        }
        Expr::Negative(inner) => {
            match inner.get_type(schema).ok().and_then(|ty| arithmetic::negated(*inner.clone(), &ty)) {
                Some(negated) => Ok(Transformed::yes(negated)),
                None => Ok(Transformed::no(Expr::Negative(inner))),
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
            let (left, right) = (unpadded(*left, schema), unpadded(*right, schema));
            let types = [&left, &right].map(|side| side.get_type(schema).unwrap_or(DataType::Null));
            Ok(Transformed::yes(match types {
                types if types.iter().any(DataType::is_nested) => binary_expr(left, Operator::StringConcat, right),
                types if types.iter().any(DataType::is_string) => {
                    concatenated(as_text(left, schema), as_text(right, schema))
                }
                _ => concatenated(left, right),
            }))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(op) => {
            let (left, right) = comparable(*left, *right, schema)?;
            if let (Operator::IsNotDistinctFrom, Some(same)) = (op, same_in_join(&left, &right, schema)) {
                return Ok(Transformed::yes(same));
            }
            Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))))
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let (first, low) = comparable(*expr.clone(), *low, schema)?;
            let (second, high) = comparable(*expr, *high, schema)?;
            if first == second {
                return Ok(Transformed::yes(Expr::Between(Between::new(
                    Box::new(first),
                    negated,
                    Box::new(low),
                    Box::new(high),
                ))));
            }
            let within = first.gt_eq(low).and(second.lt_eq(high));
            Ok(Transformed::yes(if negated { Expr::Not(Box::new(within)) } else { within }))
        }
        Expr::BinaryExpr(_) => arithmetic::chosen_again(expr, schema),
        Expr::InList(InList { expr, list, negated }) => in_list(*expr, list, negated, schema).map(Transformed::yes),
        Expr::InSubquery(within) => in_subquery(within, schema),
        Expr::ScalarFunction(ScalarFunction { func, args }) if !KEEP_PADDING.contains(&func.name()) => {
            let args = args.into_iter().map(|arg| unpadded(arg, schema));
            let args = match func.name() {
                name if OF_ONE_TYPE.contains(&name) => of_one_type(args.collect(), schema),
                "concat" | "concat_ws" => args.map(|arg| as_text(letter(arg, schema), schema)).collect(),
                _ => args.collect(),
            };
            // The engine's planner has functions of its own.
            let func = if is_ours(func.name()) { func } else { bounded(&func) };
            let function = Expr::ScalarFunction(ScalarFunction { func, args });
            arithmetic::chosen_again(function, schema).map(|chosen| Transformed::yes(chosen.data))
        }
        Expr::IsTrue(inner) => is_truth(*inner, true, false, schema),
        Expr::IsFalse(inner) => is_truth(*inner, false, false, schema),
        Expr::IsNotTrue(inner) => is_truth(*inner, true, true, schema),
        Expr::IsNotFalse(inner) => is_truth(*inner, false, true, schema),
        Expr::IsUnknown(inner) => Ok(Transformed::yes(boolean(*inner, schema)?.is_null())),
        Expr::IsNotUnknown(inner) => Ok(Transformed::yes(boolean(*inner, schema)?.is_not_null())),
        Expr::Like(like) => {
            check_text(&like, schema)?;
            let pattern = Box::new(unpadded(*like.pattern.clone(), schema));
            Ok(Transformed::yes(Expr::Like(Like { pattern, ..like })))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Whether an aggregate looks at columns outside and at none inside.
fn is_of_outer(params: &AggregateFunctionParams) -> bool {
    let sorted = params.order_by.iter().map(|sort| &sort.expr);
    let parts: Vec<&Expr> = params.args.iter().chain(params.filter.as_deref()).chain(sorted).collect();
    let has = |is: fn(&Expr) -> bool| parts.iter().any(|part| part.exists(|part| Ok(is(part))).unwrap_or(false));
    // What a subquery looks at may be inside.
    let is_inside = |part: &Expr| {
        matches!(part, Expr::Column(_) | Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_))
            || matches!(part, Expr::SetComparison(_))
    };
    has(|part| matches!(part, Expr::OuterReferenceColumn(..))) && !has(is_inside)
}

/// A CASE that compares as `=` does, and shows texts without padding.
fn case_of(case: Case, schema: &DFSchema) -> DfResult<Expr> {
    let Case { expr: operand, when_then_expr, else_expr } = case;
    let shown = |result: Box<Expr>| Box::new(unpadded(*result, schema));
    let is_char =
        |expr: &Expr| field_of(expr, schema).is_some_and(|f| matches!(mark_of(&f), Some(ColumnType::Char { .. })));
    let is_spelled = operand.as_deref().is_some_and(is_char) || when_then_expr.iter().any(|(when, _)| is_char(when));
    let mut branches = Vec::with_capacity(when_then_expr.len());
    for (when, then) in when_then_expr {
        let when = match &operand {
            Some(operand) if is_spelled => {
                let (left, right) = comparable(operand.as_ref().clone(), *when, schema)?;
                Box::new(left.eq(right))
            }
            _ => when,
        };
        branches.push((when, shown(then)));
    }
    let operand = operand.filter(|_| !is_spelled);
    Ok(Expr::Case(Case::new(operand, branches, else_expr.map(shown))))
}

/// Arguments of which a DOUBLE PRECISION makes all decimals one.
fn of_one_type(args: Vec<Expr>, schema: &DFSchema) -> Vec<Expr> {
    let types: Vec<DataType> = args.iter().map(|arg| arg.get_type(schema).unwrap_or(DataType::Null)).collect();
    if !types.contains(&DataType::Float64) {
        return args;
    }
    let pairs = args.into_iter().zip(types);
    pairs.map(|(arg, ty)| if ty.is_decimal() { as_double(arg) } else { arg }).collect()
}

fn is_double_beside_decimal(a: &DataType, b: &DataType) -> bool {
    (*a == DataType::Float64 && b.is_decimal()) || (a.is_decimal() && *b == DataType::Float64)
}

/// A decimal as a DOUBLE PRECISION; of a constant one at once, so that an index may be used.
fn as_double(expr: Expr) -> Expr {
    match &expr {
        Expr::Literal(value, _) => match value.cast_to(&DataType::Float64) {
            Ok(value) => lit(value),
            Err(_) => cast(expr, DataType::Float64),
        },
        _ => cast(expr, DataType::Float64),
    }
}

/// `IS NOT DISTINCT FROM` of two columns, in plain equalities: of a join by it the engine would take NULLs for equal in all
/// conditions that it moves there.
fn same_in_join(left: &Expr, right: &Expr, schema: &DFSchema) -> Option<Expr> {
    if left.column_refs().is_empty() || right.column_refs().is_empty() {
        return None;
    }
    let (l, r) = (field_of(left, schema)?, field_of(right, schema)?);
    let ty = comparison_coercion(l.data_type(), r.data_type())?;
    conjunction(same_values(left.clone(), right.clone(), l.is_nullable() || r.is_nullable(), &ty))
}

/// `IS [NOT] TRUE` or FALSE as the comparison that the engine makes of it late: earlier, its schemas stay the same.
fn is_truth(expr: Expr, truth: bool, negated: bool, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    let op = if negated { Operator::IsDistinctFrom } else { Operator::IsNotDistinctFrom };
    let compared = BinaryExpr::new(Box::new(boolean(expr, schema)?), op, Box::new(lit(truth)));
    Ok(Transformed::yes(Expr::BinaryExpr(compared)))
}

fn boolean(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    match expr.get_type(schema) {
        Ok(ty) if !matches!(ty, DataType::Boolean | DataType::Null) => {
            let message = "IS TRUE, IS FALSE and IS UNKNOWN are about booleans, and this is none";
            Err(wrap(Error::new(Code::WrongType, message)))
        }
        _ => Ok(expr),
    }
}

fn is_comparison(op: Operator) -> bool {
    use Operator as O;
    matches!(op, O::Eq | O::NotEq | O::Lt | O::LtEq | O::Gt | O::GtEq | O::IsDistinctFrom | O::IsNotDistinctFrom)
}

fn is_text(ty: &DataType) -> bool {
    matches!(ty, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8)
}

fn field_of(expr: &Expr, schema: &DFSchema) -> Option<Arc<Field>> {
    expr.to_field(schema).ok().map(|(_, field)| field)
}

fn text_literal(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)), _) => Some(text),
        _ => None,
    }
}

/// A padded text as the text that it means.
fn unpadded(expr: Expr, schema: &DFSchema) -> Expr {
    match field_of(&expr, schema).and_then(|field| mark_of(&field)) {
        Some(ColumnType::Char { .. }) => trim_padding(expr),
        _ => expr,
    }
}

/// A value as `CAST(... AS TEXT)` shows it; what can not be one, as it is.
fn as_text(expr: Expr, schema: &DFSchema) -> Expr {
    match expr.get_type(schema) {
        Ok(ty) if !ty.is_string() && !ty.is_null() && !ty.is_nested() && !ty.is_binary() => {
            let cast = Cast::new(Box::new(expr), DataType::Utf8View);
            convert::replace(&cast, schema).unwrap_or(Expr::Cast(cast))
        }
        _ => expr,
    }
}

/// A boolean as the letter that `concat` makes of it.
fn letter(expr: Expr, schema: &DFSchema) -> Expr {
    match expr.get_type(schema) {
        Ok(DataType::Boolean) => {
            let cases = [(expr.clone().is_true(), "t"), (expr.is_false(), "f")];
            let cases = cases.map(|(when, then)| (Box::new(when), Box::new(lit(then))));
            Expr::Case(Case::new(None, cases.to_vec(), None))
        }
        _ => expr,
    }
}

/// A long text as a constant that rows share, where the engine would copy it for each of them.
fn shared_by_rows(expr: Expr) -> Transformed<Expr> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)), metadata) if text.len() > COPIED_LITERAL_MAX => {
            Transformed::yes(Expr::Literal(ScalarValue::Utf8View(Some(text)), metadata))
        }
        expr => Transformed::no(expr),
    }
}

/// A date as its first moment: the engine would count in nanoseconds, which end in 2262.
fn at_midnight(expr: Expr, schema: &DFSchema) -> Expr {
    match expr.get_type(schema) {
        Ok(DataType::Date32) => cast(expr, DataType::Timestamp(TimeUnit::Microsecond, None)),
        _ => expr,
    }
}

/// Both sides of a comparison, such that the engine compares what is meant.
fn comparable(left: Expr, right: Expr, schema: &DFSchema) -> DfResult<(Expr, Expr)> {
    let (Some(l), Some(r)) = (field_of(&left, schema), field_of(&right, schema)) else { return Ok((left, right)) };
    match (mark_of(&l), mark_of(&r)) {
        (Some(ColumnType::Char { length }), _) if text_literal(&right).is_some() => Ok(padded(left, right, length)),
        (_, Some(ColumnType::Char { length })) if text_literal(&left).is_some() => {
            let (right, left) = padded(right, left, length);
            Ok((left, right))
        }
        (Some(ColumnType::Char { length: a }), Some(ColumnType::Char { length: b })) if a == b => Ok((left, right)),
        (Some(ColumnType::Char { .. }), _) | (_, Some(ColumnType::Char { .. })) => {
            Ok((unpadded(left, schema), unpadded(right, schema)))
        }
        (Some(ColumnType::Uuid), _) => Ok((left, as_uuid(right)?)),
        (_, Some(ColumnType::Uuid)) => Ok((as_uuid(left)?, right)),
        _ => match (l.data_type(), r.data_type()) {
            (DataType::Date32, DataType::Timestamp(..)) => Ok((at_midnight(left, schema), right)),
            (DataType::Timestamp(..), DataType::Date32) => Ok((left, at_midnight(right, schema))),
            _ => typed(left, right, &l, &r),
        },
    }
}

/// CHAR(n) and a literal: the literal is padded too, so that an index may be used; a longer one equals nothing.
fn padded(column: Expr, literal: Expr, length: u32) -> (Expr, Expr) {
    let text = text_literal(&literal).unwrap_or_default().trim_end_matches(' ').to_owned();
    match (length as usize).checked_sub(text.chars().count()) {
        Some(missing) => (column, lit(text + &" ".repeat(missing))),
        None => (trim_padding(column), lit(text)),
    }
}

fn as_uuid(expr: Expr) -> DfResult<Expr> {
    match text_literal(&expr) {
        Some(text) => Ok(lit(Value::Uuid(parse_uuid(text).map_err(wrap)?).to_string())),
        None => Ok(expr),
    }
}

/// A literal beside a value of another type is read as one of that type; other texts do not compare with numbers.
fn typed(left: Expr, right: Expr, l: &Field, r: &Field) -> DfResult<(Expr, Expr)> {
    if is_double_beside_decimal(l.data_type(), r.data_type()) {
        return Ok(match l.data_type().is_decimal() {
            true => (as_double(left), right),
            false => (left, as_double(right)),
        });
    }
    let (left_is_text, right_is_text) = (is_text(l.data_type()), is_text(r.data_type()));
    if let (Some(a), Some(b)) = (kind_of(l.data_type()), kind_of(r.data_type()))
        && a != b
    {
        let message = format!("a {a} does not compare with a {b}");
        return Err(wrap(Error::new(Code::WrongType, message).with_hint("CAST one of them")));
    }
    if left_is_text == right_is_text {
        return Ok((left, right));
    }
    let (text, other) = if left_is_text { (&left, r) } else { (&right, l) };
    let Some(ty) = column_type_of(other.data_type()) else { return Ok((left, right)) };
    if text_literal(text).is_some() {
        // Decimals get as many digits as the literal has: a comparison does not round.
        let ty = if matches!(ty, ColumnType::Decimal { .. }) || ty.is_integer() { number_like(text, ty) } else { ty };
        let converted = convert::convert_to(text.clone(), ty);
        return Ok(if left_is_text { (converted, right) } else { (left, converted) });
    }
    if other.data_type().is_numeric() || other.data_type() == &DataType::Boolean {
        let message = format!("a text does not compare with a value of type {ty}");
        return Err(wrap(Error::new(Code::WrongType, message).with_hint("CAST one of them")));
    }
    Ok((left, right))
}

/// Kinds of values that do not compare with one another; None for those that may.
pub fn kind_of(ty: &DataType) -> Option<&'static str> {
    match ty {
        DataType::Boolean => Some("boolean"),
        DataType::Date32 | DataType::Timestamp(..) => Some("date or timestamp"),
        DataType::Time32(_) | DataType::Time64(_) => Some("time"),
        DataType::Interval(_) => Some("interval"),
        ty if ty.is_numeric() => Some("number"),
        _ => None,
    }
}

fn number_like(text: &Expr, ty: ColumnType) -> ColumnType {
    let digits = text_literal(text).and_then(|text| text.trim().split_once('.')).map_or(0, |(_, digits)| digits.len());
    match (ty, u8::try_from(digits)) {
        (ColumnType::Decimal { scale, .. }, Ok(digits)) if digits <= 30 => {
            ColumnType::Decimal { precision: 38, scale: scale.max(digits) }
        }
        _ => ty,
    }
}

fn in_list(expr: Expr, list: Vec<Expr>, negated: bool, schema: &DFSchema) -> DfResult<Expr> {
    let pairs = list.into_iter().map(|item| comparable(expr.clone(), item, schema)).collect::<DfResult<Vec<_>>>()?;
    let Some((first, _)) = pairs.first().cloned() else {
        return Ok(Expr::InList(InList::new(Box::new(expr), Vec::new(), negated)));
    };
    let is_float = |expr: &Expr| expr.get_type(schema).is_ok_and(|ty| ty.is_floating());
    let is_of_floats = is_float(&first) || pairs.iter().any(|(_, item)| is_float(item));
    let is_double = std::iter::once(&first)
        .chain(pairs.iter().map(|(_, item)| item))
        .any(|e| matches!(e.get_type(schema), Ok(DataType::Float64)));
    let stays = |(side, item): &(Expr, Expr)| {
        let is_constant = matches!(item, Expr::Literal(..));
        // Of two lists about the same the engine makes one, as if NULL were a value.
        let may_be_null = item.nullable(schema).unwrap_or(true);
        *side == first && !may_be_null && (is_constant || !is_of_floats && !differs_by_row(item))
    };
    let (listed, apart): (Vec<_>, Vec<_>) = pairs.into_iter().partition(stays);
    let mut any: Vec<Expr> = apart.into_iter().map(|(side, item)| side.eq(item)).collect();
    if !listed.is_empty() {
        let list = listed.into_iter().map(|(_, item)| item).collect();
        let list = if is_of_floats { both_zeros(list, is_double) } else { list };
        if any.is_empty() {
            return Ok(Expr::InList(InList::new(Box::new(first), list, negated)));
        }
        any.push(Expr::InList(InList::new(Box::new(first), list, false)));
    }
    let any = any_of(any);
    Ok(if negated { Expr::Not(Box::new(any)) } else { any })
}

/// Whether a member of a list is one for each row. The engine evaluates lists without a row, and takes what a CASE is then for
/// a constant.
fn differs_by_row(item: &Expr) -> bool {
    item.any_column_refs() || item.contains_outer() || item.is_volatile() || has_subquery(item)
}

/// Conditions of which one is to hold, as a tree that is no deeper than it has to be.
fn any_of(mut conditions: Vec<Expr>) -> Expr {
    if conditions.len() > 2 {
        let rest = conditions.split_off(conditions.len() / 2);
        return any_of(conditions).or(any_of(rest));
    }
    conditions.into_iter().reduce(Expr::or).unwrap_or(lit(false))
}

/// Constants with the negative zero where there is a zero: to a list of the engine's they differ, to its `=` they do not.
fn both_zeros(mut list: Vec<Expr>, is_double: bool) -> Vec<Expr> {
    let is_zero = |item: &Expr| match item {
        Expr::Literal(value, _) => matches!(value.cast_to(&DataType::Float64), Ok(ScalarValue::Float64(Some(0.0)))),
        _ => false,
    };
    if list.iter().any(is_zero) {
        // A wider one would widen all others.
        list.extend(if is_double { [lit(0.0), lit(-0.0)] } else { [lit(0.0_f32), lit(-0.0_f32)] });
    }
    list
}

/// Both sides of IN (subquery) as one type, such that the engine compares what is meant. The engine would cast too, under the
/// name of the column that it casts, which the subquery may need beside it.
fn in_subquery(within: InSubquery, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    let inner = within.subquery.subquery.clone();
    let ([column], Some(l)) = (&inner.schema().columns()[..], field_of(&within.expr, schema)) else {
        return Ok(Transformed::no(Expr::InSubquery(within)));
    };
    let r = inner.schema().field(0);
    let is_char = |field: &Field| matches!(mark_of(field), Some(ColumnType::Char { .. }));
    let is_padded = mark_of(&l) != mark_of(r) && (is_char(&l) || is_char(r));
    if !is_padded && l.data_type() == r.data_type() {
        return Ok(Transformed::no(Expr::InSubquery(within)));
    }
    let (mut expr, mut value) = (*within.expr, Expr::Column(column.clone()));
    if is_padded {
        (expr, value) = (unpadded(expr, schema), unpadded(value, inner.schema()));
    }
    (expr, value) = typed(expr, value, &l, r)?;
    match (l.data_type(), r.data_type()) {
        (DataType::Date32, DataType::Timestamp(..)) => expr = at_midnight(expr, schema),
        (DataType::Timestamp(..), DataType::Date32) => value = at_midnight(value, inner.schema()),
        _ => {}
    }
    if let Some(common) = comparison_coercion(&expr.get_type(schema)?, &value.get_type(inner.schema())?) {
        (expr, value) = (expr.cast_to(&common, schema)?, value.cast_to(&common, inner.schema())?);
    }
    let plan = LogicalPlanBuilder::from(inner.clone()).project([value.alias("__in")])?.build()?;
    let subquery = Subquery { subquery: Arc::new(plan), ..within.subquery };
    Ok(Transformed::yes(Expr::InSubquery(InSubquery { expr: Box::new(expr), subquery, negated: within.negated })))
}

fn check_text(like: &Like, schema: &DFSchema) -> DfResult<()> {
    for side in [&like.expr, &like.pattern] {
        let what = match side.get_type(schema) {
            Ok(ty) if ty.is_numeric() => "a number",
            Ok(DataType::Boolean) => "a boolean",
            Ok(DataType::List(_)) => "an array",
            Ok(DataType::Struct(_)) => "a row",
            Ok(DataType::Binary | DataType::BinaryView) => "a string of bytes",
            Ok(ty) if !ty.is_string() && !ty.is_null() => "a value of another type",
            _ => continue,
        };
        let error = Error::new(Code::WrongType, format!("LIKE compares texts, and this is {what}"));
        return Err(wrap(error.with_hint("CAST it")));
    }
    Ok(())
}
