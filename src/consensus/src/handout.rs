//! The node's way out: what it wants done, as a `Ready`, and the report that it was.

use crate::codec;
use crate::log::{committed, row};
use crate::membership::Membership;
use crate::message;
use crate::node::{Node, encode};
use crate::ready::{Outgoing, Persist, Position, Ready, Snapshot, StateKey};
use model::{Code, Error, Result};
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use raft::{INVALID_ID, StateRole};

/// What becomes true of a node when a `Ready` is durable.
#[derive(Debug)]
pub(crate) struct Outstanding {
    number: u64,
    applied: u64,
    membership: Membership,
    is_snapshot: bool,
}

impl Node {
    /// Whether `ready` has something to say.
    pub fn has_ready(&self) -> bool {
        self.raw.has_ready()
            || self.is_compaction_due
            || self.is_snapshot_news()
            || self.reads.is_question_due()
            || self.reads.is_servable(self.handed_out)
    }

    /// What to do now; see `Ready` for the order. The node goes on as if it were done, except that it counts nothing as
    /// written before `persisted`. Errors: `Corrupted`, and then the node is done for.
    pub fn ready(&mut self) -> Result<Ready> {
        let ready = self.enter(Self::hand_out);
        self.is_broken |= ready.is_err();
        ready
    }

    /// The `Ready` with this number, and all before it, are durable. Errors: `Argument` when there is no such.
    pub fn persisted(&mut self, number: u64) -> Result<()> {
        self.enter(|node| {
            if !node.outstanding.iter().any(|outstanding| outstanding.number == number) {
                return Err(Error::new(Code::Argument, format!("no Ready with the number {number} is under way")));
            }
            node.raw.on_persist_ready(number);
            node.vote_underway = node.vote_underway.filter(|vote| *vote > number);
            while let Some(done) = node.outstanding.pop_front_if(|outstanding| outstanding.number <= number) {
                node.applied = done.applied;
                node.applied_membership = done.membership;
                if done.is_snapshot {
                    node.raw.advance_apply_to(done.applied);
                }
            }
            Ok(())
        })
    }

    fn hand_out(&mut self) -> Result<Ready> {
        if self.reads.is_question_due() {
            self.ask_reads();
        }
        let mut raw = self.raw.ready();
        let mut ready = Ready { number: raw.number(), ..Ready::default() };
        if let Some(soft) = raw.ss() {
            let leader = Some(soft.leader_id).filter(|id| *id != INVALID_ID);
            ready.leadership = Some((leader, soft.raft_state.into(), self.raw.raft.term));
        }
        let mut persist = Persist::default();
        let snapshot = raw.snapshot();
        if !snapshot.is_empty() {
            let metadata = snapshot.get_metadata();
            let position = Position { index: metadata.index, term: metadata.term };
            let membership = Membership::from(metadata.get_conf_state());
            let data = snapshot.data.clone();
            self.install(position, membership, &mut persist);
            ready.snapshot = Some(Snapshot { position, data });
        }
        self.append(raw.take_entries(), &mut persist);
        if let Some(hard_state) = raw.hs() {
            let before = std::mem::replace(&mut self.raw.mut_store().hard_state, hard_state.clone());
            if (before.term, before.vote) != (hard_state.term, hard_state.vote) {
                self.vote_underway = Some(ready.number);
            }
            persist.state.push((StateKey::HardState, codec::encode_hard_state(hard_state)));
        }
        let entries = raw.take_committed_entries();
        ready.messages = self.outgoing(raw.take_messages());
        ready.messages_after = self.outgoing(raw.take_persisted_messages());
        // raft-rs takes it that whoever leads has its vote on disk, for the others would not have answered before. The only
        // voter asks nobody: it must not be heard in a term that a crash could make it begin again.
        if self.vote_underway.is_some() {
            ready.messages_after.splice(..0, std::mem::take(&mut ready.messages));
        }
        for answer in raw.take_read_states() {
            self.reads.answer(&answer.request_ctx, answer.index);
        }
        // All of it can be read from the log in memory now, which is what raft-rs asks for here.
        self.raw.advance_append_async(raw);

        if ready.snapshot.is_some() || self.apply(&entries)? {
            ready.membership = Some(self.membership.clone());
        }
        self.persist_rest(ready.membership.is_some(), ready.snapshot.is_some() || !entries.is_empty(), &mut persist);
        ready.committed = entries.into_iter().map(committed).collect();
        ready.reads = self.reads.take_servable(self.handed_out);
        ready.snapshot_wanted = self.is_snapshot_news();
        self.is_snapshot_announced |= ready.snapshot_wanted;
        self.outstanding.push_back(Outstanding {
            number: ready.number,
            applied: self.handed_out,
            membership: self.membership.clone(),
            is_snapshot: ready.snapshot.is_some(),
        });
        ready.persist = persist;
        Ok(ready)
    }

