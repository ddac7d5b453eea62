//! The node: everything that may happen to it from outside. What it wants done comes out in `handout.rs`.

use crate::config::Config;
use crate::handout::Outstanding;
use crate::log::Log;
use crate::logger::logger;
use crate::membership::Membership;
use crate::message::{self, Receiver};
use crate::reads::Reads;
use crate::ready::{Committed, Position};
use crate::rng::Rng;
use crate::status::{Follower, Role, Status};
use model::{Code, Error, RaftId, Result};
use prost::Message as _;
use raft::eraftpb::{ConfChangeV2, Message, MessageType};
use raft::{ProgressState, RawNode, SnapshotStatus, StateRole};
use std::collections::{BTreeMap, VecDeque};

/// How long one voter lets another one try first, when the leader is gone.
const TICKS_A_TURN: usize = 2;

/// One Raft node.
///
/// Should a call panic, which only a defect of ours or of raft-rs can bring about, the node refuses every later call
/// with `Internal`: what a half-done step leaves behind must not vote.
pub struct Node {
    pub(crate) config: Config,
    pub(crate) raw: RawNode<Log>,
    pub(crate) reads: Reads,
    rng: Rng,
    /// After how many silent ticks this node stands for election; drawn anew each time it does.
    election_timeout_ticks: u32,
    /// The members as of the last entry handed out.
    pub(crate) membership: Membership,
    /// The last entry handed out for applying.
    pub(crate) handed_out: u64,
    /// What the driver reported durable: the last entry applied, and the members as of then.
    pub(crate) applied: u64,
    pub(crate) applied_membership: Membership,
    /// What was handed out and is not reported yet, oldest first.
    pub(crate) outstanding: VecDeque<Outstanding>,
    /// The last `Ready` that brings a new term or vote to the disk, until it is there.
    pub(crate) vote_underway: Option<u64>,
    /// The log in memory was compacted, the one on disk was not told yet.
    pub(crate) is_compaction_due: bool,
    /// Followers that a snapshot was sent to: how many ticks they have left to report on it.
    pub(crate) snapshots: BTreeMap<RaftId, u32>,
    offer_ticks_left: u32,
    /// The driver was told that a snapshot is wanted; it is told again with the next tick.
    pub(crate) is_snapshot_announced: bool,
    pub(crate) is_broken: bool,
}

impl Node {
    /// A node on this log, as a follower. Errors: `Config`.
    pub fn new(config: Config, log: Log) -> Result<Self> {
        config.check()?;
        let (applied, membership) = (log.applied(), log.membership.clone());
        let raw = RawNode::new(&config.to_raft(applied), log, &logger(&config))
            .map_err(|error| Error::new(Code::Config, format!("raft: {error}")))?;
        let mut rng = Rng::new(config.seed);
        let reads = Reads::new(&config, &mut rng);
        let mut node = Self {
            raw,
            reads,
            rng,
            election_timeout_ticks: 0,
            handed_out: applied,
            applied,
            applied_membership: membership.clone(),
            membership,
            outstanding: VecDeque::new(),
            vote_underway: None,
            is_compaction_due: false,
            snapshots: BTreeMap::new(),
            offer_ticks_left: 0,
            is_snapshot_announced: false,
            is_broken: false,
            config,
        };
        node.draw_election_timeout();
        Ok(node)
    }

    /// Takes a message of another node. Errors: `Argument` for what no honest node sends here, `Corrupted` when the leader
    /// counts on entries that this node lost, or has lost some that are committed here; the node is as it was.
    pub fn step(&mut self, bytes: &[u8]) -> Result<()> {
        self.enter(|node| {
            let message = message::decode(bytes, node.receiver())?;
            node.check_committed(&message)?;
            let is_vote = matches!(
                message.get_msg_type(),
                MessageType::MsgTimeoutNow
                    | MessageType::MsgRequestVoteResponse
                    | MessageType::MsgRequestPreVoteResponse
            );
            // raft-rs lets nobody lead whose log is not on disk, and panics rather than wait.
            if is_vote && !node.is_log_on_disk() {
                return Ok(());
            }
            match node.raw.step(message) {
                Ok(()) | Err(raft::Error::StepPeerNotFound) => Ok(()),
                Err(error) => Err(Error::internal(format!("raft: {error}"))),
            }
        })
    }

