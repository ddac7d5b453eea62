//! Golden scripts: conversations between nodes, in `tests/scripts`. `UPDATE_GOLDENFILES=1` writes them anew.

mod common;

use common::{Cluster, Disk};
use consensus::Role;
use goldenscript::{Command, Context, Runner};
use model::RaftId;
use std::error::Error;
use std::fmt::Write as _;

struct Script {
    cluster: Cluster,
}

type Answer = Result<(), Box<dyn Error>>;

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let ids = |text: &str| {
            text.split('.').filter(|id| !id.is_empty()).map(str::parse).collect::<Result<Vec<RaftId>, _>>()
        };
        let voters = ids(args.take_key("voters").unwrap_or(""))?;
        let learners = ids(args.take_key("learners").unwrap_or(""))?;
        let context = args.take_key("context").unwrap_or("").as_bytes().to_vec();
        let words: Vec<&str> = std::iter::from_fn(|| args.next_pos()).collect();
        args.reject_next()?;
        let id =
            |at: usize| -> Result<RaftId, Box<dyn Error>> { Ok(words.get(at).ok_or("a number is missing")?.parse()?) };
        match command.name.as_str() {
            "cluster" => self.found(&voters, &learners)?,
            "bootstrap" => self.cluster.bootstrap(id(0)?),
            "join" => self.cluster.start(id(0)?, Disk::default()),
            "restart" => self.restart(id(0)?),
            "crash" => drop(self.cluster.instances.remove(&id(0)?)),
            "lead" => self.lead(id(0)?)?,
            "campaign" => self.cluster.node(id(0)?).campaign()?,
            "tick" => self.tick(id(0)?, id(1).unwrap_or(1))?,
            "pass" => {
                for _ in 0..id(0)? {
                    self.cluster.instances.values_mut().try_for_each(|instance| instance.node.tick())?;
                    self.cluster.stabilize();
                }
            }
            "propose" => {
                let position = self.cluster.node(id(0)?).propose(words[1].as_bytes().to_vec(), context)?;
                writeln!(self.cluster.out, "{}@{}", position.index, position.term)?;
            }
            "members" => {
                if self.cluster.node(id(0)?).propose_members(&voters, &learners, context)?.is_none() {
                    writeln!(self.cluster.out, "nothing to change")?;
                }
            }
            "read" => self.cluster.node(id(0)?).read_index(id(1)?)?,
            "transfer" => self.cluster.node(id(0)?).transfer_leader(id(1)?)?,
            "unreachable" => self.cluster.node(id(0)?).unreachable(id(1)?)?,
            "snapshot_finished" => self.cluster.node(id(0)?).snapshot_finished(id(1)?)?,
            "snapshot_failed" => self.cluster.node(id(0)?).snapshot_failed(id(1)?)?,
            "compact" => self.cluster.node(id(0)?).compact(id(1)?)?,
            "ready" => drop(self.cluster.ready(id(0)?)),
            "persist" => drop(self.cluster.persist(id(0)?)),
            "process" => {
                let raft_id = id(0)?;
                while self.cluster.ready(raft_id) || self.cluster.persist(raft_id) {}
            }
            "deliver" => while self.cluster.deliver() {},
            "drop" => self.cluster.queue.clear(),
            "isolate" => self.isolate(id(0)?),
            "heal" => self.cluster.isolated.clear(),
            "stabilize" => self.cluster.stabilize(),
            "status" => self.status()?,
            "log" => self.log(id(0)?)?,
            "state" => self.state()?,
            other => return Err(format!("unknown verb {other}").into()),
        }
        Ok(std::mem::take(&mut self.cluster.out))
    }
}

impl Script {
    /// A cluster as it comes to be: the first instance bootstraps, the others join.
    fn found(&mut self, voters: &[RaftId], learners: &[RaftId]) -> Answer {
        self.cluster.bootstrap(voters[0]);
        for raft_id in voters[1..].iter().chain(learners) {
            self.cluster.start(*raft_id, Disk::default());
        }
        self.cluster.node(voters[0]).campaign()?;
        self.cluster.stabilize();
        self.cluster.node(voters[0]).propose_members(voters, learners, Vec::new())?;
        self.cluster.stabilize();
        Ok(())
    }

    /// Makes a node the leader of those it reaches, by time and by hand-over.
    fn lead(&mut self, raft_id: RaftId) -> Answer {
        for _ in 0..100 {
            let ids: Vec<RaftId> = self.cluster.instances.keys().copied().collect();
            let reached = ids.into_iter().filter(|id| !self.cluster.isolated.contains(id));
            let reached: Vec<RaftId> = reached.collect();
            let leader = reached.iter().copied().find(|id| self.cluster.node(*id).role() == Role::Leader);
            match leader {
                Some(leader) if leader == raft_id => return Ok(()),
                Some(leader) => drop(self.cluster.node(leader).transfer_leader(raft_id)),
                None => self.cluster.node(raft_id).campaign()?,
            }
            self.cluster.stabilize();
            for id in reached {
                self.cluster.node(id).tick()?;
            }
        }
        Err(format!("{raft_id} does not come to lead").into())
    }

    fn restart(&mut self, raft_id: RaftId) {
        let disk = self.cluster.instances[&raft_id].disk.clone();
        self.cluster.start(raft_id, disk);
    }

    fn tick(&mut self, raft_id: RaftId, times: u64) -> Answer {
        for _ in 0..times {
            self.cluster.node(raft_id).tick()?;
        }
        Ok(())
    }

    fn isolate(&mut self, raft_id: RaftId) {
        self.cluster.isolated.insert(raft_id);
        self.cluster.queue.retain(|(from, message)| *from != raft_id && message.to != raft_id);
    }

    fn status(&mut self) -> Answer {
        for (raft_id, instance) in &self.cluster.instances {
            let status = instance.node.status();
            let leader = status.leader.map_or("none".to_owned(), |leader| leader.to_string());
            writeln!(
                self.cluster.out,
                "{raft_id} {:?} term={} leader={leader} log={}..{} commit={} applied={} {}",
                status.role,
                status.term,
                status.first_index,
                status.last_index,
                status.commit,
                status.applied,
                status.membership
            )?;
            for follower in status.followers {
                let silent = if follower.is_active { "" } else { " silent" };
                writeln!(
                    self.cluster.out,
                    "  {} {:?} matched={}{silent}",
                    follower.raft_id, follower.state, follower.matched
                )?;
            }
        }
        Ok(())
    }

    fn log(&mut self, raft_id: RaftId) -> Answer {
        let instance = &self.cluster.instances[&raft_id];
        let rows: Vec<String> = instance.disk.rows.values().map(|row| format!("{}@{}", row.index, row.term)).collect();
        writeln!(self.cluster.out, "{raft_id}: {}", rows.join(" "))?;
        Ok(())
    }

    fn state(&mut self) -> Answer {
        for (raft_id, instance) in &self.cluster.instances {
            writeln!(self.cluster.out, "{raft_id}: {}", instance.disk.applied.trim_end())?;
        }
        Ok(())
    }
}

fn run(name: &str) {
    let path = format!("{}/tests/scripts/{name}", env!("CARGO_MANIFEST_DIR"));
    goldenscript::run(&mut Script { cluster: Cluster::default() }, path).expect("the script runs");
}

macro_rules! scripts {
    ($($name:ident)*) => { $(#[test] fn $name() { run(stringify!($name)); })* };
}

scripts! { bootstrap election replication divergence members snapshot reads compaction restart transfer async_disk }
