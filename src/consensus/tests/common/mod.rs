//! Nodes, their disks and the messages between them, for the tests of this room: everything happens when a test says so.

use consensus::{Committed, Config, Log, LogRow, Node, Outgoing, Payload, Persist, Ready, StateKey, describe};
use model::RaftId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

/// What one instance has on disk: the tables of the log and, as its state, the data of all entries applied.
#[derive(Clone, Default)]
pub struct Disk {
    pub rows: BTreeMap<u64, LogRow>,
    pub state: BTreeMap<StateKey, Vec<u8>>,
    pub applied: String,
}

impl Disk {
    pub fn write(&mut self, persist: &Persist) {
        if let Some(index) = persist.truncate_from {
            self.rows.retain(|at, _| *at < index);
        }
        if let Some(index) = persist.compact_to {
            self.rows.retain(|at, _| *at > index);
        }
        for row in &persist.entries {
            assert!(self.rows.insert(row.index, row.clone()).is_none(), "row {} is there already", row.index);
        }
        self.state.extend(persist.state.iter().cloned());
    }

    pub fn apply(&mut self, committed: &[Committed]) {
        for entry in committed {
            if let Payload::Data { data, .. } = &entry.payload {
                self.applied += &String::from_utf8_lossy(data);
                self.applied += " ";
            }
        }
    }

    pub fn log(&self) -> Log {
        Log::restore(self.rows.values().cloned(), self.state.clone()).expect("what was written can be read")
    }
}

pub struct Instance {
    pub node: Node,
    pub disk: Disk,
    pub starts: u64,
    /// Taken from the node and not on disk yet.
    pub pending: VecDeque<Ready>,
}

#[derive(Default)]
pub struct Cluster {
    pub instances: BTreeMap<RaftId, Instance>,
    pub queue: VecDeque<(RaftId, Outgoing)>,
    /// Messages to and from these get lost.
    pub isolated: BTreeSet<RaftId>,
    pub out: String,
    /// Changes the settings of nodes that start.
    pub tune: Option<fn(&mut Config)>,
}

impl Cluster {
    pub fn start(&mut self, raft_id: RaftId, disk: Disk) {
        let starts = self.instances.get(&raft_id).map_or(1, |instance| instance.starts + 1);
        let seed = raft_id * 1000 + starts;
        let mut config = Config { message_bytes_max: 64, snapshot_ticks: 20, ..Config::new(raft_id, seed) };
        self.tune.iter().for_each(|tune| tune(&mut config));
        let node = Node::new(config, disk.log()).expect("a node starts on what it wrote");
        self.instances.insert(raft_id, Instance { node, disk, starts, pending: VecDeque::new() });
    }

    pub fn bootstrap(&mut self, raft_id: RaftId) {
        let mut disk = Disk::default();
        disk.write(&Log::bootstrap(raft_id).1);
        self.start(raft_id, disk);
    }

    pub fn node(&mut self, raft_id: RaftId) -> &mut Node {
        &mut self.instances.get_mut(&raft_id).expect("the script names an instance that runs").node
    }

    /// Takes what the node has to say; what may leave at once leaves.
    pub fn ready(&mut self, raft_id: RaftId) -> bool {
        let instance = self.instances.get_mut(&raft_id).expect("the script names an instance that runs");
        if !instance.node.has_ready() {
            return false;
        }
        let mut ready = instance.node.ready().expect("a sound node gets ready");
        print_ready(&mut self.out, raft_id, &ready);
        let messages = std::mem::take(&mut ready.messages);
        instance.pending.push_back(ready);
        self.send(raft_id, messages);
        true
    }

