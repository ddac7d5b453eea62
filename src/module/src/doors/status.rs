//! `picodata.status()`: what this instance knows of the cluster.

use crate::host::Call;
use crate::node::{self, Node};
use catalog::{Instance, InstanceState, Move, Replicaset, State};
use model::Result;
use model::msgpack::{write_array_len, write_bool, write_map_len, write_nil, write_str, write_uint};
use sharding::MovePhase;

pub fn serve(call: &mut Call<'_>) -> Result<()> {
    let node = node::get()?;
    let mut out = Vec::with_capacity(1024);
    write_status(node, &node.state(), &mut out);
    call.reply(&out)
}

fn write_status(node: &Node, state: &State, out: &mut Vec<u8>) {
    let raft = node.raft.status();
    let topology = &state.topology;
    let leader = raft.leader.and_then(|id| topology.instance_by_raft_id(id)).map(|leader| leader.name.as_str());
    let snapshots = node.raft.snapshots();
    write_map_len(out, 13);
    text(out, "cluster", state.cluster.as_ref().map(|cluster| cluster.name.as_str()));
    text(out, "cluster_id", state.cluster.as_ref().map(|cluster| cluster.id.as_str()));
    text(out, "name", Some(node.me.name.as_str()));
    text(out, "leader", leader);
    number(out, "catalog_version", state.version);
    number(out, "raft_term", raft.term);
    number(out, "raft_applied", node.raft.applied());
    number(out, "raft_first_index", raft.first_index);
    number(out, "snapshots_sent", snapshots.sent);
    number(out, "snapshots_installed", snapshots.installed);
    write_str(out, "instances");
    write_array_len(out, topology.instances.len());
    for instance in topology.instances.values() {
        write_instance(state, instance, &raft, out);
    }
    write_str(out, "replicasets");
    write_array_len(out, topology.replicasets.len());
    for replicaset in topology.replicasets.values() {
        write_replicaset(state, replicaset, out);
    }
    write_str(out, "moves");
    write_array_len(out, state.placement.moves.len());
    state.placement.moves.values().for_each(|m| write_move(m, out));
}

fn write_move(m: &Move, out: &mut Vec<u8>) {
    let phase = match m.phase {
        MovePhase::Copying => "copying",
        MovePhase::Finished => "finished",
        MovePhase::Aborted => "aborted",
    };
    write_map_len(out, 7);
    number(out, "id", m.id);
    text(out, "tier", Some(m.tier.as_str()));
    text(out, "from", Some(m.from.as_str()));
    text(out, "to", Some(m.to.as_str()));
    number(out, "first_bucket", m.buckets.first.into());
    number(out, "last_bucket", m.buckets.last.into());
    text(out, "phase", Some(phase));
}

fn write_instance(state: &State, instance: &Instance, raft: &consensus::Status, out: &mut Vec<u8>) {
    let replicaset = state.topology.replicasets.get(&instance.replicaset);
    let is_master = replicaset.is_some_and(|replicaset| replicaset.master.as_ref() == Some(&instance.name));
    write_map_len(out, 9);
    text(out, "name", Some(instance.name.as_str()));
    text(out, "state", Some(instance.state.name()));
    write_str(out, "master");
    write_bool(out, is_master);
    text(out, "replicaset", Some(instance.replicaset.as_str()));
    text(out, "tier", Some(instance.tier.as_str()));
    text(out, "address", Some(&instance.address));
    number(out, "raft_id", instance.raft_id);
    write_str(out, "voter");
    write_bool(out, raft.membership.is_voter(instance.raft_id));
    write_str(out, "leaving");
    write_bool(out, !instance.stays() && instance.state != InstanceState::Expelled);
}

fn write_replicaset(state: &State, replicaset: &Replicaset, out: &mut Vec<u8>) {
    let map = state.placement.map(&replicaset.tier);
    let buckets = map.map_or(0, |map| {
        let owned = map.ranges().iter().filter(|range| range.replicaset == replicaset.name);
        owned.map(|range| u64::from(range.buckets.last - range.buckets.first) + 1).sum()
    });
    write_map_len(out, 7);
    text(out, "name", Some(replicaset.name.as_str()));
    text(out, "master", replicaset.master.as_ref().map(|master| master.as_str()));
    number(out, "buckets", buckets);
    text(out, "tier", Some(replicaset.tier.as_str()));
    number(out, "weight", replicaset.weight.into());
    text(out, "uuid", Some(&replicaset.uuid));
    write_str(out, "in_sync");
    write_array_len(out, replicaset.in_sync.len());
    replicaset.in_sync.iter().for_each(|name| write_str(out, name.as_str()));
}

fn text(out: &mut Vec<u8>, key: &str, value: Option<&str>) {
    write_str(out, key);
    match value {
        Some(value) => write_str(out, value),
        None => write_nil(out),
    }
}

fn number(out: &mut Vec<u8>, key: &str, value: u64) {
    write_str(out, key);
    write_uint(out, value);
}
