//! The frames that wait to be written: urgent ones first, whole frames only, in few large pieces.

use std::collections::VecDeque;
use std::io::IoSlice;

/// A chunk takes frames until it is this large; one larger frame has a chunk of its own.
const CHUNK_BYTES: usize = 64 << 10;
/// So many chunks are handed to the socket at once.
pub const SLICES_MAX: usize = 16;
/// So many empty chunks are kept for reuse.
const SPARE_MAX: usize = 4;

/// Which frames overtake others. Frames of one priority stay in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Raft's messages.
    Urgent,
    Normal,
}

/// Numbers chunks in the order in which they were begun.
pub type ChunkId = u64;

struct Chunk {
    id: ChunkId,
    bytes: Vec<u8>,
}

/// The outbound buffer of one connection.
#[derive(Default)]
pub struct Outbound {
    /// A chunk of which some bytes are written, and how many: it goes on before all others.
    begun: Option<(Chunk, usize)>,
    urgent: VecDeque<Chunk>,
    normal: VecDeque<Chunk>,
    spare: Vec<Vec<u8>>,
    next_id: ChunkId,
    bytes: usize,
}

impl Outbound {
    /// Bytes that wait.
    pub fn len_bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Appends the frame that `write` produces; answers the chunk that it is in.
    pub fn push(&mut self, priority: Priority, write: impl FnOnce(&mut Vec<u8>)) -> ChunkId {
        let queue = match priority {
            Priority::Urgent => &mut self.urgent,
            Priority::Normal => &mut self.normal,
        };
        if queue.back().is_none_or(|chunk| chunk.bytes.len() >= CHUNK_BYTES) {
            let id = self.next_id;
            self.next_id += 1;
            queue.push_back(Chunk { id, bytes: self.spare.pop().unwrap_or_default() });
        }
        let Some(chunk) = queue.back_mut() else { unreachable!("a chunk was just pushed") };
        let before = chunk.bytes.len();
        write(&mut chunk.bytes);
        self.bytes += chunk.bytes.len() - before;
        chunk.id
    }

    /// What to write next, in order. After writing, `written` must be told.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let begun = self.begun.iter().map(|(chunk, written)| &chunk.bytes[*written..]);
        let rest = self.urgent.iter().chain(&self.normal).map(|chunk| &chunk.bytes[..]);
        let mut count = 0;
        for (slot, bytes) in slices.iter_mut().zip(begun.chain(rest)) {
            *slot = IoSlice::new(bytes);
            count += 1;
        }
        count
    }

    /// Says that the first `count` bytes of `slices` are written.
    pub fn written(&mut self, mut count: usize) {
        assert!(count <= self.bytes, "more bytes were written than waited");
        self.bytes -= count;
        while count > 0 {
            let Some((chunk, before)) = self.begun.take().or_else(|| Some((self.pop()?, 0))) else { return };
            let left = chunk.bytes.len() - before;
            if count < left {
                self.begun = Some((chunk, before + count));
                return;
            }
            count -= left;
            self.recycle(chunk.bytes);
        }
    }

    fn pop(&mut self) -> Option<Chunk> {
        self.urgent.pop_front().or_else(|| self.normal.pop_front())
    }

    fn recycle(&mut self, mut bytes: Vec<u8>) {
        if self.spare.len() < SPARE_MAX && bytes.capacity() <= 2 * CHUNK_BYTES {
            bytes.clear();
            self.spare.push(bytes);
        }
    }

    /// Whether no byte of the chunk has been handed to the socket: its frames are certain to be unknown to the other
    /// side when the connection breaks.
    pub fn is_unwritten(&self, id: ChunkId) -> bool {
        self.urgent.iter().chain(&self.normal).any(|chunk| chunk.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Writes at most `limit` bytes to `sink`.
    fn drain(out: &mut Outbound, limit: usize, sink: &mut Vec<u8>) {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = out.slices(&mut slices);
        let before = sink.len();
        for slice in &slices[..count] {
            sink.extend_from_slice(&slice[..slice.len().min(limit - (sink.len() - before))]);
        }
        let written = sink.len() - before;
        out.written(written);
    }

    #[test]
    fn urgent_frames_overtake_but_never_cut_into_a_frame() {
        let mut out = Outbound::default();
        let normal = out.push(Priority::Normal, |bytes| bytes.extend_from_slice(b"normal "));
        let mut sink = Vec::new();
        drain(&mut out, 3, &mut sink);
        assert!(!out.is_unwritten(normal));
        let urgent = out.push(Priority::Urgent, |bytes| bytes.extend_from_slice(b"urgent "));
        let later = out.push(Priority::Normal, |bytes| bytes.extend_from_slice(b"later"));
        assert!(out.is_unwritten(urgent) && out.is_unwritten(later));
        drain(&mut out, 100, &mut sink);
        assert_eq!(sink, b"normal urgent later");
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn every_byte_leaves_once_and_frames_of_a_priority_stay_in_order(
            frames in proptest::collection::vec((any::<bool>(), 1usize..40_000), 1..30),
            limits in proptest::collection::vec(1usize..100_000, 1..10),
        ) {
            let mut out = Outbound::default();
            let mut sink = Vec::new();
            let mut limits = limits.iter().cycle();
            for (number, (is_urgent, size)) in frames.iter().enumerate() {
                let priority = if *is_urgent { Priority::Urgent } else { Priority::Normal };
                out.push(priority, |bytes| {
                    model::msgpack::write_array_len(bytes, 2);
                    model::msgpack::write_uint(bytes, number as u64);
                    model::msgpack::write_bin(bytes, &vec![0; *size]);
                });
                drain(&mut out, *limits.next().unwrap(), &mut sink);
            }
            while !out.is_empty() {
                drain(&mut out, *limits.next().unwrap(), &mut sink);
            }
            let mut reader = model::msgpack::Reader::new(&sink);
            let mut seen = Vec::new();
            while !reader.is_empty() {
                prop_assert_eq!(reader.array_len().unwrap(), 2);
                let number = reader.uint().unwrap() as usize;
                prop_assert_eq!(reader.bin().unwrap().len(), frames[number].1);
                seen.push(number);
            }
            for urgent in [true, false] {
                let of_priority: Vec<_> = seen.iter().filter(|n| frames[**n].0 == urgent).collect();
                prop_assert!(of_priority.is_sorted());
            }
            prop_assert_eq!(seen.len(), frames.len());
        }
    }
}
