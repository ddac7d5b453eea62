//! Where each part of a plan runs: the placement rule.
//!
//! A plan comes from the engine as if all rows were here. It is walked from the leaves up, and of every subplan is known
//! where it can run:
//!
//! - *anywhere*: it reads global tables only, and answers the same on every instance;
//! - *at the storages*: run at each of them on its own buckets, the answers together are the whole answer, each row
//!   once. The sharding keys that survived say which rows are sure to be at the same storage;
//! - *at the router*: everything else.
//!
//! Where a node can not run at the storages although its input does, a `GatherExec` brings the rows over, as high in the
//! plan as correctness allows: filters, projections, sorts, top-k, limits and aggregates (split in two, or whole when
//! they group by a sharding key) stay below it, and so do joins on sharding keys and joins with what is anywhere. For
//! other joins the smaller side is collected at the router and sent along, when it is small; else both come to the
//! router.
//!
//! Bucket placement is never shown to the engine as `Partitioning::Hash`: it would take it for its own hash function.

mod aggregate;
mod join;
mod keys;
mod windows;

pub use windows::WindowsInOrder;

use super::gather::{GatherExec, Target};
use super::hiding::HidingExec;
use super::scan::ScanExec;
use crate::cluster::{BucketRange, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DfResult;
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::buffer::BufferExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::partial_sort::PartialSortExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, ExecutionPlan, ExecutionPlanProperties, ReplaceChildrenOptions,
};
use keys::Key;
use model::{Distribution, TierName};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What placement may do.
#[derive(Clone, Copy, Debug)]
pub struct PlaceOptions {
    /// Whether the small side of a join may be sent along with a fragment.
    pub ship: bool,
}

/// Places a plan: what is returned runs at the router, fragments in it at the storages.
pub fn place(
    plan: Arc<dyn ExecutionPlan>,
    schema: &dyn Schema,
    options: PlaceOptions,
) -> DfResult<Arc<dyn ExecutionPlan>> {
    let mut placer = Placer { schema, options, shipped: 0 };
    let placed = placer.place(yielding(plan)?)?;
    placer.at_router(placed)
}

/// The plan with joins that look up now and then. The engine sees to it that leaves do; a join makes many rows of the few that it
/// has read, and a query that was cancelled would go on with them.
fn yielding(plan: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    let wrapped = plan.transform_up(|node| match join::is_join(&*node) {
        true => Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>)),
        false => Ok(Transformed::no(node)),
    })?;
    Ok(wrapped.data)
}

struct Placer<'a> {
    schema: &'a dyn Schema,
    options: PlaceOptions,
    /// Numbers what is sent along.
    shipped: u32,
}

/// A subplan and where it can run.
struct Placed {
    plan: Arc<dyn ExecutionPlan>,
    place: Place,
}

enum Place {
    Anywhere,
    Storages(Spread),
    Router,
}

/// How rows lie over the storages.
#[derive(Clone, Default)]
struct Spread {
    /// The tier whose bucket map says where `keys` are; None when rows of several tiers are mixed.
    tier: Option<TierName>,
    /// Rows that are equal in all columns of one of these are at the same storage.
    keys: Vec<Key>,
    /// Each storage has cut its rows to so many, and the cut has to be made over all of them before anything else
    /// looks at the rows.
    limit: Option<usize>,
    /// What has to be sent along.
    shipped: Vec<(u32, Arc<dyn ExecutionPlan>)>,
}

impl Placed {
    fn router(plan: Arc<dyn ExecutionPlan>) -> Self {
        Self { plan, place: Place::Router }
    }
}

