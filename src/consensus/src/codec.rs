//! How the log and what stands beside it look on disk.
//!
//! Every record is `[version, kind, checksum (4 bytes, little-endian), MessagePack]`. The kind is under the checksum, so a
//! record that is read in the place of another is refused like one whose bytes have changed. Raft's own encoding stays off
//! the disk: what is written today must be readable whatever library speaks Raft tomorrow.

use crate::config::NUMBER_MAX;
use crate::membership::Membership;
use crate::ready::Position;
use model::msgpack::{self, Reader};
use model::{Code, Error, RaftId, Result};
use raft::eraftpb::{Entry, EntryType, HardState};
use xxhash_rust::xxh3::xxh3_64;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 6;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Entry = 1,
    HardState = 2,
    Membership = 3,
    Compacted = 4,
    Applied = 5,
}

pub(crate) fn encode_entry(entry: &Entry) -> Vec<u8> {
    record(Kind::Entry, entry.data.len() + entry.context.len() + 32, |out| {
        msgpack::write_uint(out, entry.index);
        msgpack::write_uint(out, entry.term);
        msgpack::write_uint(out, entry.entry_type as u64);
        msgpack::write_bin(out, &entry.data);
        msgpack::write_bin(out, &entry.context);
    })
}

pub(crate) fn decode_entry(bytes: &[u8]) -> Result<Entry> {
    open(Kind::Entry, bytes, |reader| {
        let (index, term) = (number(reader)?, number(reader)?);
        let entry_type = match reader.uint()? {
            kind if kind == EntryType::EntryNormal as u64 => EntryType::EntryNormal,
            kind if kind == EntryType::EntryConfChangeV2 as u64 => EntryType::EntryConfChangeV2,
            _ => return Err(corrupted("an entry is of an unknown kind")),
        };
        let (data, context) = (reader.bin()?.to_vec(), reader.bin()?.to_vec());
        Ok(Entry { entry_type: entry_type as i32, term, index, data, context, ..Entry::default() })
    })
}

pub(crate) fn encode_hard_state(state: &HardState) -> Vec<u8> {
    record(Kind::HardState, 27, |out| {
        msgpack::write_uint(out, state.term);
        msgpack::write_uint(out, state.vote);
        msgpack::write_uint(out, state.commit);
    })
}

pub(crate) fn decode_hard_state(bytes: &[u8]) -> Result<HardState> {
    open(Kind::HardState, bytes, |reader| {
        Ok(HardState { term: number(reader)?, vote: number(reader)?, commit: number(reader)? })
    })
}

pub(crate) fn encode_membership(membership: &Membership) -> Vec<u8> {
    record(Kind::Membership, 64, |out| {
        for list in [&membership.voters, &membership.learners, &membership.voters_outgoing, &membership.learners_next] {
            msgpack::write_array_len(out, list.len());
            list.iter().for_each(|id| msgpack::write_uint(out, *id));
        }
        msgpack::write_bool(out, membership.auto_leave);
    })
}

pub(crate) fn decode_membership(bytes: &[u8]) -> Result<Membership> {
    open(Kind::Membership, bytes, |reader| {
        let membership = Membership {
            voters: ids(reader)?,
            learners: ids(reader)?,
            voters_outgoing: ids(reader)?,
            learners_next: ids(reader)?,
            auto_leave: reader.bool()?,
        };
        membership.check().map_err(corrupted)?;
        Ok(membership)
    })
}

pub(crate) fn encode_compacted(position: Position) -> Vec<u8> {
    record(Kind::Compacted, 18, |out| {
        msgpack::write_uint(out, position.index);
        msgpack::write_uint(out, position.term);
    })
}

pub(crate) fn decode_compacted(bytes: &[u8]) -> Result<Position> {
    open(Kind::Compacted, bytes, |reader| Ok(Position { index: number(reader)?, term: number(reader)? }))
}

pub(crate) fn encode_applied(index: u64) -> Vec<u8> {
    record(Kind::Applied, 9, |out| msgpack::write_uint(out, index))
}

pub(crate) fn decode_applied(bytes: &[u8]) -> Result<u64> {
    open(Kind::Applied, bytes, number)
}

pub(crate) fn corrupted(what: &str) -> Error {
    Error::new(Code::Corrupted, format!("the Raft log on disk is damaged: {what}"))
        .with_hint("restore the data folder from a backup, or expel this instance and let a new one join")
}

fn record(kind: Kind, payload_bytes: usize, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + payload_bytes);
    out.extend([VERSION, kind as u8, 0, 0, 0, 0]);
    write(&mut out);
    let sum = checksum(kind, &out[HEADER_BYTES..]);
    out[2..HEADER_BYTES].copy_from_slice(&sum);
    out
}

