//! The planner's settings, and the steps from a syntax tree to an optimised plan.

use super::bounds::{bounded, check_columns, check_constants, while_folding, while_planning};
use super::counted::Made;
use super::dates;
use super::dependencies::{self, PutApart};
use super::errors::translate;
use super::filters::PushedInOrder;
use super::functions::arithmetic::Operators;
use super::functions::ranks::counting;
use super::functions::{aggregates, scalars};
use super::hiding::HideConstants;
use super::join_keys;
use super::join_order::KeepsConditions;
use super::meaning;
use super::memory::QueryPool;
use super::orders;
use super::place::WindowsInOrder;
use super::provider::Names;
use super::simplify::SimplifiedRightly;
use super::site::Site;
use super::spelling::respell;
use super::types::scalar_of;
use super::yields::YieldsApart;
use crate::cluster::Schema;
use datafusion::common::ParamValues;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{Optimizer, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use datafusion::sql::planner::{NullOrdering, ParserOptions, SqlToRel};
use model::{Result, Value};
use sqlparser::ast::{Query, Statement};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// Rows a batch.
const BATCH_ROWS: usize = 8192;

/// Functions, rules and settings: the same for all queries.
pub struct Session {
    state: SessionState,
    runtime: RuntimeEnv,
}

/// One partition: the cluster is the parallelism, other queries have the other threads, and no plan has a
/// RepartitionExec. Filters that joins and sorts make up while they run do not travel, so they are left out.
fn config() -> SessionConfig {
    let mut config = SessionConfig::new().with_target_partitions(1).with_batch_size(BATCH_ROWS);
    let options = config.options_mut();
    options.optimizer.enable_dynamic_filter_pushdown = false;
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.optimizer.enable_topk_dynamic_filter_pushdown = false;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    // Else a sort above UNION ALL goes to its inputs, and columns that are equal in one of them get lost.
    options.optimizer.repartition_sorts = false;
    // Of a CASE, the logical plan knows more often than the physical one that it is never NULL; that is no contradiction.
    options.execution.skip_physical_aggregate_schema_check = true;
    options.sql_parser.parse_float_as_decimal = true;
    config
}

/// Functions of the engine that make an array as long as a number says, at once, in memory that nobody counts, or constants of
/// types that rows can not share. PostgreSQL has none of them, or as a table.
const UNBOUNDED: [&str; 8] = [
    "array_repeat",
    "array_resize",
    "arrow_cast",
    "arrow_try_cast",
    "cast_to_type",
    "generate_series",
    "range",
    "try_cast_to_type",
];

/// The engine's rules, with ours around those that read a plan wrongly.
fn logical_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = Vec::new();
    for rule in Optimizer::new().rules {
        if ["replace_distinct_aggregate", "eliminate_join", "optimize_projections"].contains(&rule.name()) {
            rules.push(Arc::new(PutApart));
        }
        rules.push(match rule.name() {
            "push_down_filter" => Arc::new(PushedInOrder(rule)),
            "simplify_expressions" => Arc::new(SimplifiedRightly(rule)),
            "eliminate_cross_join" => Arc::new(KeepsConditions(rule)),
            _ => rule,
        });
    }
    rules
}

/// The engine's rules, and ours before them and before its check, without those that take columns for others of the same name:
///
/// - the rule that pushes filters down once more, in the physical plan. The logical plan has its filters where they belong;
/// - the second of the two rules that push projections down: it moves one below a filter that has had its columns cut by the
///   first, as if the filter had all of them still.
fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> = vec![Arc::new(HideConstants)];
    for rule in PhysicalOptimizer::new().rules {
        let is_again = rule.name() == "ProjectionPushdown" && rules.iter().any(|other| other.name() == rule.name());
        if is_again || rule.name().starts_with("FilterPushdown") {
            continue;
        }
        if rule.name() == "SanityCheckPlan" {
            rules.push(Arc::new(WindowsInOrder));
        }
        let is_cooperative = rule.name() == "EnsureCooperative";
        rules.push(rule);
        if is_cooperative {
            rules.push(Arc::new(YieldsApart));
        }
    }
    rules
}