    fn is_snapshot_news(&self) -> bool {
        self.raw.store().is_snapshot_wanted() && !self.is_snapshot_announced
    }

    /// Starts anew behind a snapshot.
    fn install(&mut self, position: Position, membership: Membership, persist: &mut Persist) {
        self.raw.mut_store().install(position);
        self.membership = membership;
        self.handed_out = position.index;
        self.is_compaction_due = true;
        persist.truncate_from = Some(0);
    }

    fn append(&mut self, entries: Vec<Entry>, persist: &mut Persist) {
        let Some(first) = entries.first() else { return };
        let log = self.raw.mut_store();
        if persist.truncate_from.is_none() && first.index <= log.last().index {
            persist.truncate_from = Some(first.index);
        }
        persist.entries = entries.iter().map(row).collect();
        log.append(entries);
    }

    /// Takes note of committed entries: those that change the members take effect here. True when one did.
    fn apply(&mut self, entries: &[Entry]) -> Result<bool> {
        let Some(last) = entries.last() else { return Ok(false) };
        let before = self.membership.clone();
        for entry in entries.iter().filter(|entry| entry.entry_type == EntryType::EntryConfChangeV2 as i32) {
            let change = message::decode_change(&entry.data).map_err(|error| codec::corrupted(&error.message))?;
            match self.raw.apply_conf_change(&change) {
                Ok(state) => self.membership = Membership::from(&state),
                // The same on every node, for it follows from the entries before: the change is void.
                Err(error) => log::warn!("a change of the Raft members is void: {error}"),
            }
        }
        self.handed_out = last.index;
        let log_end = self.raw.raft.raft_log.last_index();
        self.raw.advance_apply_to(last.index);
        // The leader has appended the end of a joint configuration; raft-rs would tell nobody before the next heartbeat.
        if self.raw.raft.raft_log.last_index() > log_end {
            self.raw.raft.bcast_append();
        }
        self.step_down_if_removed();
        Ok(before != self.membership)
    }

    /// raft-rs leaves a leader in its place that is no voter any more.
    fn step_down_if_removed(&mut self) {
        let raft = &mut self.raw.raft;
        if raft.state == StateRole::Leader && !self.membership.is_voter(self.config.raft_id) {
            let term = raft.term;
            raft.become_follower(term, INVALID_ID);
        }
    }

    /// What stands beside the log.
    fn persist_rest(&mut self, is_membership_new: bool, is_applied_new: bool, persist: &mut Persist) {
        if is_membership_new {
            persist.state.push((StateKey::Membership, codec::encode_membership(&self.membership)));
        }
        if is_applied_new {
            persist.state.push((StateKey::Applied, codec::encode_applied(self.handed_out)));
        }
        if std::mem::take(&mut self.is_compaction_due) {
            let compacted = self.raw.store().compacted();
            persist.compact_to = Some(compacted.index);
            persist.state.push((StateKey::Compacted, codec::encode_compacted(compacted)));
        }
    }

    /// Has an append name the entry before its entries. raft-rs adds entries to an append that was not taken yet; to an empty
    /// one it adds any, also those of an earlier place when the follower has refused the later one meanwhile. False when
    /// the entry before is gone: the follower will be told again.
    fn set_right(&self, message: &mut Message) -> bool {
        let Some(first) = message.entries.first() else { return true };
        let before = first.index.saturating_sub(1);
        if message.msg_type != MessageType::MsgAppend as i32 || before == message.index {
            return true;
        }
        let Some(term) = self.raw.store().term_at(before) else { return false };
        (message.index, message.log_term) = (before, term);
        true
    }

    fn outgoing(&mut self, messages: Vec<Message>) -> Vec<Outgoing> {
        let mut out = Vec::with_capacity(messages.len());
        for mut message in messages {
            if !self.set_right(&mut message) {
                continue;
            }
            let is_snapshot = message.msg_type == MessageType::MsgSnapshot as i32;
            if is_snapshot {
                self.snapshots.insert(message.to, self.config.snapshot_ticks);
            }
            out.push(Outgoing { to: message.to, bytes: encode(&message), is_snapshot });
        }
        out
    }
}