    /// One tick of the driver's clock has passed.
    pub fn tick(&mut self) -> Result<()> {
        self.enter(|node| {
            if node.reads.tick(node.config.heartbeat_ticks) {
                node.ask_reads();
            }
            node.tick_snapshots();
            node.raw.tick();
            let is_due = node.raw.raft.state != StateRole::Leader
                && node.raw.raft.promotable()
                && node.raw.raft.election_elapsed >= node.election_timeout_ticks as usize;
            if is_due && node.is_log_on_disk() {
                node.stand_for_election()?;
            }
            Ok(())
        })
    }

    /// Appends an entry to the leader's log. It is done when an entry with this very position is committed, and lost when
    /// another term's entry is committed at its index. `context` comes back with the entry, on every node. Errors:
    /// `NoLeader` when this node does not lead or has no majority behind it, `LimitExceeded`, `Argument`: in all of
    /// them nothing was appended.
    pub fn propose(&mut self, data: Vec<u8>, context: Vec<u8>) -> Result<Position> {
        self.enter(|node| {
            node.check_leader()?;
            let bytes = data.len() + context.len();
            if bytes == 0 {
                return Err(Error::new(Code::Argument, "a proposal can not be empty"));
            }
            if bytes > node.config.entry_bytes_max {
                let limit = node.config.entry_bytes_max;
                return Err(Error::new(
                    Code::LimitExceeded,
                    format!("the change has {bytes} bytes, the limit is {limit}"),
                ));
            }
            node.raw.propose(context, data).map_err(|_| no_majority(&node.config))?;
            Ok(node.last_position())
        })
    }

    /// Appends a change to exactly these voters and learners, None when they are the members already. A change of more
    /// than one member goes through a joint configuration and the leader ends that by itself. Errors: as `propose`,
    /// and `Conflict` while an earlier change may still be under way.
    pub fn propose_members(
        &mut self,
        voters: &[RaftId],
        learners: &[RaftId],
        context: Vec<u8>,
    ) -> Result<Option<Position>> {
        self.enter(|node| {
            node.check_leader()?;
            if node.membership.is_joint() || node.raw.raft.has_pending_conf() {
                return Err(Error::new(Code::Conflict, "another change of the Raft members is under way"));
            }
            let change: ConfChangeV2 = node.membership.changes_to(voters, learners)?;
            if change.changes.is_empty() {
                return Ok(None);
            }
            node.raw.propose_conf_change(context, change).map_err(|_| no_majority(&node.config))?;
            Ok(Some(node.last_position()))
        })
    }

    /// Asks for a moment at which the state holds everything that was committed anywhere before this call. `context`, the
    /// caller's own name for the read, comes back in `Ready::reads`; a read without a majority waits until there is one.
    /// Errors: `LimitExceeded`.
    pub fn read_index(&mut self, context: u64) -> Result<()> {
        self.enter(|node| node.reads.add(context))
    }

    /// Stands for election now. Errors: `NotReady` when this node has no vote or its log is not on disk yet.
    pub fn campaign(&mut self) -> Result<()> {
        self.enter(|node| {
            if node.raw.raft.state == StateRole::Leader {
                return Ok(());
            }
            if !node.raw.raft.promotable() || !node.is_log_on_disk() {
                return Err(Error::new(Code::NotReady, "this instance can not stand for election now"));
            }
            node.stand_for_election()
        })
    }

    /// The leader's process has ended, as the driver knows: this node does not wait for its silence to last. It gives its
    /// vote to others from now on, and stands for election itself in a few ticks, one voter after the other.
    pub fn leader_is_gone(&mut self, leader: RaftId) -> Result<()> {
        self.enter(|node| {
            if node.raw.raft.state != StateRole::Follower || node.raw.raft.leader_id != leader {
                return Ok(());
            }
            node.raw.raft.leader_id = raft::INVALID_ID;
            let others = node.membership.voters.iter().filter(|id| **id != leader && **id < node.config.raft_id);
            let turn = 1 + TICKS_A_TURN * others.count();
            node.election_timeout_ticks = (node.raw.raft.election_elapsed + turn) as u32;
            Ok(())
        })
    }

    /// Hands the leadership to another voter, as soon as that one has the whole log. Proposals are refused meanwhile; after
    /// an election timeout the attempt is over. Errors: `NoLeader`, `Argument`.
    pub fn transfer_leader(&mut self, to: RaftId) -> Result<()> {
        self.enter(|node| {
            node.check_leader()?;
            if to == node.config.raft_id || !node.membership.voters.contains(&to) {
                return Err(Error::new(Code::Argument, format!("{to} is not another voter")));
            }
            node.raw.transfer_leader(to);
            Ok(())
        })
    }

    /// Messages to this node were lost: the leader stops pipelining and looks where their logs meet.
    pub fn unreachable(&mut self, raft_id: RaftId) -> Result<()> {
        self.enter(|node| {
            node.raw.report_unreachable(raft_id);
            Ok(())
        })
    }

