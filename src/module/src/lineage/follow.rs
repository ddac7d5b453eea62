//! Doors by which the leader says whom this instance follows: nobody from now on (`fence`), or the master of a term
//! (`follow`), for which a place has to be free among the host's numbers (`make_room`).

use super::{check, clock, note, replicaset};
use crate::governing;
use crate::host::{Call, Deadline, IteratorKind, Space, failpoint, fiber, space};
use crate::node::{self, Node};
use crate::raft::disk;
use crate::start::join::{decode, encode};
use crate::start::storage;
use boot::Address;
use model::msgpack::{Reader, write_array_len, write_bin, write_str, write_uint};
use model::{Code, Error, InstanceName, ReplicasetName, Result};
use replication::{Kept, Vclock};
use std::collections::BTreeSet;

pub const FOLLOW_DOOR: &str = "picodata.peer.follow";
pub const FENCE_DOOR: &str = "picodata.peer.fence";
pub const ROOM_DOOR: &str = "picodata.peer.make_room";

/// How long a door works; who knocked asks again.
const DOOR_TIMEOUT_MS: u64 = 5_000;
/// How long a member may take to reach what the old master has, and how often it looks.
const REACH_TIMEOUT_MS: u64 = 500;
const REACH_LOOK_S: f64 = 0.001;
/// The same, for rows of its own that an instance has lost.
const OWN_ROWS_TIMEOUT_MS: u64 = 4_000;
/// The space in which the host numbers the members of a replicaset.
pub const SPACE_OF_MEMBERS: Space = Space(320);

pub fn follow_args(replicaset: &ReplicasetName, term: u64, peers: &BTreeSet<String>) -> Vec<u8> {
    let mut args = Vec::new();
    write_array_len(&mut args, 3);
    write_str(&mut args, replicaset.as_str());
    write_uint(&mut args, term);
    write_array_len(&mut args, peers.len());
    peers.iter().for_each(|peer| write_str(&mut args, peer));
    args
}

/// `picodata.peer.follow(replicaset, term, peers)`: follows these members, the master of a term, and nobody else, after
/// looking whether all rows here are of its history.
pub fn serve_follow(call: &mut Call<'_>) -> Result<()> {
    let node = node::get()?;
    let mut reader = Reader::new(call.args());
    reader.array_len()?;
    let replicaset: ReplicasetName = reader.str()?.into();
    let term = reader.uint()?;
    let count = reader.array_len()?;
    let peers: BTreeSet<String> = (0..count).map(|_| reader.str().map(str::to_owned)).collect::<Result<_>>()?;
    let addresses: Vec<Address> = peers.iter().map(|peer| peer.parse()).collect::<Result<_>>()?;
    let deadline = Deadline::after_ms(DOOR_TIMEOUT_MS);
    node.lineage.work.run(deadline, || {
        await_term(node, &replicaset, term, deadline)?;
        // A term begins before it has a master. What it keeps, which is looked at below and never again, comes with that.
        node.wait_for(deadline, "the master of the new term", |state| {
            let now = state.topology.replicasets.get(&replicaset)?;
            (now.master.is_some() || now.master_term > term).then_some(())
        })?;
        await_term(node, &replicaset, term, deadline)?;
        if node.state().topology.replicaset(&replicaset)?.master.as_ref() == Some(&node.me.name) {
            return Err(Error::new(Code::Conflict, "a master follows nobody"));
        }
        let wanted = Some((term, peers));
        if *node.facts.follows.borrow() == wanted {
            return Ok(());
        }
        failpoint::reach("follow.asked");
        follow_nobody(node, 0)?;
        failpoint::reach("follow.unfollowed");
        // A row that passes through the log behind everything that was received before.
        disk::write_mark(disk::FENCE_KEY, term)?;
        failpoint::reach("follow.marked");
        let rows = check(node)?;
        note(node, term)?;
        failpoint::reach("follow.noted");
        pull(node, &rows, &addresses)?;
        *node.facts.follows.borrow_mut() = wanted;
        failpoint::reach("follow.following");
        node.facts.changed.notify_all();
        Ok(())
    })
}