impl Placer<'_> {
    fn place(&mut self, plan: Arc<dyn ExecutionPlan>) -> DfResult<Placed> {
        if plan.children().is_empty() {
            return Ok(leaf(plan));
        }
        let children: Vec<Arc<dyn ExecutionPlan>> = plan.children().into_iter().cloned().collect();
        let children = children.into_iter().map(|child| self.place(child)).collect::<DfResult<Vec<_>>>()?;
        if !children.iter().any(|child| matches!(child.place, Place::Storages(_))) {
            return together(plan, children);
        }
        if plan.is::<UnionExec>() {
            return self.union(&plan, children);
        }
        if join::is_join(&*plan) {
            return self.join(plan, children);
        }
        let mut children = children;
        match (children.pop(), children.is_empty()) {
            (Some(Placed { plan: input, place: Place::Storages(spread) }), true) => self.unary(plan, input, spread),
            (last, _) => {
                // A node of several inputs that is not known to this rule.
                children.extend(last);
                let inputs = children.into_iter().map(|child| self.at_router(child)).collect::<DfResult<_>>()?;
                Ok(Placed::router(rebuild(plan, inputs)?))
            }
        }
    }

    /// A node of one input that is at the storages.
    fn unary(
        &mut self,
        plan: Arc<dyn ExecutionPlan>,
        input: Arc<dyn ExecutionPlan>,
        spread: Spread,
    ) -> DfResult<Placed> {
        if plan.is::<CooperativeExec>() && join::is_join(&*input) {
            // Part of the join, also when that is cut.
            return Ok(Placed { plan: rebuild(plan, vec![input])?, place: Place::Storages(spread) });
        }
        if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
            let keys = keys::through_projection(&spread.keys, projection);
            let projected = rebuild(plan.clone(), vec![input.clone()])?;
            if order_length(&projected) == order_length(&input) {
                // Row by row: the only node that may stand above a cut.
                return Ok(Placed { plan: projected, place: Place::Storages(Spread { keys, ..spread }) });
            }
            // Columns that the rows are still to be merged by would be lost.
            let gathered = self.gather(input, spread)?;
            return Ok(Placed::router(rebuild(plan, vec![gathered])?));
        }
        if spread.limit.is_some() {
            let gathered = self.gather(input, spread)?;
            return Ok(Placed::router(rebuild(plan, vec![gathered])?));
        }
        if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
            return self.aggregate(aggregate, input, spread);
        }
        if let Some((skip, fetch)) = limit_of(&*plan) {
            return self.limit(plan, input, spread, skip, fetch);
        }
        let keys = match stays(&*plan, &spread.keys) {
            Some(keys) => keys,
            None => {
                let gathered = self.gather(input, spread)?;
                return Ok(Placed::router(rebuild(plan, vec![gathered])?));
            }
        };
        let plan = rebuild(plan, vec![input])?;
        let limit = plan.fetch();
        Ok(Placed { plan, place: Place::Storages(Spread { keys, limit, ..spread }) })
    }

    /// LIMIT: every storage sends as many rows as may be needed, the router counts them.
    fn limit(
        &mut self,
        plan: Arc<dyn ExecutionPlan>,
        input: Arc<dyn ExecutionPlan>,
        mut spread: Spread,
        skip: usize,
        fetch: Option<usize>,
    ) -> DfResult<Placed> {
        let mut input = input;
        if let Some(rows) = fetch.and_then(|fetch| fetch.checked_add(skip)) {
            input = Arc::new(LocalLimitExec::new(single(input), rows));
            spread.limit = Some(rows);
        }
        let gathered = self.gather(input, spread)?;
        Ok(Placed::router(rebuild(plan, vec![gathered])?))
    }

    /// UNION ALL: what is spread over the storages is united there. The rest must not come from each of them.
    fn union(&mut self, plan: &Arc<dyn ExecutionPlan>, children: Vec<Placed>) -> DfResult<Placed> {
        let is_ordered = plan.output_ordering().is_some();
        let (mut spread, mut rest) = (Vec::new(), Vec::new());
        for child in children {
            match child.place {
                Place::Storages(place) if place.limit.is_none() => spread.push((child.plan, place)),
                place => rest.push(Placed { plan: child.plan, place }),
            }
        }
        if is_ordered && !rest.is_empty() {
            // The reader merges its inputs, each of which has to stay in order.
            let spread = spread.into_iter().map(|(plan, place)| Placed { plan, place: Place::Storages(place) });
            let inputs = spread.chain(rest).map(|child| self.at_router(child)).collect::<DfResult<Vec<_>>>()?;
            return Ok(Placed::router(unite(inputs)?));
        }
        let (plans, places): (Vec<_>, Vec<_>) = spread.into_iter().unzip();
        let Some(place) = places.into_iter().reduce(keys::in_common) else {
            let inputs = rest.into_iter().map(|child| self.at_router(child)).collect::<DfResult<Vec<_>>>()?;
            return Ok(Placed::router(unite(inputs)?));
        };
        let united = unite(plans)?;
        if rest.is_empty() {
            return Ok(Placed { plan: united, place: Place::Storages(place) });
        }
        let mut inputs = vec![self.gather(united, place)?];
        for child in rest {
            inputs.push(self.at_router(child)?);
        }
        Ok(Placed::router(unite(inputs)?))
    }

    fn at_router(&mut self, placed: Placed) -> DfResult<Arc<dyn ExecutionPlan>> {
        match placed.place {
            Place::Storages(spread) => self.gather(placed.plan, spread),
            Place::Anywhere | Place::Router => Ok(placed.plan),
        }
    }

    /// Puts the boundary above a subplan.
    fn gather(&self, plan: Arc<dyn ExecutionPlan>, spread: Spread) -> DfResult<Arc<dyn ExecutionPlan>> {
        let plan = single(plan);
        let order = plan.output_ordering().cloned();
        let targets = self.targets(&plan)?;
        Ok(Arc::new(GatherExec::new(plan, targets, order, spread.limit, spread.shipped)))
    }

    /// The replicasets that own buckets which some scan of the fragment needs.
    fn targets(&self, fragment: &Arc<dyn ExecutionPlan>) -> DfResult<Vec<Target>> {
        let mut targets: BTreeMap<_, Target> = BTreeMap::new();
        fragment.apply(|node| {
            let Some(scan) = node.downcast_ref::<ScanExec>() else { return Ok(TreeNodeRecursion::Continue) };
            let Distribution::Sharded { tier, .. } = &scan.table.distribution else {
                return Ok(TreeNodeRecursion::Continue);
            };
            if scan.access.ranges.is_empty() {
                return Ok(TreeNodeRecursion::Continue);
            }
            for owned in self.schema.placement(tier) {
                let buckets = match &scan.access.buckets {
                    None => vec![owned.buckets],
                    Some(wanted) => wanted.iter().filter_map(|range| intersect(*range, owned.buckets)).collect(),
                };
                if buckets.is_empty() {
                    continue;
                }
                let target = targets
                    .entry(owned.replicaset.clone())
                    .or_insert_with(|| Target { replicaset: owned.replicaset, buckets: BTreeMap::new() });
                target.buckets.entry(scan.id).or_default().extend(buckets);
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(targets.into_values().collect())
    }
}

fn intersect(a: BucketRange, b: BucketRange) -> Option<BucketRange> {
    let range = BucketRange::new(a.first.max(b.first), a.last.min(b.last));
    (range.first <= range.last).then_some(range)
}

fn leaf(plan: Arc<dyn ExecutionPlan>) -> Placed {
    let place = match plan.downcast_ref::<ScanExec>() {
        Some(scan) => match &scan.table.distribution {
            Distribution::Global if scan.fetch.is_some() => Place::Router,
            Distribution::Global => Place::Anywhere,
            Distribution::Sharded { key, tier } => Place::Storages(Spread {
                tier: Some(tier.clone()),
                keys: Key::of_scan(scan, key).into_iter().collect(),
                limit: scan.fetch,
                shipped: Vec::new(),
            }),
        },
        None if plan.is::<EmptyExec>() || plan.is::<PlaceholderRowExec>() => Place::Anywhere,
        None => Place::Router,
    };
    Placed { plan, place }
}

/// A node whose inputs are all anywhere or at the router.
fn together(plan: Arc<dyn ExecutionPlan>, children: Vec<Placed>) -> DfResult<Placed> {
    let anywhere = children.iter().all(|child| matches!(child.place, Place::Anywhere)) && answers_the_same(&plan)?;
    let inputs = children.into_iter().map(|child| child.plan).collect();
    let plan = rebuild(plan, inputs)?;
    Ok(Placed { plan, place: if anywhere { Place::Anywhere } else { Place::Router } })
}

/// Whether a node gives the same rows on every instance from the same rows: not when it cuts or numbers rows whose order
/// nobody fixed, nor when it rolls dice.
fn answers_the_same(plan: &Arc<dyn ExecutionPlan>) -> DfResult<bool> {
    let is_window = plan.is::<WindowAggExec>() || plan.is::<BoundedWindowAggExec>();
    let is_known = plan.is::<FilterExec>()
        || plan.is::<ProjectionExec>()
        || plan.is::<AggregateExec>()
        || plan.is::<UnionExec>()
        || is_window
        || is_pipe(&**plan)
        || is_sort(&**plan)
        || join::is_join(&**plan);
    if !is_known || is_window || limit_of(&**plan).is_some() || plan.fetch().is_some() {
        return Ok(false);
    }
    let mut volatile = false;
    plan.apply_expressions(&mut |expr| {
        volatile |= is_volatile(expr);
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(!volatile)
}

/// Whether a node of one input can run at the storages as it is, and the keys that are left above it.
fn stays(plan: &dyn ExecutionPlan, keys: &[Key]) -> Option<Vec<Key>> {
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        return Some(keys::through_columns(keys, filter.projection().as_deref()));
    }
    if is_pipe(plan) || is_sort(plan) {
        return Some(keys.to_vec());
    }
    if let Some(window) = plan.downcast_ref::<WindowAggExec>() {
        let whole = window.window_expr().iter().all(|expr| keys::cover(keys, expr.partition_by()));
        return whole.then(|| keys.to_vec());
    }
    if let Some(window) = plan.downcast_ref::<BoundedWindowAggExec>() {
        let whole = window.window_expr().iter().all(|expr| keys::cover(keys, expr.partition_by()));
        return whole.then(|| keys.to_vec());
    }
    plan.is::<UnnestExec>().then(Vec::new)
}

/// Nodes that pass rows on as they are.
fn is_pipe(plan: &dyn ExecutionPlan) -> bool {
    plan.is::<CooperativeExec>()
        || plan.is::<HidingExec>()
        || plan.is::<CoalescePartitionsExec>()
        || plan.is::<RepartitionExec>()
        || plan.is::<BufferExec>()
}

fn is_sort(plan: &dyn ExecutionPlan) -> bool {
    plan.is::<SortExec>() || plan.is::<PartialSortExec>() || plan.is::<SortPreservingMergeExec>()
}

/// How many rows a LIMIT skips and lets through.
fn limit_of(plan: &dyn ExecutionPlan) -> Option<(usize, Option<usize>)> {
    if let Some(limit) = plan.downcast_ref::<GlobalLimitExec>() {
        return Some((limit.skip(), limit.fetch()));
    }
    plan.downcast_ref::<LocalLimitExec>().map(|limit| (0, Some(limit.fetch())))
}

/// By how many columns the rows are sorted.
fn order_length(plan: &Arc<dyn ExecutionPlan>) -> usize {
    plan.output_ordering().map_or(0, |order| order.len())
}

/// One partition, in order if there was one.
fn single(plan: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    if plan.output_partitioning().partition_count() == 1 {
        return plan;
    }
    match plan.output_ordering().cloned() {
        Some(order) => Arc::new(SortPreservingMergeExec::new(order, plan)),
        None => Arc::new(CoalescePartitionsExec::new(plan)),
    }
}

fn unite(mut plans: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
    match (plans.pop(), plans.is_empty()) {
        (Some(only), true) => Ok(only),
        (last, _) => {
            plans.extend(last);
            UnionExec::try_new(plans)
        }
    }
}

fn rebuild(plan: Arc<dyn ExecutionPlan>, children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
    let plan = plan.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))?;
    windows::in_order(plan)
}
