//! What users and the operator do: writes, reads, and members that come, go and change their part.

use crate::instance::{Instance, Process, Write};
use crate::invariants::Verdict;
use crate::machine::Machine;
use crate::scenario::Defect;
use crate::world::World;
use consensus::Role;
use model::{Code, RaftId};

const INSTANCES_MAX: u64 = 10;
/// The cluster is not shrunk below so many members.
const MEMBERS_MIN: usize = 3;

impl<M: Machine> World<M> {
    /// One client does one thing somewhere.
    pub fn client(&mut self) -> Verdict {
        // Several may believe that they lead: the wrong ones are the interesting ones.
        let mut candidates = self.leaders();
        if candidates.is_empty() || self.rng.chance(1, 4) {
            candidates = self.running();
        }
        let Some(raft_id) = self.rng.pick(&candidates).copied() else { return Ok(()) };
        match self.rng.chance(1, 3) {
            true => self.read(raft_id),
            false => self.propose(raft_id).map(|_| ()),
        }
    }

    /// Proposes a write; its id when the instance took it.
    pub fn propose(&mut self, raft_id: RaftId) -> Result<Option<u64>, String> {
        self.next_id += 1;
        let (id, floor) = (self.next_id, self.invariants.linearizable.calls());
        let Some(process) = self.instances.get_mut(&raft_id).and_then(|instance| instance.process.as_mut()) else {
            return Ok(None);
        };
        let command = process.machine.command(&mut self.rng, id);
        match process.node.propose(command, id.to_be_bytes().to_vec()) {
            Ok(position) => {
                process.writes.insert(position.index, Write { id, term: position.term, floor });
                self.trace
                    .say(self.now_us, || format!("{raft_id} takes write {id} as {}@{}", position.index, position.term));
                self.drive(raft_id)?;
                Ok(Some(id))
            }
            Err(error) if error.code == Code::NoLeader => Ok(None),
            Err(error) => Err(format!("{raft_id} refuses a write: {error}")),
        }
    }

    fn read(&mut self, raft_id: RaftId) -> Verdict {
        let floor = self.invariants.linearizable.calls();
        self.next_id += 1;
        let context = self.next_id;
        let is_hasty = self.options.defect == Some(Defect::ReadsAtOnce);
        let Some(process) = self.process(raft_id) else { return Ok(()) };
        if is_hasty {
            let version = process.version;
            return self.invariants.linearizable.reads(floor, version);
        }
        process.node.read_index(context).map_err(|error| format!("{raft_id} refuses a read: {error}"))?;
        process.reads.insert(context, floor);
        self.drive(raft_id)
    }

    /// The operator wants another membership.
    pub fn change_members(&mut self) -> Verdict {
        if self.rng.chance(1, 8) && self.instances.len() as u64 <= INSTANCES_MAX {
            self.join()?;
        }
        if self.rng.chance(1, 10) && self.wanted.len() > MEMBERS_MIN {
            let gone = self.rng.range(0, self.wanted.len() as u64) as usize;
            let raft_id = self.wanted.remove(gone);
            self.trace.say(self.now_us, || format!("{raft_id} is to be expelled"));
        }
        let leaders = self.leaders();
        let Some(leader) = self.rng.pick(&leaders).copied() else { return Ok(()) };
        let (voters, learners) = self.draw_members();
        let Some(process) = self.process(leader) else { return Ok(()) };
        match process.node.propose_members(&voters, &learners, Vec::new()) {
            Ok(_) => {
                self.trace.say(self.now_us, || format!("{leader} takes members {voters:?} {learners:?}"));
                self.drive(leader)
            }
            Err(error) if matches!(error.code, Code::NoLeader | Code::Conflict) => Ok(()),
            Err(error) => Err(format!("{leader} refuses members: {error}")),
        }
    }

    /// A new instance, with an empty disk.
    pub fn join(&mut self) -> Verdict {
        let raft_id = self.instances.len() as RaftId + 1;
        let tick_us = self.rng.range(40_000, 62_500);
        self.instances.insert(raft_id, Instance::new(raft_id, tick_us));
        self.wanted.push(raft_id);
        self.start(raft_id)
    }

    /// One, three or five of the wanted members vote, the others learn.
    fn draw_members(&mut self) -> (Vec<RaftId>, Vec<RaftId>) {
        let mut learners = self.wanted.clone();
        let voters_max = learners.len().min(5).div_ceil(2) as u64;
        let count = if self.rng.chance(1, 4) { self.rng.range(0, voters_max) } else { voters_max - 1 } * 2 + 1;
        let voters =
            (0..count).map(|_| learners.swap_remove(self.rng.range(0, learners.len() as u64) as usize)).collect();
        (voters, learners)
    }

    /// The instance that leads in the highest term.
    pub fn leader(&self) -> Option<RaftId> {
        self.leaders().into_iter().max_by_key(|raft_id| {
            self.instances
                .get(raft_id)
                .and_then(|instance| instance.process.as_ref())
                .map(|process| process.node.term())
        })
    }

    /// All that believe that they lead, and are awake.
    fn leaders(&self) -> Vec<RaftId> {
        self.running_where(|process| process.node.role() == Role::Leader)
    }

    fn running(&self) -> Vec<RaftId> {
        self.running_where(|_| true)
    }

    fn running_where(&self, is_meant: impl Fn(&Process<M>) -> bool) -> Vec<RaftId> {
        let meant = |instance: &&Instance<M>| {
            instance.frozen_until_us <= self.now_us && instance.process.as_ref().is_some_and(&is_meant)
        };
        self.instances.values().filter(meant).map(|instance| instance.raft_id).collect()
    }
}