    /// Writes the oldest thing that waits for the disk.
    pub fn persist(&mut self, raft_id: RaftId) -> bool {
        let instance = self.instances.get_mut(&raft_id).expect("the script names an instance that runs");
        let Some(ready) = instance.pending.pop_front() else { return false };
        if let Some(snapshot) = &ready.snapshot {
            instance.disk.applied = String::from_utf8_lossy(&snapshot.data).into_owned();
        }
        instance.disk.write(&ready.persist);
        instance.disk.apply(&ready.committed);
        instance.node.persisted(ready.number).expect("it is under way");
        if ready.snapshot_wanted {
            let applied = instance.node.status().applied;
            let data = instance.disk.applied.clone().into_bytes();
            instance.node.provide_snapshot(applied, data).expect("it is of what is applied");
        }
        self.send(raft_id, ready.messages_after);
        true
    }

    fn send(&mut self, from: RaftId, messages: Vec<Outgoing>) {
        for message in messages {
            if !self.isolated.contains(&from) && !self.isolated.contains(&message.to) {
                self.queue.push_back((from, message));
            }
        }
    }

    /// Delivers the oldest message.
    pub fn deliver(&mut self) -> bool {
        let Some((_, message)) = self.queue.pop_front() else { return false };
        writeln!(self.out, "{}", describe(&message.bytes)).unwrap();
        if let Some(instance) = self.instances.get_mut(&message.to)
            && let Err(error) = instance.node.step(&message.bytes)
        {
            writeln!(self.out, "{} refuses: {error}", message.to).unwrap();
        }
        true
    }

    pub fn stabilize(&mut self) {
        for _ in 0..10_000 {
            let ids: Vec<RaftId> = self.instances.keys().copied().collect();
            let mut is_busy = false;
            for raft_id in ids {
                while self.ready(raft_id) || self.persist(raft_id) {
                    is_busy = true;
                }
            }
            while self.deliver() {
                is_busy = true;
            }
            if !is_busy {
                return;
            }
        }
        panic!("the nodes do not come to rest");
    }
}

fn print_ready(out: &mut String, raft_id: RaftId, ready: &Ready) {
    if let Some((leader, role, term)) = ready.leadership {
        let leader = leader.map_or("none".to_owned(), |leader| leader.to_string());
        writeln!(out, "{raft_id} is {role:?} in term {term}, leader {leader}").unwrap();
    }
    if let Some(snapshot) = &ready.snapshot {
        let text = String::from_utf8_lossy(&snapshot.data).into_owned();
        writeln!(out, "{raft_id} loads snapshot {}@{} {text:?}", snapshot.position.index, snapshot.position.term)
            .unwrap();
    }
    let persist = &ready.persist;
    if let Some(index) = persist.truncate_from {
        writeln!(out, "{raft_id} truncates from {index}").unwrap();
    }
    if let Some(index) = persist.compact_to {
        writeln!(out, "{raft_id} compacts to {index}").unwrap();
    }
    if let (Some(first), Some(last)) = (persist.entries.first(), persist.entries.last()) {
        writeln!(out, "{raft_id} writes {}@{} to {}@{}", first.index, first.term, last.index, last.term).unwrap();
    }
    for entry in &ready.committed {
        let what = match &entry.payload {
            Payload::Data { data, context } if context.is_empty() => format!("{:?}", String::from_utf8_lossy(data)),
            Payload::Data { data, context } => {
                format!("{:?} for {}", String::from_utf8_lossy(data), String::from_utf8_lossy(context))
            }
            Payload::Members { .. } => "members".to_owned(),
            Payload::Empty => "empty".to_owned(),
        };
        writeln!(out, "{raft_id} applies {}@{} {what}", entry.position.index, entry.position.term).unwrap();
    }
    if let Some(membership) = &ready.membership {
        writeln!(out, "{raft_id} has {membership}").unwrap();
    }
    if !ready.reads.is_empty() {
        writeln!(out, "{raft_id} serves reads {:?}", ready.reads).unwrap();
    }
    if ready.snapshot_wanted {
        writeln!(out, "{raft_id} wants a snapshot").unwrap();
    }
}
