//! This instance as a member of the cluster: what every door needs, in one place.
//!
//! Made once by `start` and alive as long as the process. Only the tx thread uses it.

use crate::copying::Copies;
use crate::facts::Facts;
use crate::host::{Deadline, Event};
use crate::lineage::Lineage;
use crate::mastership::Mastership;
use crate::net::{CallError, Pool, Priority};
use crate::raft::{Published, Runtime};
use crate::schema_work::SchemaWork;
use boot::{Address, Config};
use catalog::{Entry, Instance, Op, State};
use model::{Code, Error, InstanceName, RaftId, Result};
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Who this instance is; fixed while the process lives.
#[derive(Clone, Debug)]
pub struct Me {
    pub name: InstanceName,
    pub raft_id: RaftId,
    pub uuid: String,
    pub cluster_id: String,
    pub replicaset_uuid: String,
}

pub struct Node {
    pub config: Config,
    pub me: Me,
    pub pool: Rc<Pool>,
    pub raft: Rc<Runtime>,
    pub catalog: Rc<Published>,
    /// Where messages of Raft came from lately: known before the catalog is, or knows it anew.
    pub senders: RefCell<HashMap<RaftId, Sender>>,
    pub facts: Facts,
    pub mastership: Rc<Mastership>,
    pub lineage: Lineage,
    pub copies: Copies,
    /// Work on the host's schema.
    pub schema_work: Rc<SchemaWork>,
    /// Fires when this instance became writable or read-only, or its spaces changed.
    pub storage_changed: Rc<Event>,
}

/// Where a message of Raft came from.
pub struct Sender {
    address: Address,
    /// What the catalog said then; as soon as it says something else, it knows better.
    recorded: Option<String>,
}

thread_local! {
    static NODE: OnceCell<&'static Node> = const { OnceCell::new() };
}

/// Makes the instance known to all doors. Once.
pub fn set(node: Node) -> Result<&'static Node> {
    let node: &'static Node = Box::leak(Box::new(node));
    NODE.with(|cell| cell.set(node)).map_err(|_| Error::internal("the instance is started twice"))?;
    Ok(node)
}

/// The running instance. Errors: `NotReady` before `picodata.start` has come so far.
pub fn get() -> Result<&'static Node> {
    NODE.with(|cell| cell.get().copied()).ok_or_else(|| {
        Error::new(Code::NotReady, "this instance is not part of a cluster yet")
            .with_hint("picodata.start has to finish first")
    })
}

/// How long a request to another instance may take where the caller set no limit.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// How long a change waits for a Raft leader that a majority follows.
const LEADER_WAIT: Duration = Duration::from_secs(10);

impl Node {
    pub fn state(&self) -> Arc<State> {
        self.catalog.state()
    }

    /// This instance's own record; None before it has applied its own joining.
    pub fn record(&self) -> Option<Instance> {
        self.state().topology.instances.get(&self.me.name).cloned()
    }

    /// The term of this instance as the master of its replicaset; None while it is not.
    pub fn master_term(&self) -> Option<u64> {
        let state = self.state();
        let record = state.topology.instances.get(&self.me.name)?;
        let replicaset = state.topology.replicasets.get(&record.replicaset)?;
        (replicaset.master.as_ref() == Some(&self.me.name)).then_some(replicaset.master_term)
    }

    /// The address of a member by its Raft number. Errors: `NoSuchInstance`.
    pub fn address_of(&self, raft_id: RaftId) -> Result<Address> {
        let state = self.state();
        let recorded = state.topology.instance_by_raft_id(raft_id).map(|instance| &instance.address);
        if let Some(sender) = self.senders.borrow().get(&raft_id)
            && sender.recorded.as_ref() == recorded
        {
            return Ok(sender.address.clone());
        }
        match recorded {
            Some(address) => address.parse(),
            None => Err(Error::new(Code::NoSuchInstance, format!("no instance has the Raft id {raft_id}"))),
        }
    }

    /// A message of Raft came from this address. A voter that has moved is answered there: the others may need its vote for
    /// a leader that it could tell.
    pub fn heard_from(&self, raft_id: RaftId, address: &str) -> Result<()> {
        let state = self.state();
        let recorded = state.topology.instance_by_raft_id(raft_id).map(|instance| &instance.address);
        let mut senders = self.senders.borrow_mut();
        if recorded.is_some_and(|recorded| recorded == address) {
            senders.remove(&raft_id);
            return Ok(());
        }
        let is_known = |sender: &Sender| sender.recorded.as_ref() == recorded && sender.address.to_string() == address;
        if !senders.get(&raft_id).is_some_and(is_known) {
            senders.insert(raft_id, Sender { address: address.parse()?, recorded: recorded.cloned() });
        }
        Ok(())
    }

    /// The catalog changed: what it says of addresses is newer than where messages came from before.
    pub fn forget_senders(&self, state: &State) {
        let recorded = |raft_id: &RaftId| state.topology.instance_by_raft_id(*raft_id).map(|record| &record.address);
        self.senders.borrow_mut().retain(|raft_id, sender| sender.recorded.as_ref() == recorded(raft_id));
    }

    /// Waits until the catalog satisfies `holds`. Errors: `Timeout` naming `what`.
    pub fn wait_for<T>(&self, deadline: Deadline, what: &str, mut holds: impl FnMut(&State) -> Option<T>) -> Result<T> {
        self.catalog.changed.wait_until(deadline, what, || holds(&self.state()))
    }

    /// Calls a door of the instance at an address.
    pub fn call(&self, address: &Address, door: &str, args: &[u8], deadline: Deadline) -> Result<Vec<u8>, CallError> {
        call(&self.pool, address, door, args, deadline)
    }

    /// Proposes a change, through the leader wherever it is, and waits until it is applied here. No election takes as long
    /// as it waits for a leader.
    ///
    /// Errors: what the catalog answers; `NoLeader` when nothing happened; `Unknown` when that is not known.
    pub fn propose(&self, op: Op, deadline: Deadline) -> Result<crate::propose::Answer> {
        let leader_by = deadline.min(Deadline::after(LEADER_WAIT));
        crate::propose::propose(self, &Entry::new(op), deadline, leader_by)
    }
}

/// Calls a door over a pool's connection.
pub fn call(pool: &Pool, address: &Address, door: &str, args: &[u8], deadline: Deadline) -> Result<Vec<u8>, CallError> {
    let peer = pool.peer(&address.to_string()).map_err(CallError::not_sent)?;
    peer.call(door, args, Priority::Normal, deadline)
}