    /// The follower has been sent all of its snapshot.
    pub fn snapshot_finished(&mut self, raft_id: RaftId) -> Result<()> {
        self.report_snapshot(raft_id, SnapshotStatus::Finish)
    }

    /// The snapshot did not get to the follower; it will be sent another.
    pub fn snapshot_failed(&mut self, raft_id: RaftId) -> Result<()> {
        self.report_snapshot(raft_id, SnapshotStatus::Failure)
    }

    /// Answers `Ready::snapshot_wanted`: `data` is the state with exactly the entries up to `index` applied, which must be
    /// `Status::applied`. It is kept for the followers that need it, for `snapshot_ticks`. Errors: `Argument`.
    pub fn provide_snapshot(&mut self, index: u64, data: Vec<u8>) -> Result<()> {
        self.enter(|node| {
            let term = node.raw.store().term_at(index).filter(|_| index == node.applied && index > 0);
            let Some(term) = term else {
                let applied = node.applied;
                let text = format!("the snapshot is of entry {index}, but {applied} are applied");
                return Err(Error::new(Code::Argument, text));
            };
            let membership = node.applied_membership.clone();
            node.raw.mut_store().offer(Position { index, term }, &membership, data);
            node.offer_ticks_left = node.config.snapshot_ticks;
            node.is_snapshot_announced = false;
            for raft_id in node.raw.mut_store().take_wanting() {
                let is_follower = node.raw.raft.prs().get(raft_id).is_some();
                if node.raw.raft.state == StateRole::Leader && is_follower {
                    node.raw.raft.send_append(raft_id);
                }
            }
            Ok(())
        })
    }

    /// Forgets the entries up to and with `index`, in memory now and on disk with the next `Ready`. A follower that lacks
    /// one of them will need a snapshot. Errors: `Argument` when they are not all applied.
    pub fn compact(&mut self, index: u64) -> Result<()> {
        self.enter(|node| {
            if index > node.applied {
                let applied = node.applied;
                let text = format!("entries up to {index} can not be forgotten, {applied} are applied");
                return Err(Error::new(Code::Argument, text));
            }
            node.is_compaction_due |= node.raw.mut_store().compact(index);
            Ok(())
        })
    }

    /// The entries behind those that are applied, for who has to make do with this log: nobody knows whether they are
    /// committed.
    pub fn rest(&self) -> Vec<Committed> {
        self.raw.store().behind(self.applied)
    }

    pub fn status(&self) -> Status {
        let raft = &self.raw.raft;
        let is_leader = raft.state == StateRole::Leader;
        let others = raft.prs().iter().filter(|(id, _)| is_leader && **id != self.config.raft_id);
        let mut followers: Vec<Follower> = others
            .map(|(id, progress)| Follower {
                raft_id: *id,
                matched: progress.matched,
                state: progress.state.into(),
                is_active: progress.recent_active,
            })
            .collect();
        followers.sort_by_key(|follower| follower.raft_id);
        Status {
            raft_id: self.config.raft_id,
            role: self.role(),
            term: raft.term,
            leader: self.leader(),
            commit: raft.raft_log.committed,
            applied: self.applied,
            first_index: self.raw.store().compacted().index + 1,
            last_index: raft.raft_log.last_index(),
            last_term: raft.raft_log.last_term(),
            log_bytes: self.raw.store().bytes(),
            membership: self.membership.clone(),
            followers,
        }
    }

    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// The last entry known to be on a majority.
    pub fn commit(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    /// The last entry whose effects the driver has reported durable.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    pub fn role(&self) -> Role {
        self.raw.raft.state.into()
    }

    pub fn leader(&self) -> Option<RaftId> {
        Some(self.raw.raft.leader_id).filter(|id| *id != raft::INVALID_ID)
    }

    /// The position of an entry that is still in the log, for whoever waits for one.
    pub fn position(&self, index: u64) -> Option<Position> {
        self.raw.store().term_at(index).map(|term| Position { index, term })
    }

