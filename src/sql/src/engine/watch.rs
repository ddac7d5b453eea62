//! Joins that end when nobody waits for them. A join looks for pairs of rows in one step until it has a batch of them; when
//! its condition holds for few, or none, or each row comes out once however many it meets, that step has no end, and the
//! thread it takes is no other query's. So the condition looks now and then whether the query is over; of a join without one
//! it is TRUE.

use super::errors::wrap;
use super::gather::change_here;
use super::site::Site;
use crate::stop::Stop;
use datafusion::arrow::array::BooleanArray;
use datafusion::arrow::datatypes::{FieldRef, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::JoinType;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::lit;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder};
use model::{Code, Error};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

/// The plan, with its joins watched that run at this site: those of a gather's fragment run at others.
pub fn joins(plan: Arc<dyn ExecutionPlan>, site: &Site) -> DfResult<Arc<dyn ExecutionPlan>> {
    change_here(plan, &mut |node| {
        if let Some(join) = node.downcast_ref::<HashJoinExec>() {
            // Pairs that come out are a batch soon.
            if join.filter().is_none() && shows_pairs(*join.join_type()) {
                return Ok(node);
            }
            let anything = || JoinFilter::new(lit(true), Vec::new(), Arc::new(Schema::empty()));
            let filter = join.filter().cloned().unwrap_or_else(anything);
            return join.builder().with_filter(Some(watched(&filter, site))).build_exec();
        }
        if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>()
            && let Some(filter) = join.filter()
        {
            let builder = NestedLoopJoinExecBuilder::new(join.left().clone(), join.right().clone(), *join.join_type());
            let builder = builder.with_projection_ref(join.projection().clone());
            return Ok(Arc::new(builder.with_filter(Some(watched(filter, site))).build()?));
        }
        Ok(node)
    })
}

fn shows_pairs(kind: JoinType) -> bool {
    matches!(kind, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full)
}

fn watched(filter: &JoinFilter, site: &Site) -> JoinFilter {
    let condition = filter.expression().clone();
    let watched = Watched { condition, stop: site.stop.clone(), deadline: site.deadline };
    JoinFilter::new(Arc::new(watched), filter.column_indices().to_vec(), filter.schema().clone())
}

/// A condition that fails when the query is over.
#[derive(Debug)]
struct Watched {
    condition: Arc<dyn PhysicalExpr>,
    stop: Stop,
    deadline: Instant,
}

impl Watched {
    fn look(&self) -> DfResult<()> {
        if self.stop.is_set() {
            return Err(wrap(Error::new(Code::Cancelled, "nobody waits for the query any more")));
        }
        if Instant::now() >= self.deadline {
            return Err(wrap(Error::new(Code::Timeout, "the query took longer than it may")));
        }
        Ok(())
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt(f)
    }
}

impl PartialEq for Watched {
    fn eq(&self, other: &Self) -> bool {
        self.condition.eq(&other.condition)
    }
}

impl Eq for Watched {}

impl Hash for Watched {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.condition.hash(state);
    }
}

impl PhysicalExpr for Watched {
    fn return_field(&self, schema: &Schema) -> DfResult<FieldRef> {
        self.condition.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> DfResult<ColumnarValue> {
        self.look()?;
        self.condition.evaluate(batch)
    }

    fn evaluate_selection(&self, batch: &RecordBatch, selection: &BooleanArray) -> DfResult<ColumnarValue> {
        self.look()?;
        self.condition.evaluate_selection(batch, selection)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.condition]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> DfResult<Arc<dyn PhysicalExpr>> {
        let condition = children.pop().unwrap_or_else(|| self.condition.clone());
        Ok(Arc::new(Self { condition, stop: self.stop.clone(), deadline: self.deadline }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt_sql(f)
    }
}
