//! Joins, of which at least one side is at the storages.

use super::keys::{self, Key};
use super::{Place, Placed, Placer, Spread, rebuild};
use crate::engine::errors::wrap;
use crate::engine::gather::ShippedExec;
use datafusion::common::{JoinSide, JoinType};
use datafusion::error::Result as DfResult;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use model::Error;
use std::sync::Arc;

/// Rows and bytes, as estimated, that are sent along with a fragment at most.
const SHIPPED_ROWS_MAX: usize = 200_000;
const SHIPPED_BYTES_MAX: usize = 16 << 20;
/// So few rows are always sent along, whatever the other side is thought to have.
const FEW_ROWS: usize = 1000;

pub(super) fn is_join(plan: &dyn ExecutionPlan) -> bool {
    plan.is::<HashJoinExec>() || plan.is::<NestedLoopJoinExec>() || plan.is::<CrossJoinExec>()
}

/// What placement has to know of a join.
struct Join {
    kind: JoinType,
    /// The engine keeps NOT IN's rule about NULLs in a flag.
    null_aware: bool,
    projection: Option<Vec<usize>>,
}

impl Join {
    fn of(plan: &dyn ExecutionPlan) -> Self {
        if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
            let projection = join.projection.as_deref().map(<[usize]>::to_vec);
            return Self { kind: *join.join_type(), null_aware: join.null_aware, projection };
        }
        if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
            let projection = join.projection().as_deref().map(<[usize]>::to_vec);
            return Self { kind: *join.join_type(), null_aware: false, projection };
        }
        Self { kind: JoinType::Inner, null_aware: false, projection: None }
    }

    /// Whether the side may be spread while all rows of the other are at every storage. Not when rows of the other side
    /// come out by themselves: each storage would say them again.
    fn may_spread(&self, side: JoinSide) -> bool {
        use JoinType::*;
        match side {
            JoinSide::Left => matches!(self.kind, Inner | Left | LeftSemi | LeftAnti | LeftMark),
            JoinSide::Right => matches!(self.kind, Inner | Right | RightSemi | RightAnti | RightMark),
            JoinSide::None => false,
        }
    }

    /// The keys of one side in the join's output. A side that is filled up with NULLs has none.
    fn keys_of(&self, side: JoinSide, keys: &[Key], left_columns: usize) -> Vec<Key> {
        use JoinType::*;
        let offset = match (side, self.kind) {
            (JoinSide::Left, Inner | Left | LeftSemi | LeftAnti | LeftMark) => 0,
            (JoinSide::Right, Inner | Right) => left_columns,
            (JoinSide::Right, RightSemi | RightAnti | RightMark) => 0,
            _ => return Vec::new(),
        };
        let joined: Vec<Key> = keys.iter().filter_map(|key| key.moved(|at| Some(at + offset))).collect();
        keys::through_columns(&joined, self.projection.as_deref())
    }
}

