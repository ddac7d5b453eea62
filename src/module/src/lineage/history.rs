//! `picodata.peer.history`: what an instance that is about to start has to know to find out whether it is stray, and whether it
//! may throw its data away.

use crate::doors::awake;
use crate::host::{Call, Deadline, Parked, failpoint};
use crate::node::{self, Node};
use crate::start::join::{decode, encode};
use catalog::InstanceState;
use model::msgpack::{Reader, write_bin};
use model::{Code, Error, InstanceName, Result};
use replication::History;
use serde::{Deserialize, Serialize};

pub const HISTORY_DOOR: &str = "picodata.peer.history";

/// How long a majority may take to confirm what this member knows.
const CONFIRM_TIMEOUT_MS: u64 = 1_000;
/// The longest that an answer waits for the vote to be taken.
const WAIT_MS_MAX: u64 = 2_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HistoryRequest {
    pub cluster_id: String,
    pub name: String,
    pub instance_uuid: String,
    pub raft_id: u64,
    /// How long the answer may wait until the instance can be spared.
    pub wait_ms: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HistoryAnswer {
    /// The instance's life that the cluster counted last.
    pub incarnation: u64,
    /// Where the governor asks for its reports.
    pub address: String,
    /// The changes of master of its replicaset.
    pub history: History,
    /// It is master, or nobody else has all that its replicaset has acknowledged.
    pub is_needed: bool,
    pub is_voter: bool,
    /// It counts as online, and could be given its vote back. Only a report of its own brings one back that is offline.
    pub is_online: bool,
}

impl HistoryAnswer {
    /// Whether nobody misses the instance's data, nor its log.
    pub fn can_be_spared(&self) -> bool {
        !self.is_needed && !self.is_voter && !self.is_online
    }
}

/// Answers what a majority knows at the time of the question, or later.
pub fn serve_history(call: &mut Call<'_>) -> Result<()> {
    let node = node::get()?;
    let mut reader = Reader::new(call.args());
    reader.array_len()?;
    let request: HistoryRequest = decode(reader.bin()?)?;
    if request.cluster_id != node.me.cluster_id {
        let message = format!("this cluster has the id {}, not {}", node.me.cluster_id, request.cluster_id);
        return Err(Error::new(Code::ForeignCluster, message));
    }
    // A vote that this member has not heard of yet would count, and be lost.
    node.raft.catch_up(Deadline::after_ms(CONFIRM_TIMEOUT_MS))?;
    failpoint::reach("history.confirmed");
    awake::announce(node, &answer(node, &request)?.address)?;
    let deadline = Deadline::after_ms(request.wait_ms.min(WAIT_MS_MAX));
    let answer = loop {
        let answer = answer(node, &request)?;
        if answer.can_be_spared() || node.raft.changed.wait(deadline) != Parked::Woken {
            break answer;
        }
    };
    let mut reply = Vec::new();
    write_bin(&mut reply, &encode(&answer)?);
    call.reply(&reply)
}

fn answer(node: &Node, request: &HistoryRequest) -> Result<HistoryAnswer> {
    let state = node.state();
    let name = InstanceName(request.name.clone());
    let instance = state.topology.instance(&name)?;
    let is_same = instance.uuid == request.instance_uuid && instance.raft_id == request.raft_id;
    if !is_same || instance.state == InstanceState::Expelled {
        return Err(Error::new(Code::NoSuchInstance, format!("this instance \"{name}\" is no member any more")));
    }
    let replicaset = state.topology.replicaset(&instance.replicaset)?;
    Ok(HistoryAnswer {
        incarnation: instance.incarnation,
        address: instance.address.clone(),
        history: replicaset.history.clone(),
        is_needed: replicaset.needs(&name),
        is_online: instance.is_online(),
        is_voter: node.raft.status().membership.is_voter(instance.raft_id),
    })
}
