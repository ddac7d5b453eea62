//! What the planner sees of the catalog: tables with their columns, row counts and indexes, and functions.

use super::errors::{no_value, wrap};
use super::ranges::{access, is_usable};
use super::scan::ScanExec;
use super::series::{self, Series};
use super::types::{TYPE_MARK, arrow_type, scalar_of, table_schema};
use crate::cluster::{Schema, WHOLE_TABLE};
use crate::front::types::column_type;
use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::TableReference;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::Result as DfResult;
use datafusion::execution::SessionState;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, TypePlanner};
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableProviderFilterPushDown, TableSource, TableType,
    WindowUDF,
};
use datafusion::physical_plan::ExecutionPlan;
use model::error::nearest;
use model::{Code, Error, Table, TableId, Value};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A table, as the planner scans it.
#[derive(Debug)]
pub struct TableOfCluster {
    table: Arc<Table>,
    /// Positions of the table's columns that the statement may name.
    columns: Vec<usize>,
    /// Theirs.
    arrow: SchemaRef,
    schema: Arc<dyn Schema>,
    /// Numbers the scans of a statement.
    scans: Arc<AtomicU32>,
}

#[async_trait]
impl TableProvider for TableOfCluster {
    fn schema(&self) -> SchemaRef {
        self.arrow.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Predicates choose the index range and the buckets; the filter above decides on each row all the same.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match is_usable(&self.table, filter) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let projection = match projection {
            Some(wanted) => wanted.iter().map(|at| self.columns[*at]).collect(),
            None => self.columns.clone(),
        };
        let access = access(&self.table, &*self.schema, filters);
        let id = self.scans.fetch_add(1, Ordering::Relaxed);
        let fetch = if filters.is_empty() { limit } else { None };
        let mut scan = ScanExec::try_new(self.table.clone(), id, projection, access, fetch)?;
        scan.table_rows = self.schema.row_count(self.table.id);
        Ok(Arc::new(scan))
    }
}

/// SQL's types in CAST, as columns have them.
#[derive(Debug)]
struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, ty: &sqlparser::ast::DataType) -> DfResult<Option<FieldRef>> {
        use model::ColumnType as T;
        use sqlparser::ast::DataType as Sql;
        if matches!(ty, Sql::Interval { .. } | Sql::Array(_)) {
            return Ok(None);
        }
        let ty = column_type(ty).map_err(wrap)?;
        let field = Field::new("", arrow_type(ty), true);
        // Only what the engine's type does not say: rows of VALUES have to agree in their marks.
        let is_told = !matches!(ty, T::Char { .. } | T::Varchar { .. } | T::Uuid | T::Json);
        let mark = || [(TYPE_MARK.to_owned(), ty.to_string())].into();
        Ok(Some(Arc::new(if is_told { field } else { field.with_metadata(mark()) })))
    }
}

/// Names, resolved against one version of the schema and the functions of the session.
pub struct Names<'a> {
    pub state: &'a SessionState,
    pub schema: Arc<dyn Schema>,
    pub scans: Arc<AtomicU32>,
    /// Of the statement, in their order.
    pub params: &'a [Value],
}

impl Names<'_> {
    /// An expression that needs its parameters before the others have theirs.
    fn with_params(&self, expr: Expr) -> DfResult<Expr> {
        let replaced = expr.transform_up(|part| {
            let Expr::Placeholder(placeholder) = &part else { return Ok(Transformed::no(part)) };
            let at = placeholder.id.strip_prefix('$').and_then(|number| number.parse::<usize>().ok());
            match at.and_then(|at| self.params.get(at.checked_sub(1)?)) {
                Some(value) => Ok(Transformed::yes(Expr::Literal(scalar_of(value).map_err(wrap)?, None))),
                None => Err(wrap(no_value())),
            }
        })?;
        Ok(replaced.data)
    }

    fn no_such_table(&self, name: &str) -> Error {
        let error = Error::new(Code::NoSuchTable, format!("table \"{name}\" does not exist"));
        let names = self.schema.table_names();
        match nearest(name, names.iter().map(String::as_str)) {
            Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
            None => error,
        }
    }
}

impl ContextProvider for Names<'_> {
    fn get_table_source(&self, name: TableReference) -> DfResult<Arc<dyn TableSource>> {
        let is_whole = name.schema() == Some(WHOLE_TABLE);
        let qualified = name.schema().is_some_and(|schema| schema != "public" && !is_whole);
        let table = if qualified { None } else { self.schema.table(name.table()) };
        let table = table.ok_or_else(|| wrap(self.no_such_table(name.table())))?;
        let columns: Vec<usize> = if is_whole { (0..table.columns.len()).collect() } else { table.visible().collect() };
        let arrow = Arc::new(table_schema(&table).project(&columns)?);
        let (schema, scans) = (self.schema.clone(), self.scans.clone());
        Ok(provider_as_source(Arc::new(TableOfCluster { table, columns, arrow, schema, scans })))
    }

    fn get_table_function_source(&self, name: &str, args: Vec<Expr>) -> DfResult<Arc<dyn TableSource>> {
        if name.to_lowercase() != series::NAME {
            let message = format!("function \"{name}\" does not exist, or gives no rows");
            return Err(wrap(Error::new(Code::NoSuchFunction, message)));
        }
        let args = args.into_iter().map(|arg| self.with_params(arg)).collect::<DfResult<Vec<_>>>()?;
        Ok(provider_as_source(Arc::new(Series::called(self.state, &args)?)))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> DfResult<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state.expr_planners()
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(Types))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.state.scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}

/// Every table that a plan names, in its subqueries too.
pub fn tables_of(plan: &LogicalPlan) -> DfResult<Vec<TableId>> {
    let mut tables = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Ok(provider) = source_as_provider(&scan.source)
            && let Some(known) = provider.downcast_ref::<TableOfCluster>()
        {
            tables.insert(known.table.id);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(tables.into_iter().collect())
}
