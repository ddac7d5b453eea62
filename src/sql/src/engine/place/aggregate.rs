//! Aggregates over rows at the storages: whole there when every group lies at one storage, else split in two.

use super::keys::{self, Key};
use super::{Place, Placed, Placer, Spread, single};
use datafusion::error::Result as DfResult;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use std::sync::Arc;

impl Placer<'_> {
    pub(super) fn aggregate(
        &mut self,
        node: &AggregateExec,
        input: Arc<dyn ExecutionPlan>,
        spread: Spread,
    ) -> DfResult<Placed> {
        let is_whole = matches!(node.mode(), AggregateMode::Single | AggregateMode::SinglePartitioned);
        if node.mode() == &AggregateMode::Partial {
            // The engine split it already, and its other half will ask for the boundary.
            let plan = with_mode(node, AggregateMode::Partial, input)?;
            return Ok(Placed { plan, place: Place::Storages(Spread { keys: Vec::new(), ..spread }) });
        }
        if !is_whole {
            let gathered = self.gather(input, spread)?;
            return Ok(Placed::router(with_mode(node, *node.mode(), gathered)?));
        }
        if let Some(keys) = grouped_keys(node, &spread.keys) {
            let plan = with_mode(node, AggregateMode::Single, single(input))?;
            return Ok(Placed { plan, place: Place::Storages(Spread { keys, ..spread }) });
        }
        let partial = with_mode(node, AggregateMode::Partial, single(input))?;
        let gathered = self.gather(partial, spread)?;
        let last = AggregateExec::try_new(
            AggregateMode::Final,
            node.group_expr().as_final(),
            node.aggr_expr().to_vec(),
            // The first half has filtered already.
            vec![None; node.aggr_expr().len()],
            gathered,
            node.input_schema(),
        )?;
        Ok(Placed::router(Arc::new(last)))
    }
}

/// The node in another mode. Hints to stop early after so many groups are left out: they hold for the whole input only,
/// and the LIMIT they came from is still above.
fn with_mode(
    node: &AggregateExec,
    mode: AggregateMode,
    input: Arc<dyn ExecutionPlan>,
) -> DfResult<Arc<dyn ExecutionPlan>> {
    Ok(Arc::new(AggregateExec::try_new(
        mode,
        node.group_expr().clone(),
        node.aggr_expr().to_vec(),
        node.filter_expr().to_vec(),
        input,
        node.input_schema(),
    )?))
}

/// The keys in the output, when groups are of rows that are equal in a key; None when a group can lie at two storages.
fn grouped_keys(node: &AggregateExec, keys: &[Key]) -> Option<Vec<Key>> {
    let groups = node.group_expr();
    let exprs: Vec<_> = groups.expr().iter().map(|(expr, _)| expr.clone()).collect();
    if groups.has_grouping_set() || !groups.is_single() || !keys::cover(keys, &exprs) {
        return None;
    }
    let position = |at: usize| {
        exprs.iter().position(|expr| expr.downcast_ref::<Column>().is_some_and(|column| column.index() == at))
    };
    Some(keys.iter().filter_map(|key| key.moved(position)).collect())
}
