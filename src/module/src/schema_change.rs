//! A schema change from the asking to the answer: proposed, carried out by the governor, and known to every instance
//! that is online before the answer is given.

use crate::host::{Call, Deadline, failpoint};
use crate::net::CallError;
use crate::node::{self, Node};
use crate::side_by_side::{self, Task};
use boot::Address;
use catalog::{Op, SchemaId, Setting};
use model::msgpack::{Reader, write_array_len, write_double, write_uint};
use model::{Code, Error, InstanceName, Result, SchemaChange};
use std::time::Duration;

pub const CATCH_UP_DOOR: &str = "picodata.peer.catch_up";

/// How long an instance that is online may take to apply the change before it is asked whether it still is.
const ROUND_MS: u64 = 1_000;
/// The pause before those that could not be reached are asked again.
const PAUSE_MS: u64 = 20;
/// Instances that are asked at the same time.
const FIBERS_MAX: usize = 32;

/// Carries out a change. Returns when every online instance has it, or has undone it.
///
/// Errors: what the catalog refuses; `SchemaAborted` with the reason; `Timeout` before anything was proposed; `Unknown`
/// when it was, and the deadline passed first.
pub fn change(change: SchemaChange, deadline: Deadline) -> Result<()> {
    let node = node::get()?;
    let (index, id) = prepare(node, change, deadline)?;
    let over = node.wait_for(deadline, "the schema change", |state| {
        state.schema.finished.get(&id).cloned().map(|reason| (reason, state.index))
    });
    let Ok((reason, finished_at)) = over else {
        return Err(Error::new(Code::Unknown, "the schema change goes on, but was not finished in time")
            .with_hint("it will be finished or undone everywhere; look at the table in a moment"));
    };
    failpoint::reach("schema.finished");
    let everywhere = wait_everywhere(node, finished_at.max(index), deadline);
    match reason {
        // Whoever has not heard of it yet refuses what the change would have refused.
        Some(reason) => Err(Error::new(Code::SchemaAborted, format!("the schema change was undone: {reason}"))),
        None => everywhere,
    }
}

/// Proposes until it is this change's turn. Answers its place in the log and its number.
fn prepare(node: &Node, change: SchemaChange, deadline: Deadline) -> Result<(u64, SchemaId)> {
    loop {
        let op = Op::SchemaPrepare { change: change.clone(), timeout_ms: timeout_ms(node, deadline) };
        match node.propose(op, deadline) {
            Ok(answer) => {
                // The entry is applied here; the change is pending or, with luck, over.
                let id = node.state().schema.prepared.get(&answer.index).copied();
                return id.map(|id| (answer.index, id)).ok_or_else(|| Error::internal("a schema change left no trace"));
            }
            // Another one is under way: it ends within its own time.
            Err(error) if error.code == Code::Conflict => {
                node.wait_for(deadline, "another schema change to end", |state| {
                    state.schema.pending.is_none().then_some(())
                })?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// How long the change may take before it is undone: the cluster's setting, or less, so that the caller hears of it.
fn timeout_ms(node: &Node, deadline: Deadline) -> u64 {
    const MARGIN: f64 = 0.8;
    let left_ms = (deadline.left_s() * 1e3 * MARGIN) as u64;
    left_ms.min(node.state().settings.count(Setting::SchemaTimeoutS) as u64 * 1_000).max(1)
}

/// Waits until every instance that is online has applied the log's entry `index`.
fn wait_everywhere(node: &'static Node, index: u64, deadline: Deadline) -> Result<()> {
    let mut behind: Vec<InstanceName> = online(node);
    loop {
        let tasks: Vec<Task<Option<InstanceName>>> = behind
            .into_iter()
            .map(|name| {
                let round = Deadline::after_ms(ROUND_MS).min(deadline);
                let task = move || ask(node, &name, index, round).err().map(|_| name);
                Box::new(task) as Task<Option<InstanceName>>
            })
            .collect();
        behind = side_by_side::run("pico_everywhere", FIBERS_MAX, tasks)?.into_iter().flatten().collect();
        let online = online(node);
        behind.retain(|name| online.contains(name));
        if behind.is_empty() {
            return Ok(());
        }
        if deadline.has_passed() {
            let names: Vec<&str> = behind.iter().map(InstanceName::as_str).collect();
            let message = format!("the schema change is made, but has not reached {} in time", names.join(", "));
            return Err(Error::new(Code::Unknown, message));
        }
        // Who can not be reached will be, or is offline in a moment.
        let _ = node.catalog.changed.wait(Deadline::after_ms(PAUSE_MS).min(deadline));
    }
}

fn online(node: &Node) -> Vec<InstanceName> {
    let state = node.state();
    state
        .topology
        .instances
        .values()
        .filter(|instance| instance.is_online())
        .map(|instance| instance.name.clone())
        .collect()
}

fn ask(node: &Node, name: &InstanceName, index: u64, deadline: Deadline) -> Result<()> {
    if *name == node.me.name {
        return Ok(());
    }
    let address: Address = node.state().topology.instance(name)?.address.parse()?;
    let mut args = Vec::new();
    write_array_len(&mut args, 2);
    write_uint(&mut args, index);
    write_double(&mut args, deadline.left_s());
    node.call(&address, CATCH_UP_DOOR, &args, deadline).map(drop).map_err(CallError::for_read)
}

/// `picodata.peer.catch_up(index, seconds)`: answers when this instance has applied the entry.
pub fn serve_catch_up(call: &mut Call<'_>) -> Result<()> {
    let mut reader = Reader::new(call.args());
    reader.array_len()?;
    let index = reader.uint()?;
    let deadline = Deadline::after(Duration::from_secs_f64(reader.number()?.clamp(0.0, 60.0)));
    if node::get()?.raft.wait_applied(index, deadline) {
        return Ok(());
    }
    Err(Error::new(Code::Timeout, format!("entry {index} is not applied on this instance yet")))
}
