//! Changes of the cluster that an operator asks for: `picodata.expel`, `picodata.switchover`, `picodata.set_weight`,
//! `picodata.set_setting`.

use crate::host::{Call, Deadline};
use crate::node::{self, Node, TIMEOUT_DEFAULT};
use catalog::{Instance, Op};
use model::msgpack::{Reader, write_str, write_uint};
use model::{Code, Error, InstanceName, ReplicasetName, Result};

/// `picodata.expel(name)`: answers the catalog version once the cluster has agreed to let the instance go.
pub fn serve_expel(call: &mut Call<'_>) -> Result<()> {
    let mut reader = arguments(call, 1, "picodata.expel takes the name of an instance")?;
    let instance = reader.str()?.into();
    change(call, Op::Expel { instance })
}

/// `picodata.switchover(replicaset[, instance])`: the master of a replicaset hands over to another member in sync, to this one
/// if it is named. Answers who is master once it is.
pub fn serve_switchover(call: &mut Call<'_>) -> Result<()> {
    let usage = || Error::new(Code::Argument, "picodata.switchover takes the name of a replicaset and of an instance");
    let mut reader = Reader::new(call.args());
    let count = reader.array_len()?;
    if !(1..=2).contains(&count) {
        return Err(usage());
    }
    let replicaset: ReplicasetName = reader.str().map_err(|_| usage())?.into();
    let wanted: Option<InstanceName> = match count == 2 && !reader.take_nil() {
        true => Some(reader.str().map_err(|_| usage())?.into()),
        false => None,
    };
    let node = node::get()?;
    let master = hand_over(node, &replicaset, wanted, Deadline::after(TIMEOUT_DEFAULT))?;
    let mut reply = Vec::new();
    write_str(&mut reply, master.as_str());
    call.reply(&reply)
}

/// Has the master of a replicaset hand over, to anybody in sync if it is not said to whom, and waits for it. Answers who is
/// master then.
///
/// Errors: `Conflict` when nobody can take over, or did not keep up; `Unknown` when the wish is in the catalog and was not
/// carried out in time.
pub fn hand_over(
    node: &Node,
    name: &ReplicasetName,
    wanted: Option<InstanceName>,
    deadline: Deadline,
) -> Result<InstanceName> {
    let state = node.state();
    let replicaset = state.topology.replicaset(name)?;
    let before = replicaset.master_term;
    let can_take_over = |member: &&Instance| {
        let is_other = replicaset.master.as_ref() != Some(&member.name);
        is_other && member.is_online() && member.stays() && replicaset.in_sync.contains(&member.name)
    };
    let any = || state.topology.members(name).filter(can_take_over).min_by_key(|member| member.raft_id);
    let Some(to) = wanted.or_else(|| any().map(|member| member.name.clone())) else {
        let message = format!("replicaset \"{name}\" has no other member that is online and in sync");
        return Err(Error::new(Code::Conflict, message));
    };
    if replicaset.master.as_ref() == Some(&to) {
        return Ok(to);
    }
    node.propose(Op::HandOver { replicaset: name.clone(), to: to.clone() }, deadline)?;
    let master = node.wait_for(deadline, "the master to hand over", |state| {
        let replicaset = state.topology.replicasets.get(name)?;
        replicaset.master.clone().filter(|_| replicaset.master_term > before)
    });
    let master = master.map_err(|_| {
        Error::new(Code::Unknown, "the cluster has agreed to the switchover, but it was not carried out in time")
            .with_hint("it can be yet: look at the master in picodata.status()")
    })?;
    if master == to {
        return Ok(to);
    }
    Err(Error::new(Code::Conflict, format!("instance \"{to}\" did not keep up: \"{master}\" is the master")))
}

/// `picodata.set_weight(replicaset, weight)`.
pub fn serve_set_weight(call: &mut Call<'_>) -> Result<()> {
    let mut reader = arguments(call, 2, "picodata.set_weight takes the name of a replicaset and a weight")?;
    let replicaset = reader.str()?.into();
    let weight = reader.uint()?;
    let weight =
        u32::try_from(weight).map_err(|_| Error::new(Code::Argument, format!("a weight of {weight} is too large")))?;
    change(call, Op::SetWeight { replicaset, weight })
}

/// `picodata.set_setting(name, value)`; nil resets it to its default.
pub fn serve_set_setting(call: &mut Call<'_>) -> Result<()> {
    let mut reader = arguments(call, 2, "picodata.set_setting takes the name of a setting and a value")?;
    let name = reader.str()?.to_owned();
    let value = reader.value()?;
    change(call, Op::PutSetting { name, value })
}

fn arguments<'a>(call: &'a Call<'_>, count: usize, usage: &str) -> Result<Reader<'a>> {
    let mut reader = Reader::new(call.args());
    if reader.array_len()? != count {
        return Err(Error::new(Code::Argument, usage));
    }
    Ok(reader)
}

fn change(call: &mut Call<'_>, op: Op) -> Result<()> {
    let answer = node::get()?.propose(op, Deadline::after(TIMEOUT_DEFAULT))?;
    let mut reply = Vec::new();
    write_uint(&mut reply, answer.version);
    call.reply(&reply)
}
