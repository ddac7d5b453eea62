//! Messages between nodes: bytes in, and only what raft-rs can digest goes further.
//!
//! raft-rs trusts its peers: a message that contradicts itself or its log ends in a panic there. Instances of one cluster
//! do authenticate each other, but one with a damaged disk or of another version must not take the others along. So
//! each kind of message is checked here against what an honest node can send, before it is stepped.

use crate::config::NUMBER_MAX;
use crate::membership::Membership;
use model::{Code, Error, RaftId, Result};
use prost::Message as _;
use raft::eraftpb::{ConfChangeType, ConfChangeV2, Entry, EntryType, Message, MessageType};

/// What is known of the receiver when a message arrives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receiver {
    pub raft_id: RaftId,
    pub term: u64,
    pub last_index: u64,
    pub is_leader: bool,
}

/// A message for this receiver, checked. Errors: `Argument`, with the reason; `Corrupted`, when the leader counts on
/// entries that this node acknowledged and does not have.
pub(crate) fn decode(bytes: &[u8], receiver: Receiver) -> Result<Message> {
    let message = Message::decode(bytes).map_err(|error| refused(&error.to_string()))?;
    check_envelope(&message, receiver)?;
    let kind = MessageType::from_i32(message.msg_type).ok_or_else(|| refused("its kind is unknown"))?;
    check_kind(kind, &message, receiver)?;
    Ok(message)
}

fn check_envelope(message: &Message, receiver: Receiver) -> Result<()> {
    if message.to != receiver.raft_id {
        return Err(refused(&format!("it is for {}, this is {}", message.to, receiver.raft_id)));
    }
    if message.from == 0 || message.from == receiver.raft_id {
        return Err(refused("its sender is not another node"));
    }
    let numbers = [
        message.from,
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
    ];
    if numbers.iter().any(|number| *number >= NUMBER_MAX) {
        return Err(refused("a number is out of range"));
    }
    if message.request_snapshot != 0 {
        return Err(refused("it asks for a snapshot that nobody here asks for"));
    }
    Ok(())
}