fn open<T>(kind: Kind, bytes: &[u8], read: impl FnOnce(&mut Reader<'_>) -> Result<T>) -> Result<T> {
    let Some((header, payload)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Err(corrupted("a record is cut short"));
    };
    if header[0] != VERSION {
        return Err(corrupted(&format!("a record has version {}, this program knows {VERSION}", header[0])));
    }
    if header[1] != kind as u8 || header[2..] != checksum(kind, payload) {
        return Err(corrupted("a checksum does not match"));
    }
    let mut reader = Reader::new(payload);
    let value = read(&mut reader).map_err(|error| match error.code {
        Code::Corrupted => error,
        _ => corrupted(&error.message),
    })?;
    if !reader.rest().is_empty() {
        return Err(corrupted("a record is longer than it should be"));
    }
    Ok(value)
}

fn checksum(kind: Kind, payload: &[u8]) -> [u8; 4] {
    let sum = xxh3_64(payload).wrapping_add(kind as u64);
    (sum as u32).to_le_bytes()
}

fn number(reader: &mut Reader<'_>) -> Result<u64> {
    match reader.uint()? {
        number if number < NUMBER_MAX => Ok(number),
        _ => Err(corrupted("a number is out of range")),
    }
}

fn ids(reader: &mut Reader<'_>) -> Result<Vec<RaftId>> {
    let len = reader.array_len()?;
    (0..len).map(|_| number(reader)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    prop_compose! {
        fn entries()(
            index in 0..NUMBER_MAX, term in 0..NUMBER_MAX, is_change in any::<bool>(),
            data in vec(any::<u8>(), 0..300), context in vec(any::<u8>(), 0..40),
        ) -> Entry {
            let entry_type = if is_change { EntryType::EntryConfChangeV2 } else { EntryType::EntryNormal } as i32;
            Entry { entry_type, term, index, data, context, ..Entry::default() }
        }
    }

    proptest! {
        #[test]
        fn records_come_back_as_they_were(
            entry in entries(), term in 0..NUMBER_MAX, vote in 0..NUMBER_MAX, commit in 0..NUMBER_MAX,
        ) {
            prop_assert_eq!(decode_entry(&encode_entry(&entry)).unwrap(), entry);
            let state = HardState { term, vote, commit };
            prop_assert_eq!(decode_hard_state(&encode_hard_state(&state)).unwrap(), state);
            let position = Position { index: commit, term };
            prop_assert_eq!(decode_compacted(&encode_compacted(position)).unwrap(), position);
            prop_assert_eq!(decode_applied(&encode_applied(commit)).unwrap(), commit);
        }

        #[test]
        fn memberships_come_back_as_they_were(
            voters in vec(1..30u64, 1..6), learners in vec(31..60u64, 0..6), outgoing in vec(1..30u64, 0..6),
        ) {
            let mut membership = Membership::new(voters, learners);
            membership.voters_outgoing = Membership::new(outgoing, []).voters;
            membership.auto_leave = membership.is_joint();
            prop_assert_eq!(decode_membership(&encode_membership(&membership)).unwrap(), membership);
        }

        /// One changed byte, anywhere, is noticed.
        #[test]
        fn damage_is_noticed(entry in entries(), at in any::<prop::sample::Index>(), flip in 1..=255u8) {
            let mut bytes = encode_entry(&entry);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert_eq!(decode_entry(&bytes).unwrap_err().code, Code::Corrupted);
            prop_assert_eq!(decode_entry(&bytes[..at]).unwrap_err().code, Code::Corrupted);
        }

        #[test]
        fn garbage_is_refused(bytes in vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(decode_entry(&bytes).unwrap_err().code, Code::Corrupted);
            prop_assert_eq!(decode_membership(&bytes).unwrap_err().code, Code::Corrupted);
        }
    }

    #[test]
    fn a_record_is_not_taken_for_another() {
        let position = Position { index: 7, term: 7 };
        let bytes = encode_compacted(position);
        assert_eq!(decode_hard_state(&bytes).unwrap_err().code, Code::Corrupted);
        let mut relabelled = bytes.clone();
        relabelled[1] = Kind::Applied as u8;
        assert_eq!(decode_applied(&relabelled).unwrap_err().code, Code::Corrupted);
    }

    /// What was written by earlier versions must stay readable: these bytes may never change.
    #[test]
    fn the_format_stays() {
        let entry = Entry { index: 5, term: 3, data: b"ab".to_vec(), context: b"c".to_vec(), ..Entry::default() };
        assert_eq!(hex(&encode_entry(&entry)), "0101ccef87cf050300c4026162c40163");
        assert_eq!(hex(&encode_hard_state(&HardState { term: 3, vote: 2, commit: 300 })), "01028e2d132d0302cd012c");
        assert_eq!(hex(&encode_membership(&Membership::new([1, 2], [3]))), "01030a936daa92010291039090c2");
        assert_eq!(hex(&encode_compacted(Position { index: 9, term: 2 })), "01040f8c685e0902");
        assert_eq!(hex(&encode_applied(9)), "0105ffe2907109");
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
