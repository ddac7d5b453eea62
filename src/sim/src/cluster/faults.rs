//! What goes wrong in the first phase of a run.

use super::node::{Node, Run};
use super::raft::Input;
use super::world::{Event, World};
use crate::invariants::Verdict;
use crate::network::Quality;
use consensus::Role;

impl World {
    /// Something happens, and the promises hear of it.
    pub fn fault(&mut self) -> Verdict {
        self.go_wrong()?;
        self.promises.accuracy.links(self.network.is_fine(), self.now_us);
        Ok(())
    }

    /// One thing goes wrong, or something that went wrong is over.
    fn go_wrong(&mut self) -> Verdict {
        let numbers: Vec<u64> = self.nodes.keys().copied().collect();
        let Some(number) = self.rng.pick(&numbers).copied() else { return Ok(()) };
        let Some(other) = self.rng.pick(&numbers).copied() else { return Ok(()) };
        match self.rng.range(0, 24) {
            0..=1 => self.end(number),
            2..=4 => self.master_or(number).map_or(Ok(()), |master| self.end(master)),
            5 => self.leader().map_or(Ok(()), |leader| self.end(leader)),
            6 => {
                let busiest = numbers.iter().max_by_key(|number| self.nodes[number].disk.unsynced());
                busiest.copied().map_or(Ok(()), |number| self.end(number))
            }
            7 => numbers.iter().try_for_each(|number| self.end(*number)),
            8..=9 => {
                let (side, rest): (Vec<u64>, Vec<u64>) = numbers.iter().partition(|_| self.rng.chance(1, 2));
                self.trace.say(self.now_us, || format!("{side:?} are cut off from {rest:?}"));
                self.network.partition(&side, &rest);
                Ok(())
            }
            10..=12 => {
                let Some(master) = self.master_or(number) else { return Ok(()) };
                let rest: Vec<u64> = numbers.into_iter().filter(|other| *other != master).collect();
                self.trace.say(self.now_us, || format!("the master i{master} is cut off"));
                match self.rng.chance(1, 3) {
                    true => rest.into_iter().for_each(|other| self.network.cut(master, other)),
                    false => self.network.partition(&[master], &rest),
                }
                Ok(())
            }
            13 => {
                self.trace.say(self.now_us, || format!("nothing gets from i{number} to i{other}"));
                self.network.cut(number, other);
                Ok(())
            }
            14..=18 => {
                self.trace.say(self.now_us, || "the links are whole".to_owned());
                self.network.heal();
                Ok(())
            }
            19..=21 => {
                let frozen = if self.rng.chance(1, 2) { self.master_or(number) } else { Some(number) };
                let Some(frozen) = frozen else { return Ok(()) };
                let until_us = self.now_us + self.rng.range(50_000, 4_000_000);
                self.trace.say(self.now_us, || format!("i{frozen} freezes for {} ms", (until_us - self.now_us) / 1000));
                self.nodes.entry(frozen).and_modify(|node| node.frozen_until_us = until_us);
                self.promises.accuracy.disturbed(frozen, until_us);
                Ok(())
            }
            22 => {
                self.network.quality = if self.rng.chance(1, 2) { Quality::GOOD } else { self.terms.quality.clone() };
                Ok(())
            }
            _ => self.put(number, Input::Campaign),
        }
    }

    /// Some master, or else this machine.
    fn master_or(&mut self, number: u64) -> Option<u64> {
        let now_us = self.now_us;
        let serves = |node: &&Node| node.process().is_some_and(|process| process.serves(node.clock.at(now_us)));
        let masters: Vec<u64> = self.nodes.values().filter(serves).map(|node| node.number).collect();
        self.rng.pick(&masters).copied().or(Some(number))
    }

    /// The instance that leads in the highest term.
    pub fn leader(&self) -> Option<u64> {
        let leads = |node: &&Node| node.process().is_some_and(|process| process.raft.role() == Role::Leader);
        let leaders = self.nodes.values().filter(leads);
        leaders.max_by_key(|node| node.process().map(|process| process.raft.term())).map(|node| node.number)
    }

    /// The process is gone, with what its disk had not finished; it is started again some time later.
    pub fn end(&mut self, number: u64) -> Verdict {
        let now_us = self.now_us;
        let restart_us = now_us + if self.rng.chance(1, 3) { 1_000 } else { self.rng.range(50_000, 5_000_000) };
        let unsynced = self.nodes.get(&number).map_or(0, |node| node.disk.unsynced());
        let survivors = if self.rng.chance(1, 2) { 0 } else { self.rng.range(0, unsynced + 1) };
        let Some(node) = self.nodes.get_mut(&number).filter(|node| node.is_up()) else { return Ok(()) };
        node.run = Run::Down;
        node.disk.crash(survivors, now_us)?;
        self.report.crashes += 1;
        self.trace.say(now_us, || format!("i{number} crashes"));
        self.queue.schedule(restart_us, Event::Start { number });
        Ok(())
    }

    /// The faults are over: everything runs, everybody hears everybody, and the disks are quick.
    pub fn heal(&mut self) -> Verdict {
        self.trace.say(self.now_us, || "the faults are over".to_owned());
        self.network.heal();
        self.network.quality = Quality::GOOD;
        self.promises.accuracy.links(true, self.now_us);
        self.terms.disk_latency_max_us = self.terms.disk_latency_max_us.min(2_000);
        self.terms.disk_stall_permille = 0;
        self.terms.clients_every_us = 20_000;
        let numbers: Vec<u64> = self.nodes.keys().copied().collect();
        for number in numbers {
            self.nodes.entry(number).and_modify(|node| node.frozen_until_us = 0);
            self.start(number)?;
        }
        Ok(())
    }
}