fn check_kind(kind: MessageType, message: &Message, receiver: Receiver) -> Result<()> {
    use MessageType::*;
    match kind {
        MsgHup | MsgBeat | MsgUnreachable | MsgSnapStatus | MsgCheckQuorum => Err(refused("it is no node's to send")),
        MsgPropose | MsgTransferLeader => Err(refused("requests go to the leader by other ways")),
        MsgReadIndex => check_read(message, receiver),
        _ if message.term == 0 => Err(refused("it has no term")),
        MsgAppend => check_append(message),
        MsgSnapshot => check_snapshot(message),
        MsgHeartbeat if message.term >= receiver.term && message.commit > receiver.last_index => Err(Error::new(
            Code::Corrupted,
            format!(
                "entries up to {} were acknowledged by this instance, its log ends at {}",
                message.commit, receiver.last_index
            ),
        )
        .with_hint("its data folder was replaced by an older one, or its machine lost power: it takes another number")),
        MsgAppendResponse if receiver.is_leader && message.term == receiver.term => {
            match message.index.max(message.reject_hint) > receiver.last_index {
                true => Err(refused("it acknowledges what was never sent")),
                false => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn check_read(message: &Message, receiver: Receiver) -> Result<()> {
    if message.term != 0 || message.entries.len() != 1 {
        return Err(refused("it is not one read"));
    }
    if !receiver.is_leader {
        return Err(refused("it is a read for the leader"));
    }
    Ok(())
}

fn check_append(message: &Message) -> Result<()> {
    if (message.log_term == 0) != (message.index == 0) {
        return Err(refused("the entry before its entries can not be"));
    }
    let (mut index, mut term) = (message.index, message.log_term);
    for entry in &message.entries {
        if entry.index != index + 1 || entry.term < term || entry.term == 0 || entry.term > message.term {
            return Err(refused("its entries are not in sequence"));
        }
        check_entry(entry)?;
        (index, term) = (entry.index, entry.term);
    }
    Ok(())
}

fn check_entry(entry: &Entry) -> Result<()> {
    match EntryType::from_i32(entry.entry_type) {
        Some(EntryType::EntryNormal) => Ok(()),
        Some(EntryType::EntryConfChangeV2) => decode_change(&entry.data).map(|_| ()),
        _ => Err(refused("an entry's kind is unknown")),
    }
}

/// The change of members that an entry carries.
pub(crate) fn decode_change(data: &[u8]) -> Result<ConfChangeV2> {
    let change = ConfChangeV2::decode(data).map_err(|error| refused(&error.to_string()))?;
    let known = change.changes.iter().all(|step| {
        ConfChangeType::from_i32(step.change_type).is_some() && step.node_id > 0 && step.node_id < NUMBER_MAX
    });
    if !known || change.transition != 0 {
        return Err(refused("a change of members is of an unknown kind"));
    }
    Ok(change)
}

fn check_snapshot(message: &Message) -> Result<()> {
    let metadata = message.get_snapshot().get_metadata();
    let is_placed = (1..NUMBER_MAX).contains(&metadata.index) && (1..=message.term).contains(&metadata.term);
    if !is_placed {
        return Err(refused("its snapshot has no place in the log"));
    }
    let state = metadata.get_conf_state();
    let membership = Membership::from(state);
    let ids = state.voters.len() + state.learners.len() + state.voters_outgoing.len() + state.learners_next.len();
    let distinct = membership.voters.len()
        + membership.learners.len()
        + membership.voters_outgoing.len()
        + membership.learners_next.len();
    if ids != distinct {
        return Err(refused("its snapshot lists a raft id twice"));
    }
    membership.check().map_err(refused)
}

fn refused(why: &str) -> Error {
    Error::new(Code::Argument, format!("a Raft message was refused: {why}"))
}

/// One line that says what a message is, for logs and tests.
pub fn describe(bytes: &[u8]) -> String {
    let Ok(message) = Message::decode(bytes) else { return format!("{} bytes of garbage", bytes.len()) };
    let kind = MessageType::from_i32(message.msg_type).map_or("Unknown".to_owned(), |kind| format!("{kind:?}"));
    let mut line = format!("{}→{} {}", message.from, message.to, kind.trim_start_matches("Msg"));
    if message.term > 0 {
        line += &format!(" term={}", message.term);
    }
    if message.index > 0 {
        line += &match message.log_term {
            0 => format!(" index={}", message.index),
            log_term => format!(" index={}@{log_term}", message.index),
        };
    }
    if message.commit > 0 {
        line += &format!(" commit={}", message.commit);
    }
    if message.reject {
        line += &format!(" reject hint={}", message.reject_hint);
    }
    if let Some(metadata) = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref()) {
        let members = Membership::from(metadata.get_conf_state());
        line += &format!(" snapshot={}@{} {members}", metadata.index, metadata.term);
    }
    if message.msg_type != MessageType::MsgReadIndex as i32 && message.msg_type != MessageType::MsgReadIndexResp as i32
    {
        let entries: Vec<String> = message.entries.iter().map(describe_entry).collect();
        if !entries.is_empty() {
            line += &format!(" [{}]", entries.join(", "));
        }
    }
    if message.context.len() == crate::reads::TICKET_BYTES {
        line += " read";
    }
    line
}

fn describe_entry(entry: &Entry) -> String {
    let what = match entry.entry_type == EntryType::EntryConfChangeV2 as i32 {
        true => decode_change(&entry.data).map_or("?".into(), |change| describe_change(&change)),
        false => String::from_utf8_lossy(&entry.data).into_owned(),
    };
    format!("{}@{} {what}", entry.index, entry.term).trim_end().to_owned()
}

/// `+1 ~2 -3`: a voter comes, a learner comes, a member goes. `leave` ends a joint change.
fn describe_change(change: &ConfChangeV2) -> String {
    let steps = change.changes.iter().map(|step| {
        let sign = match ConfChangeType::from_i32(step.change_type) {
            Some(ConfChangeType::AddNode) => '+',
            Some(ConfChangeType::AddLearnerNode) => '~',
            _ => '-',
        };
        format!("{sign}{}", step.node_id)
    });
    match change.changes.is_empty() {
        true => "leave".to_owned(),
        false => steps.collect::<Vec<_>>().join(" "),
    }
}
