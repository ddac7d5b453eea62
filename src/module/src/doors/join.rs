//! How a member answers those that want in: where the cluster is, and what place a newcomer gets.

use crate::host::{Call, Deadline, failpoint};
use crate::lineage;
use crate::net::CallError;
use crate::node::{self, Node};
use crate::start::JOIN_DOOR;
use crate::start::join::{JoinAnswer, JoinRequest, decode, encode};
use boot::discovery::check_cluster;
use boot::{Address, Answer, Hello};
use catalog::{Newcomer, Op, State};
use model::msgpack::{Reader, write_array_len, write_bin};
use model::{Code, Error, InstanceName, Result};
use std::collections::BTreeSet;
use std::time::Duration;

/// Below what the newcomer itself waits, so that it hears why.
const TIMEOUT: Duration = Duration::from_secs(25);

/// `picodata.peer.discover`: this instance is a member.
pub fn serve_discover(call: &mut Call<'_>) -> Result<()> {
    let node = node::get()?;
    let hello: Hello = decode(argument(call.args())?)?;
    check_cluster(&node.config.cluster, &hello.cluster)?;
    let state = node.state();
    let members: BTreeSet<Address> = state
        .topology
        .instances
        .values()
        .filter(|instance| instance.is_online())
        .filter_map(|instance| instance.address.parse().ok())
        .collect();
    // A member that does not know the cluster yet has not been let in itself.
    let answer = match state.cluster {
        Some(_) if !members.is_empty() => Answer::Member { cluster_id: node.me.cluster_id.clone(), members },
        _ => Answer::Bootstrapping,
    };
    reply(call, &encode(&answer)?)
}

/// `picodata.peer.join`: asked of any member, answered by the leader.
pub fn serve_join(call: &mut Call<'_>) -> Result<()> {
    let node = node::get()?;
    let bytes = argument(call.args())?.to_vec();
    let request: JoinRequest = decode(&bytes)?;
    check_cluster(&node.config.cluster, &request.cluster)?;
    if request.cluster_id != node.me.cluster_id {
        let message = format!("this cluster has the id {}, not {}", node.me.cluster_id, request.cluster_id);
        return Err(Error::new(Code::ForeignCluster, message));
    }
    let deadline = Deadline::after(TIMEOUT);
    let answer = match node.raft.leader() {
        Some(leader) if leader != node.me.raft_id => forward(node, &node.address_of(leader)?, &bytes, deadline)?,
        Some(_) => encode(&admit(node, request, deadline)?)?,
        None => return Err(Error::new(Code::NoLeader, "the cluster has no Raft leader just now")),
    };
    reply(call, &answer)
}

fn forward(node: &Node, leader: &Address, request: &[u8], deadline: Deadline) -> Result<Vec<u8>> {
    let mut args = Vec::with_capacity(request.len() + 8);
    write_array_len(&mut args, 1);
    write_bin(&mut args, request);
    let answer = node.call(leader, JOIN_DOOR, &args, deadline).map_err(CallError::for_read)?;
    Ok(Reader::new(&answer).bin()?.to_vec())
}

/// Gives the newcomer its place, and waits until there is somebody to copy from where it is not the first.
fn admit(node: &'static Node, request: JoinRequest, deadline: Deadline) -> Result<JoinAnswer> {
    let name = InstanceName(request.name.clone());
    let instance = Newcomer {
        name: name.clone(),
        uuid: request.instance_uuid,
        address: request.address.to_string(),
        failure_domain: request.failure_domain,
        lost_power: false,
    };
    let tier = request.tier.into();
    if let Some(forgets) = request.forgets {
        node.propose(Op::Renumber { instance, tier, forgets }, deadline)?;
        return standing(&node.state(), &name);
    }
    let joined = node.propose(Op::Join { instance, tier, replaces: request.replaces }, deadline)?;
    failpoint::reach("join.admitted");
    let (answer, master) =
        node.wait_for(deadline, "the replicaset to have a master to copy", |state| place(state, &name))?;
    if let Some(master) = master {
        lineage::make_room(node, &master, joined.index, deadline)?;
    }
    failpoint::reach("join.placed");
    Ok(answer)
}

/// What a member is told that is where it belongs, and has to copy nobody.
fn standing(state: &State, name: &InstanceName) -> Result<JoinAnswer> {
    let instance = state.topology.instance(name)?;
    let replicaset = state.topology.replicaset(&instance.replicaset)?;
    let (replicaset_uuid, term) = (replicaset.uuid.clone(), replicaset.master_term);
    Ok(JoinAnswer { raft_id: instance.raft_id, replicaset_uuid, donors: Vec::new(), term })
}

/// What the newcomer is told, and the master whose storage it copies; None while it has to wait for one.
fn place(state: &State, name: &InstanceName) -> Option<(JoinAnswer, Option<InstanceName>)> {
    let place = state.topology.place(name)?;
    let donors: Vec<Address> = place.donor.iter().filter_map(|donor| donor.address.parse().ok()).collect();
    let (replicaset_uuid, term) = (place.replicaset.uuid.clone(), place.replicaset.master_term);
    let answer = JoinAnswer { raft_id: place.instance.raft_id, replicaset_uuid, donors, term };
    Some((answer, place.donor.map(|donor| donor.name.clone())))
}

/// The one argument of these doors: binary data.
fn argument(args: &[u8]) -> Result<&[u8]> {
    let mut reader = Reader::new(args);
    reader.array_len()?;
    reader.bin()
}

fn reply(call: &mut Call<'_>, bytes: &[u8]) -> Result<()> {
    let mut reply = Vec::with_capacity(bytes.len() + 5);
    write_bin(&mut reply, bytes);
    call.reply(&reply)
}
