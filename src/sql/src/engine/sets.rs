//! Set operations where the engine's differ from the standard's: types that do not go together, texts with marks, and ALL.
//!
//! The inputs of a UNION have the names of its columns. Where one input is left, or a UNION is part of another, the engine
//! reads inputs by these names, and takes a column of a table further below for one that an input calls otherwise.

use super::errors::wrap;
use super::functions::ranks::row_number;
use super::functions::{convert, trim_padding};
use super::meaning::kind_of;
use super::types::mark_of;
use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType, NullEquality, TableReference};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::type_coercion::binary::type_union_coercion;
use datafusion::logical_expr::{
    Distinct, Expr, ExprFunctionExt, Join, LogicalPlan, LogicalPlanBuilder, RecursiveQuery, Union, cast,
};
use model::{Code, ColumnType, Error};
use std::sync::Arc;

/// The number of a row among those that are equal.
const OCCURRENCE: &str = "__occurrence";

/// UNION with columns that mean the same, are of the same type and have the same names in all its inputs.
///
/// Errors: `WrongType` for a text beside a number, and for kinds of values that do not compare; `NoSuchColumn` where ORDER BY
/// names what only one input has, which the planner adds to that one.
pub fn united(union: Union) -> DfResult<Union> {
    let width = union.schema.fields().len();
    if union.inputs.iter().any(|input| input.schema().fields().len() != width) {
        let widest = union.inputs.iter().max_by_key(|input| input.schema().fields().len());
        let added = widest.and_then(|input| input.schema().fields().last()).map_or("", |field| field.name());
        let error = Error::new(Code::NoSuchColumn, format!("column \"{added}\" does not exist"));
        return Err(wrap(error.with_hint("ORDER BY of a set operation goes by the columns of its result")));
    }
    let mut mixed = vec![false; width];
    let mut types = Vec::with_capacity(width);
    for (at, is_mixed) in mixed.iter_mut().enumerate() {
        let fields: Vec<_> = union.inputs.iter().map(|input| input.schema().field(at).clone()).collect();
        let is_text = |ty: &DataType| matches!(ty, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8);
        if fields.iter().any(|f| is_text(f.data_type())) && fields.iter().any(|f| f.data_type().is_numeric()) {
            let message = format!("column {} of a set operation is a text on one side and a number on another", at + 1);
            return Err(wrap(Error::new(Code::WrongType, message).with_hint("CAST one of them")));
        }
        let mut kinds = fields.iter().filter_map(|field| kind_of(field.data_type()));
        if let Some(first) = kinds.next()
            && let Some(other) = kinds.find(|kind| *kind != first)
        {
            let message =
                format!("column {} of a set operation is a {first} on one side and a {other} on another", at + 1);
            return Err(wrap(Error::new(Code::WrongType, message).with_hint("CAST one of them")));
        }
        *is_mixed = fields.iter().any(|field| mark_of(field) != mark_of(&fields[0]));
        let is_double = fields.iter().any(|field| *field.data_type() == DataType::Float64);
        types.push(match is_double && fields.iter().all(|field| field.data_type().is_numeric()) {
            true => Some(DataType::Float64),
            false => {
                let of_fields = fields.iter().map(|field| Some(field.data_type().clone()));
                of_fields.reduce(|a, b| type_union_coercion(&a?, &b?)).flatten()
            }
        });
    }
    // Made anew, as its schema does not follow its inputs'.
    let columns: Vec<Wanted> = union
        .schema
        .fields()
        .iter()
        .zip(mixed)
        .zip(types)
        .map(|((field, is_mixed), ty)| Wanted { name: field.name(), is_mixed, ty })
        .collect();
    let inputs = union.inputs.iter().map(|input| alike(input, &columns)).collect::<DfResult<Vec<_>>>()?;
    Union::try_new_with_loose_types(inputs)
}

/// What a column of a UNION is to be in each input.
struct Wanted<'a> {
    name: &'a str,
    /// A plain text, without a mark.
    is_mixed: bool,
    ty: Option<DataType>,
}

impl Wanted<'_> {
    fn of(&self, qualifier: Option<&TableReference>, field: &FieldRef) -> Expr {
        let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        let plain = match (self.is_mixed, mark_of(field)) {
            (true, Some(ColumnType::Char { .. })) => trim_padding(column),
            (true, Some(_)) => convert::convert_to(column, ColumnType::Text),
            _ => match &self.ty {
                Some(ty) if ty != field.data_type() => cast(column, ty.clone()),
                _ if qualifier.is_none() && field.name() == self.name => return column,
                _ => column,
            },
        };
        plain.alias(self.name)
    }
}

/// The input with these columns; as it is when it has them.
fn alike(input: &Arc<LogicalPlan>, columns: &[Wanted]) -> DfResult<Arc<LogicalPlan>> {
    let fields = input.schema().iter();
    let exprs: Vec<Expr> =
        fields.zip(columns).map(|((qualifier, field), wanted)| wanted.of(qualifier, field)).collect();
    if exprs.iter().all(|expr| matches!(expr, Expr::Column(_))) {
        return Ok(input.clone());
    }
    LogicalPlanBuilder::from(input.as_ref().clone()).project(exprs)?.build().map(Arc::new)
}

/// A recursive query whose terms have the columns that it reads itself by: the planner gave them the types of the first term
/// as it was then.
pub fn recursive(mut query: RecursiveQuery) -> DfResult<RecursiveQuery> {
    let mut read_by = query.schema.clone();
    query.recursive_term.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && scan.table_name.table() == query.name
        {
            read_by = scan.projected_schema.clone();
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if read_by.fields().len() == query.schema.fields().len() {
        let named = query.schema.fields().iter().zip(read_by.fields());
        let wanted = named.map(|(named, read)| Wanted {
            name: named.name(),
            is_mixed: false,
            ty: Some(read.data_type().clone()),
        });
        let columns: Vec<Wanted> = wanted.collect();
        let terms = [alike(&query.static_term, &columns)?, alike(&query.recursive_term, &columns)?];
        [query.static_term, query.recursive_term] = terms;
    }
    Ok(query)
}

/// INTERSECT ALL and EXCEPT ALL, which the planner writes as it does those without ALL, but for DISTINCT.
pub fn is_of_all(join: &Join) -> bool {
    matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull
        && !matches!(&*join.left, LogicalPlan::Distinct(Distinct::All(_)))
        && !join.on.iter().any(|(left, _)| left.try_as_col().is_some_and(|column| column.name == OCCURRENCE))
}

/// Rows that occur several times meet as often as they do on both sides: the first with the first, and so on.
pub fn counted(join: Join) -> DfResult<LogicalPlan> {
    let columns = join.left.schema().columns();
    let (left, left_number) = numbered(&join.left)?;
    let (right, right_number) = numbered(&join.right)?;
    let mut on = join.on;
    on.push((Expr::Column(left_number), Expr::Column(right_number)));
    let joined = Join::try_new(
        Arc::new(left),
        Arc::new(right),
        on,
        join.filter,
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?;
    let plan = LogicalPlanBuilder::from(LogicalPlan::Join(joined));
    plan.project(columns.into_iter().map(Expr::Column))?.build()
}

fn numbered(input: &Arc<LogicalPlan>) -> DfResult<(LogicalPlan, Column)> {
    let columns = input.schema().columns().into_iter().map(Expr::Column).collect::<Vec<_>>();
    let number = row_number().partition_by(columns).build()?.alias(OCCURRENCE);
    let plan = LogicalPlanBuilder::from(input.as_ref().clone()).window(vec![number])?.build()?;
    Ok((plan, Column::new_unqualified(OCCURRENCE)))
}