impl Placer<'_> {
    pub(super) fn join(&mut self, plan: Arc<dyn ExecutionPlan>, children: Vec<Placed>) -> DfResult<Placed> {
        let join = Join::of(&*plan);
        let mut children = children.into_iter().map(|child| self.settle(child)).collect::<DfResult<Vec<_>>>()?;
        let (Some(right), Some(left)) = (children.pop(), children.pop()) else {
            return Err(wrap(Error::internal("a join without two sides")));
        };
        let left_columns = left.plan.schema().fields().len();
        match (left, right) {
            (Placed { plan: l, place: Place::Storages(a) }, Placed { plan: r, place: Place::Storages(b) })
                if !join.null_aware && meets(&*plan, (&l, &a), (&r, &b)) =>
            {
                let mut keys = join.keys_of(JoinSide::Left, &a.keys, left_columns);
                keys.extend(join.keys_of(JoinSide::Right, &b.keys, left_columns));
                let plan = rebuild(plan, vec![l, r])?;
                let limit = plan.fetch();
                let spread = Spread { tier: a.tier, keys, limit, shipped: [a.shipped, b.shipped].concat() };
                Ok(Placed { plan, place: Place::Storages(spread) })
            }
            (Placed { plan: l, place: Place::Storages(spread) }, Placed { plan: r, place: Place::Anywhere })
                if join.may_spread(JoinSide::Left) =>
            {
                let keys = join.keys_of(JoinSide::Left, &spread.keys, left_columns);
                at_storages(rebuild(plan, vec![l, r])?, Spread { keys, ..spread })
            }
            (Placed { plan: l, place: Place::Anywhere }, Placed { plan: r, place: Place::Storages(spread) })
                if join.may_spread(JoinSide::Right) =>
            {
                let keys = join.keys_of(JoinSide::Right, &spread.keys, left_columns);
                at_storages(rebuild(plan, vec![l, r])?, Spread { keys, ..spread })
            }
            (left, right) => self.ship_or_meet(plan, &join, left, right),
        }
    }

    /// A side that was cut has to come to the router before it is joined.
    fn settle(&mut self, child: Placed) -> DfResult<Placed> {
        match child.place {
            Place::Storages(Spread { limit: Some(_), .. }) => Ok(Placed::router(self.at_router(child)?)),
            _ => Ok(child),
        }
    }

    /// No storage has all that it needs: the small side is sent along, or both come to the router.
    fn ship_or_meet(
        &mut self,
        plan: Arc<dyn ExecutionPlan>,
        join: &Join,
        left: Placed,
        right: Placed,
    ) -> DfResult<Placed> {
        let left_columns = left.plan.schema().fields().len();
        let (left_size, right_size) = (size(&left.plan), size(&right.plan));
        let can_stay = |side: JoinSide, placed: &Placed| {
            self.options.ship && join.may_spread(side) && matches!(placed.place, Place::Storages(_))
        };
        let ship_right = can_stay(JoinSide::Left, &left) && is_small(right_size, left_size);
        let ship_left = can_stay(JoinSide::Right, &right) && is_small(left_size, right_size);
        let prefer_right = ship_right && (!ship_left || right_size <= left_size);
        let (stays, goes, side) = match (prefer_right, ship_left) {
            (true, _) => (left, right, JoinSide::Left),
            (false, true) => (right, left, JoinSide::Right),
            (false, false) => {
                let inputs = vec![self.at_router(left)?, self.at_router(right)?];
                return Ok(Placed::router(rebuild(plan, inputs)?));
            }
        };
        let Placed { plan: stays, place: Place::Storages(mut spread) } = stays else {
            return Err(wrap(Error::internal("a side that is to stay at the storages is not there")));
        };
        // In one stream: the order of several is not that of what is sent.
        let goes = super::single(self.at_router(goes)?);
        let id = self.shipped;
        self.shipped += 1;
        let rows = size(&goes).map(|(rows, _)| rows);
        let sent = ShippedExec::new(id, goes.schema(), rows).in_order(goes.output_ordering().cloned());
        let sent: Arc<dyn ExecutionPlan> = Arc::new(sent);
        spread.shipped.push((id, goes));
        spread.keys = join.keys_of(side, &spread.keys, left_columns);
        let inputs = if side == JoinSide::Left { vec![stays, sent] } else { vec![sent, stays] };
        at_storages(rebuild(plan, inputs)?, spread)
    }
}

fn at_storages(plan: Arc<dyn ExecutionPlan>, mut spread: Spread) -> DfResult<Placed> {
    spread.limit = plan.fetch();
    Ok(Placed { plan, place: Place::Storages(spread) })
}

/// Whether both sides lie by the columns that they are joined on.
fn meets(
    plan: &dyn ExecutionPlan,
    left: (&Arc<dyn ExecutionPlan>, &Spread),
    right: (&Arc<dyn ExecutionPlan>, &Spread),
) -> bool {
    plan.downcast_ref::<HashJoinExec>()
        .is_some_and(|join| keys::meet(left.1, right.1, join.on(), [&**left.0, &**right.0]))
}

/// Estimated rows and bytes, over all storages.
type Size = Option<(usize, usize)>;

fn size(plan: &Arc<dyn ExecutionPlan>) -> Size {
    let statistics = StatisticsContext::new().compute(&**plan, &StatisticsArgs::new()).ok()?;
    let rows = *statistics.num_rows.get_value()?;
    let bytes = statistics.total_byte_size.get_value().copied();
    Some((rows, bytes.unwrap_or(rows.saturating_mul(16 * plan.schema().fields().len().max(1)))))
}

fn is_small(goes: Size, stays: Size) -> bool {
    let Some((rows, bytes)) = goes else { return false };
    let fits = rows <= SHIPPED_ROWS_MAX && bytes <= SHIPPED_BYTES_MAX;
    fits && (rows <= FEW_ROWS || stays.is_none_or(|(stay, _)| rows <= stay))
}