    /// Runs a step that must be done wholly or not at all.
    pub(crate) fn enter<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.is_broken {
            return Err(Error::internal("Raft has failed in this process").with_hint("restart the instance"));
        }
        self.is_broken = true;
        let result = step(self);
        self.is_broken = false;
        result
    }

    pub(crate) fn ask_reads(&mut self) {
        let ticket = self.reads.ask();
        self.raw.read_index(ticket.to_vec());
    }

    /// The leader has the entries that are committed here, if it has not lost the end of its log. Those that are compacted
    /// are not looked at, nor those that a snapshot replaces which is not on disk yet.
    fn check_committed(&self, message: &Message) -> Result<()> {
        if message.get_msg_type() != MessageType::MsgAppend || message.term < self.raw.raft.term {
            return Ok(());
        }
        let log = &self.raw.raft.raft_log;
        let differs = |index: u64, term: u64| {
            let here = if index <= log.committed { log.term(index).unwrap_or(0) } else { 0 };
            here > 0 && here != term
        };
        let before = (message.index, message.log_term);
        let entries = message.entries.iter().map(|entry| (entry.index, entry.term));
        match std::iter::once(before).chain(entries).find(|(index, term)| differs(*index, *term)) {
            None => Ok(()),
            Some((index, _)) => Err(Error::new(
                Code::Corrupted,
                format!(
                    "the leader has another entry {index} than the one that is committed here: it lost its log's end"
                ),
            )),
        }
    }

    fn receiver(&self) -> Receiver {
        Receiver {
            raft_id: self.config.raft_id,
            term: self.raw.raft.term,
            last_index: self.raw.raft.raft_log.last_index(),
            is_leader: self.raw.raft.state == StateRole::Leader,
        }
    }

    fn is_log_on_disk(&self) -> bool {
        let log = &self.raw.raft.raft_log;
        log.persisted == log.last_index() && log.unstable_snapshot().is_none()
    }

    fn stand_for_election(&mut self) -> Result<()> {
        self.draw_election_timeout();
        self.raw.raft.election_elapsed = 0;
        self.raw.campaign().map_err(|error| Error::internal(format!("raft: {error}")))
    }

    fn draw_election_timeout(&mut self) {
        let ticks = u64::from(self.config.election_ticks);
        self.election_timeout_ticks = self.rng.range(ticks, 2 * ticks) as u32;
    }

    fn check_leader(&self) -> Result<()> {
        let refused = |text: String| Err(Error::new(Code::NoLeader, text));
        match (self.raw.raft.state == StateRole::Leader, self.leader()) {
            (true, _) if self.raw.raft.lead_transferee.is_some() => {
                refused("the Raft leadership is being handed over".into())
            }
            (true, _) => Ok(()),
            (false, Some(leader)) => refused(format!("this instance does not lead Raft, {leader} does")),
            (false, None) => refused("Raft has no leader just now".into()),
        }
    }

    fn last_position(&self) -> Position {
        Position { index: self.raw.raft.raft_log.last_index(), term: self.raw.raft.term }
    }

    fn report_snapshot(&mut self, raft_id: RaftId, status: SnapshotStatus) -> Result<()> {
        self.enter(|node| {
            node.snapshots.remove(&raft_id);
            node.raw.report_snapshot(raft_id, status);
            Ok(())
        })
    }

    /// A snapshot that is kept for ever only takes memory, one that got lost is waited for for ever, and a request for one
    /// that was not answered must be made again.
    fn tick_snapshots(&mut self) {
        if self.offer_ticks_left > 0 {
            self.offer_ticks_left -= 1;
            if self.offer_ticks_left == 0 {
                self.raw.mut_store().withdraw_offer();
            }
        }
        let wanting = self.raw.mut_store().take_wanting();
        let is_leader = self.raw.raft.state == StateRole::Leader;
        let progress = self.raw.raft.prs();
        let still = wanting.into_iter().filter(|id| is_leader && progress.get(*id).is_some()).collect();
        self.raw.store().want(still);
        self.is_snapshot_announced = false;
        self.fail_late_snapshots();
    }

    fn fail_late_snapshots(&mut self) {
        let progress = self.raw.raft.prs();
        let is_on_its_way = |id| progress.get(id).is_some_and(|progress| progress.state == ProgressState::Snapshot);
        self.snapshots.retain(|id, _| is_on_its_way(*id));
        self.snapshots.values_mut().for_each(|ticks_left| *ticks_left = ticks_left.saturating_sub(1));
        let late: Vec<RaftId> =
            self.snapshots.extract_if(.., |_, ticks_left| *ticks_left == 0).map(|late| late.0).collect();
        for raft_id in late {
            self.raw.report_snapshot(raft_id, SnapshotStatus::Failure);
        }
    }
}

/// The bytes of a message that raft-rs wants sent.
pub(crate) fn encode(message: &Message) -> Vec<u8> {
    message.encode_to_vec()
}

fn no_majority(config: &Config) -> Error {
    let limit = config.uncommitted_bytes_max;
    Error::new(Code::NoLeader, format!("more than {limit} bytes of changes already wait for a majority"))
}
