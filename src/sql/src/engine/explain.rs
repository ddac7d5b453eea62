//! Plans as text: what runs at the router, and below each gather what runs at the storages.

use super::gather::{GatherExec, Run};
use super::hiding::HidingExec;
use super::lookups::TapExec;
use super::portions::PortionsExec;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use std::sync::Arc;
use std::time::Duration;

/// EXPLAIN: one line a node, two spaces a level.
pub fn plan_lines(plan: &Arc<dyn ExecutionPlan>) -> Vec<String> {
    lines(&DisplayableExecutionPlan::new(&**plan).indent(false).to_string())
}

/// EXPLAIN ANALYZE: the plan with what its nodes took here, then what each replicaset did.
pub fn analyzed_lines(plan: &Arc<dyn ExecutionPlan>, rows: usize, elapsed: Duration) -> Vec<String> {
    let mut out = vec![format!("Query: rows={rows}, time={}", show_time(elapsed.as_micros() as u64))];
    out.extend(lines(&DisplayableExecutionPlan::with_metrics(&**plan).indent(false).to_string()));
    let mut gathers = 0;
    let visited = plan.apply(|node| {
        if let Some(gather) = node.downcast_ref::<GatherExec>() {
            gathers += 1;
            gather.runs().iter().for_each(|run| out.extend(run_lines(gathers, run)));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "the visitor does not fail");
    out
}

fn run_lines(gather: usize, run: &Run) -> Vec<String> {
    let summary = &run.summary;
    let head = match run.is_local {
        true => format!("Gather {gather}, {} (here): rows={}", run.replicaset, summary.rows),
        false => format!("Gather {gather}, {}: rows={}, bytes={}", run.replicaset, summary.rows, summary.bytes),
    };
    let mut out = vec![format!("{head}, time={}", show_time(summary.elapsed_us))];
    out.extend(summary.plan.iter().flat_map(|plan| lines(plan)).map(|line| format!("  {line}")));
    out
}

fn show_time(micros: u64) -> String {
    format!("{}.{:03} ms", micros / 1000, micros % 1000)
}

/// The lines of a plan, without the nodes that only pass rows on.
fn lines(text: &str) -> Vec<String> {
    const HIDDEN: [&str; 4] = ["CooperativeExec", HidingExec::NAME, PortionsExec::NAME, TapExec::NAME];
    let mut hidden: Vec<usize> = Vec::new();
    let mut out = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let indent = line.len() - line.trim_start().len();
        hidden.retain(|at| *at < indent);
        if HIDDEN.iter().any(|name| line.trim_start().starts_with(name)) {
            hidden.push(indent);
            continue;
        }
        let line = match line.trim_start().starts_with("HashJoinExec") {
            // What has a join look at whether its query is over.
            true => line.replacen(", filter=true", "", 1),
            false => line.to_owned(),
        };
        out.push(line.trim_end().get(hidden.len() * 2..).unwrap_or_default().to_owned());
    }
    out
}