pub fn fence_args(replicaset: &ReplicasetName, term: u64, reach: Option<&Vclock>) -> Result<Vec<u8>> {
    let mut args = Vec::new();
    write_array_len(&mut args, 3);
    write_str(&mut args, replicaset.as_str());
    write_uint(&mut args, term);
    write_bin(&mut args, &encode(&reach)?);
    Ok(args)
}

/// `picodata.peer.fence(replicaset, term, reach)`: stops following everybody, after a moment in which to reach the rows that
/// the old master has, then says which rows are here.
pub fn serve_fence(call: &mut Call<'_>) -> Result<()> {
    let node = node::get()?;
    let mut reader = Reader::new(call.args());
    reader.array_len()?;
    let replicaset: ReplicasetName = reader.str()?.into();
    let term = reader.uint()?;
    let wanted: Option<Vclock> = decode(reader.bin()?)?;
    let deadline = Deadline::after_ms(DOOR_TIMEOUT_MS);
    node.lineage.work.run(deadline, || {
        await_term(node, &replicaset, term, deadline)?;
        if node.state().topology.replicaset(&replicaset)?.master.is_some() {
            return Err(past(&replicaset, term));
        }
        failpoint::reach("fence.asked");
        storage::set_read_only(true)?;
        failpoint::reach("fence.read_only");
        if let Some(wanted) = wanted {
            reach(&wanted, REACH_TIMEOUT_MS)?;
        }
        follow_nobody(node, term)?;
        failpoint::reach("fence.unfollowed");
        disk::write_mark(disk::FENCE_KEY, term)?;
        failpoint::reach("fence.marked");
        let kept = check(node)?;
        *node.facts.fenced.borrow_mut() = Some((term, kept));
        failpoint::reach("fence.told");
        node.facts.changed.notify_all();
        Ok(())
    })?;
    // Whatever the catalog has come to meanwhile.
    node.mastership.wake();
    Ok(())
}

/// Waits until these rows are here, but not for long: writes wait meanwhile. Answers whether they are.
fn reach(wanted: &Vclock, timeout_ms: u64) -> Result<bool> {
    let deadline = Deadline::after_ms(timeout_ms);
    // The host tells nobody when it has applied a row.
    loop {
        if clock()?.clock.covers(wanted) {
            return Ok(true);
        }
        if deadline.has_passed() || fiber::is_cancelled() {
            return Ok(false);
        }
        fiber::sleep(REACH_LOOK_S);
    }
}

/// Waits until this instance has applied the beginning of a term.
///
/// Errors: `Conflict` when the replicaset is past it.
fn await_term(node: &Node, replicaset: &ReplicasetName, term: u64, deadline: Deadline) -> Result<()> {
    let now = node.wait_for(deadline, "the new term of the replicaset", |state| {
        let now = state.topology.replicasets.get(replicaset)?.master_term;
        (now >= term).then_some(now)
    })?;
    if now > term { Err(past(replicaset, term)) } else { Ok(()) }
}

fn past(replicaset: &ReplicasetName, term: u64) -> Error {
    Error::new(Code::Conflict, format!("replicaset \"{replicaset}\" is past the change of master to term {term}"))
}

/// Stops pulling rows from anybody, in the name of a term.
pub fn follow_nobody(node: &Node, term: u64) -> Result<()> {
    let wanted = Some((term, BTreeSet::new()));
    if *node.facts.follows.borrow() != wanted {
        storage::set_replication(&node.config, &[])?;
        *node.facts.follows.borrow_mut() = wanted;
    }
    Ok(())
}

