//! What goes wrong in the first phase of a run.

use crate::disk::Disk;
use crate::invariants::Verdict;
use crate::machine::Machine;
use crate::network::Quality;
use crate::scenario::Defect;
use crate::world::{Event, World};
use model::RaftId;

impl<M: Machine> World<M> {
    /// One thing goes wrong, or something that went wrong is over.
    pub fn fault(&mut self) -> Verdict {
        let ids: Vec<RaftId> = self.instances.keys().copied().collect();
        let Some(raft_id) = self.rng.pick(&ids).copied() else { return Ok(()) };
        let Some(other) = self.rng.pick(&ids).copied() else { return Ok(()) };
        match self.rng.range(0, 25) {
            0..=2 => self.crash(raft_id),
            3..=4 => match self.leader() {
                Some(leader) => self.crash(leader),
                None => Ok(()),
            },
            5..=6 => {
                let busiest = ids.iter().max_by_key(|raft_id| self.instances[raft_id].disk.unsynced());
                busiest.copied().map_or(Ok(()), |raft_id| self.crash(raft_id))
            }
            7..=8 => ids.iter().try_for_each(|raft_id| self.crash(*raft_id)),
            9..=11 => {
                let (side, rest): (Vec<RaftId>, Vec<RaftId>) = ids.iter().partition(|_| self.rng.chance(1, 2));
                self.trace.say(self.now_us, || format!("{side:?} are cut off from {rest:?}"));
                self.network.partition(&side, &rest);
                Ok(())
            }
            12..=13 => {
                self.trace.say(self.now_us, || format!("nothing gets from {raft_id} to {other}"));
                self.network.cut(raft_id, other);
                Ok(())
            }
            14..=17 => {
                self.trace.say(self.now_us, || "the links are whole".to_owned());
                self.network.heal();
                Ok(())
            }
            18..=19 => {
                let until_us = self.now_us + self.rng.range(50_000, 3_000_000);
                self.trace.say(self.now_us, || format!("{raft_id} freezes for {} ms", (until_us - self.now_us) / 1000));
                self.instances.entry(raft_id).and_modify(|instance| instance.frozen_until_us = until_us);
                Ok(())
            }
            20 => {
                self.network.quality =
                    if self.rng.chance(1, 2) { Quality::GOOD } else { self.scenario.quality.clone() };
                Ok(())
            }
            21..=22 => {
                if let Some(process) = self.leader().and_then(|leader| self.process(leader)) {
                    // It may well be no voter, or the leader itself.
                    let _ = process.node.transfer_leader(other);
                }
                self.leader().map_or(Ok(()), |leader| self.drive(leader))
            }
            _ => {
                let candidates = if self.rng.chance(1, 2) { vec![raft_id, other] } else { ids };
                candidates.into_iter().try_for_each(|raft_id| self.campaign(raft_id))
            }
        }
    }

    fn campaign(&mut self, raft_id: RaftId) -> Verdict {
        if let Some(process) = self.process(raft_id) {
            // It may have no vote.
            let _ = process.node.campaign();
        }
        self.drive(raft_id)
    }

    /// The process is gone, with what its disk had not finished.
    fn crash(&mut self, raft_id: RaftId) -> Verdict {
        let now_us = self.now_us;
        let restart_us = now_us + if self.rng.chance(1, 3) { 1000 } else { self.rng.range(50_000, 4_000_000) };
        let unsynced = self.instances.get(&raft_id).map_or(0, |instance| instance.disk.unsynced());
        let survivors = if self.rng.chance(1, 2) { 0 } else { self.rng.range(0, unsynced + 1) };
        let Some(instance) = self.instances.get_mut(&raft_id) else { return Ok(()) };
        if instance.process.take().is_none() {
            return Ok(());
        }
        instance.disk.crash(survivors, now_us)?;
        self.report.crashes += 1;
        self.trace.say(now_us, || format!("{raft_id} crashes"));
        if self.wanted.contains(&raft_id) {
            self.schedule(restart_us, Event::Start { raft_id });
        }
        Ok(())
    }

    /// A process starts on what is left.
    pub fn start(&mut self, raft_id: RaftId) -> Verdict {
        let seed = self.rng.draw();
        let defect = self.options.defect;
        let Some(instance) = self.instances.get_mut(&raft_id) else { return Ok(()) };
        if instance.process.is_some() {
            return Ok(());
        }
        if defect == Some(Defect::LosesSyncedWrites) && instance.disk.older.is_none() {
            instance.disk.older = Some(Box::new(instance.disk.image.clone()));
        }
        if defect == Some(Defect::ForgetsVote) {
            instance.disk.image.forget_vote();
        }
        if defect == Some(Defect::ComesBackEmpty) && instance.starts > 2 {
            instance.disk = Disk::default();
        }
        instance.start(&self.scenario, seed)?;
        let (start, tick_us) = (instance.starts, instance.tick_us);
        let Some(process) = &mut instance.process else { return Ok(()) };
        if defect == Some(Defect::AppliesTwice) && start > 2 {
            process.machine.apply(process.node.applied(), b"again");
        }
        let (applied, digest) = (process.node.applied(), process.machine.digest());
        self.trace.say(self.now_us, || format!("{raft_id} starts at {applied}"));
        self.invariants.durability.restarts_with(raft_id, applied)?;
        self.invariants.agreement.starts_at(raft_id, applied, digest)?;
        self.schedule(self.now_us + tick_us, Event::Tick { raft_id, start });
        Ok(())
    }

    /// The faults are over: everything runs, everybody hears everybody, and the disks are quick.
    pub fn heal(&mut self) -> Verdict {
        self.network.heal();
        self.network.quality = Quality::GOOD;
        self.scenario.disk_latency_max_us = self.scenario.disk_latency_max_us.min(2_000);
        self.scenario.disk_stall_permille = 0;
        let ids: Vec<RaftId> = self.instances.keys().copied().collect();
        if self.options.defect == Some(Defect::ClockStops) {
            ids.iter().try_for_each(|raft_id| self.crash(*raft_id))?;
        }
        for raft_id in ids {
            self.instances.entry(raft_id).and_modify(|instance| instance.frozen_until_us = 0);
            self.start(raft_id)?;
        }
        Ok(())
    }
}
