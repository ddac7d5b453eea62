//! One instance: a disk that survives, and a process that may run on it.

use crate::disk::{Disk, Image};
use crate::machine::Machine;
use crate::scenario::Scenario;
use consensus::{Config, Log, Node, Outgoing};
use model::RaftId;
use std::collections::{BTreeMap, VecDeque};

#[derive(Debug)]
pub struct Instance<M> {
    pub raft_id: RaftId,
    pub disk: Disk<M>,
    pub process: Option<Process<M>>,
    /// How often it was started: events for an earlier process are void.
    pub starts: u64,
    /// Until when the process does nothing, as if stopped by its host.
    pub frozen_until_us: u64,
    /// How long its ticks are: clocks differ.
    pub tick_us: u64,
}

/// A process: all that is gone with a crash.
pub struct Process<M> {
    pub node: Node,
    pub machine: M,
    /// How many commands the machine has applied.
    pub version: u64,
    /// Up to where the invariants were told what is committed.
    pub commit_seen: u64,
    /// Writes proposed here, by index.
    pub writes: BTreeMap<u64, Write>,
    /// Reads asked here: context -> the length of the history when they were called.
    pub reads: BTreeMap<u64, u64>,
    /// What to do when the oldest write to the disk is durable.
    pub syncing: VecDeque<Syncing>,
}

#[derive(Clone, Copy, Debug)]
pub struct Write {
    pub id: u64,
    pub term: u64,
    pub floor: u64,
}

#[derive(Debug)]
pub struct Syncing {
    pub number: u64,
    pub messages: Vec<Outgoing>,
    pub is_snapshot_wanted: bool,
    /// The term that the node came to lead in.
    pub leads: Option<u64>,
}

impl<M: Machine> Instance<M> {
    pub fn new(raft_id: RaftId, tick_us: u64) -> Self {
        Self { raft_id, disk: Disk::default(), process: None, starts: 0, frozen_until_us: 0, tick_us }
    }

    /// Starts a process on what the disk holds.
    pub fn start(&mut self, scenario: &Scenario, seed: u64) -> Result<(), String> {
        let image: &Image<M> = &self.disk.image;
        let log = Log::restore(image.rows.values().cloned(), image.state.clone()).map_err(|error| error.to_string())?;
        let config = Config {
            snapshot_ticks: 40,
            message_bytes_max: scenario.message_bytes_max,
            committed_bytes_max: scenario.committed_bytes_max,
            inflight_messages_max: scenario.inflight_messages_max,
            ..Config::new(self.raft_id, seed)
        };
        let commit_seen = log.applied();
        self.process = Some(Process {
            node: Node::new(config, log).map_err(|error| error.to_string())?,
            machine: image.machine.clone(),
            version: image.version,
            commit_seen,
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
            syncing: VecDeque::new(),
        });
        self.starts += 1;
        self.frozen_until_us = 0;
        Ok(())
    }
}

impl<M> std::fmt::Debug for Process<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").field("status", &self.node.status()).finish_non_exhaustive()
    }
}