/// Ends following and begins it again, with the same members.
pub fn again(node: &Node) -> Result<()> {
    let Some((_, peers)) = node.facts.follows.borrow().clone() else { return Ok(()) };
    let addresses: Vec<Address> = peers.iter().map(|peer| peer.parse()).collect::<Result<_>>()?;
    storage::set_replication(&node.config, &[])?;
    pull(node, &clock()?, &addresses)
}

/// Begins to pull rows from these members; those of this instance's own too, when a log that lost its end has them no more.
fn pull(node: &Node, rows: &Kept, members: &[Address]) -> Result<()> {
    let state = node.state();
    let last = replicaset(node, &state).and_then(|replicaset| replicaset.history.last());
    let kept = last.map_or(0, |cut| cut.kept.clock.get(rows.number));
    let mine = rows.clock.get(rows.number);
    if mine >= kept {
        return storage::set_replication(&node.config, members);
    }
    log::warn!(
        "picodata: this instance's log has {mine} rows of its own, and the replicaset kept {kept}: it pulls them"
    );
    let own = [(rows.number, kept)].into_iter().collect();
    let pulled = storage::ask_for_own_rows(true).and_then(|()| storage::set_replication(&node.config, members));
    let pulled = pulled.and_then(|()| reach(&own, OWN_ROWS_TIMEOUT_MS));
    storage::ask_for_own_rows(false)?;
    if pulled? {
        return Ok(());
    }
    // The host would leave them out from now on: who asked asks again.
    storage::set_replication(&node.config, &[])?;
    Err(Error::new(Code::Timeout, "the rows that this instance's log has lost did not come in time"))
}

/// Has the master of a replicaset forget members that the catalog does not know any more, as of a place in the log.
pub fn make_room(node: &'static Node, master: &InstanceName, index: u64, deadline: Deadline) -> Result<()> {
    let mut args = Vec::new();
    write_array_len(&mut args, 1);
    write_uint(&mut args, index);
    governing::ask(node, master, ROOM_DOOR, &args, deadline)
}

/// `picodata.peer.make_room(index)`: the host has 31 numbers for the members of a replicaset and gives a newcomer one that
/// is free, so those of members that have left or thrown their data away are given back.
pub fn serve_make_room(call: &mut Call<'_>) -> Result<()> {
    let node = node::get()?;
    let mut reader = Reader::new(call.args());
    reader.array_len()?;
    let index = reader.uint()?;
    if !node.raft.wait_applied(index, Deadline::after_ms(DOOR_TIMEOUT_MS)) {
        return Err(Error::new(Code::Timeout, "the master did not learn of the newcomer in time"));
    }
    if space::is_read_only() {
        return Err(Error::new(Code::NoMaster, format!("instance {} is not the master", node.me.name)));
    }
    let state = node.state();
    let Some(record) = state.topology.instances.get(&node.me.name) else { return Ok(()) };
    let known: BTreeSet<&str> = state.topology.members(&record.replicaset).map(|member| member.uuid.as_str()).collect();
    for (number, uuid) in numbers()? {
        if !known.contains(uuid.as_str()) {
            let mut key = Vec::new();
            write_array_len(&mut key, 1);
            write_uint(&mut key, number.into());
            SPACE_OF_MEMBERS.delete(0, &key)?;
            failpoint::reach("join.number_freed");
            log::info!("lineage: member {number}, {uuid}, is forgotten");
        }
    }
    Ok(())
}

/// The members as the host numbers them, with their UUIDs.
pub fn numbers() -> Result<Vec<(u32, String)>> {
    let mut walk = SPACE_OF_MEMBERS.iterate(0, IteratorKind::All, &[0x90])?;
    let (mut numbers, mut tuple) = (Vec::new(), Vec::new());
    while walk.copy_next(&mut tuple)? {
        let mut reader = Reader::new(&tuple);
        reader.array_len()?;
        let number = u32::try_from(reader.uint()?).map_err(|_| Error::internal("a member has a huge number"))?;
        numbers.push((number, reader.str()?.to_owned()));
        tuple.clear();
    }
    Ok(numbers)
}