fn parser_options() -> ParserOptions {
    ParserOptions {
        parse_float_as_decimal: true,
        enable_ident_normalization: true,
        support_varchar_with_length: true,
        enable_options_value_normalization: false,
        collect_spans: false,
        map_string_types_to_utf8view: true,
        default_null_ordering: NullOrdering::NullsMax,
    }
}

impl Session {
    pub fn new() -> Self {
        // Nothing spills to disk: what does not fit its memory is refused.
        let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let runtime = RuntimeEnvBuilder::new().with_disk_manager_builder(disk).build().unwrap_or_default();
        let mut builder = SessionStateBuilder::new().with_config(config()).with_default_features();
        builder = builder.with_optimizer_rules(logical_rules()).with_physical_optimizer_rules(physical_rules());
        let functions = builder.scalar_functions().get_or_insert_default();
        functions.retain(|function| !UNBOUNDED.contains(&function.name()));
        functions.iter_mut().for_each(|function| *function = bounded(function));
        functions.extend(scalars());
        let windows = builder.window_functions().get_or_insert_default();
        windows.iter_mut().for_each(|function| *function = counting(function));
        builder.aggregate_functions().get_or_insert_default().extend(aggregates());
        // First, so that the engine's own planners get what it leaves.
        builder.expr_planners().get_or_insert_default().insert(0, Arc::new(Operators));
        Self { state: builder.build(), runtime }
    }

    /// Scalar functions, aggregates, window functions.
    #[cfg(test)]
    pub fn function_names(&self) -> [Vec<&String>; 3] {
        let state = &self.state;
        [
            state.scalar_functions().keys().collect(),
            state.aggregate_functions().keys().collect(),
            state.window_functions().keys().collect(),
        ]
    }

    /// Names resolved, types not yet checked.
    pub fn logical(&self, schema: &Arc<dyn Schema>, query: &Query, params: &[Value]) -> Result<LogicalPlan> {
        let scans = Arc::new(AtomicU32::new(0));
        let names = Names { state: &self.state, schema: schema.clone(), scans, params };
        let planner = SqlToRel::new_with_options(&names, parser_options());
        let mut query = Box::new(query.clone());
        respell(&mut query, &**schema)?;
        let plan = planner.sql_statement_to_plan(Statement::Query(query)).map_err(translate)?;
        let params = params.iter().map(|value| scalar_of(value).map(Into::into)).collect::<Result<Vec<_>>>()?;
        let plan = plan.with_param_values(ParamValues::List(params)).map_err(translate)?;
        check_columns(&plan).map_err(translate)?;
        meaning::apply(plan).map_err(translate)
    }

    /// Optimised, for one place.
    pub async fn physical(&self, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
        let optimised = while_folding(|| self.state.optimize(plan)).and_then(dependencies::together);
        let optimised = optimised.and_then(orders::without_repeats).and_then(dates::compared_as_dates);
        let plan = optimised.and_then(join_keys::as_columns).map_err(translate)?;
        check_constants(&plan, BATCH_ROWS).map_err(translate)?;
        let planned = self.state.query_planner().create_physical_plan(&plan, &self.state);
        while_planning(planned).await.map_err(translate)
    }

    /// What a plan runs in, at a site, within its share of the instance's memory.
    pub fn context(&self, site: Arc<Site>, pool: &Arc<dyn MemoryPool>) -> Arc<TaskContext> {
        let made = Made::new(pool.clone(), site.memory_bytes_max);
        let pool = Arc::new(QueryPool::new(pool.clone(), site.memory_bytes_max));
        let runtime = RuntimeEnv { memory_pool: pool, ..self.runtime.clone() };
        let context = TaskContext::from(&self.state).with_runtime(Arc::new(runtime));
        let config = context.session_config().clone().with_extension(site).with_extension(Arc::new(made));
        Arc::new(context.with_session_config(config))
    }
}
