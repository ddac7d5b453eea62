//! The bytes that arrived and have not been read as frames yet.

use crate::FRAME_BYTES_MAX;
use crate::frame::{self, Frame};
use model::Result;

/// How much room there is for one read of the socket.
const READ_BYTES: usize = 64 << 10;
/// A buffer that a large frame has stretched beyond this is given back when it is empty.
const KEEP_BYTES_MAX: usize = 1 << 20;

/// A buffer of one connection: the socket fills it at the end, frames leave it at the beginning.
pub struct Inbound {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    frame_bytes_max: usize,
}

impl Default for Inbound {
    fn default() -> Self {
        Self::new(FRAME_BYTES_MAX)
    }
}

impl Inbound {
    /// `frame_bytes_max` bounds what the other side can make this one keep.
    pub fn new(frame_bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), start: 0, end: 0, frame_bytes_max }
    }

    /// Where the next bytes of the socket go: at least one, more when a large frame is on its way.
    pub fn room(&mut self) -> &mut [u8] {
        let waiting = self.end - self.start;
        if waiting == 0 {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > KEEP_BYTES_MAX {
                self.bytes = Vec::new();
            }
        }
        let frame_bytes = frame::length_ahead(&self.bytes[self.start..self.end]).unwrap_or(0);
        let missing = frame_bytes.min(self.frame_bytes_max).saturating_sub(waiting);
        let wanted = missing.max(READ_BYTES);
        if self.bytes.len() - self.end < wanted.min(READ_BYTES / 4).max(missing) {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, waiting);
            if self.bytes.len() < waiting + wanted {
                self.bytes.resize(waiting + wanted, 0);
            }
        }
        &mut self.bytes[self.end..]
    }

    /// Says that `count` bytes were put into the room.
    pub fn filled(&mut self, count: usize) {
        assert!(count <= self.bytes.len() - self.end, "more bytes were read than there was room");
        self.end += count;
    }

    /// The next whole frame; None when more bytes are needed.
    ///
    /// Errors: those of `frame::split`; the connection is of no use after one.
    pub fn frame(&mut self) -> Result<Option<Frame<'_>>> {
        let Some((frame, len)) = frame::split(&self.bytes[self.start..self.end], self.frame_bytes_max)? else {
            return Ok(None);
        };
        self.start += len;
        Ok(Some(frame))
    }

    /// The next bytes before any frame, as a greeting is.
    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.bytes[self.start..self.end].first_chunk().copied()?;
        self.start += N;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_come_out_whole_however_they_arrive(
            sizes in proptest::collection::vec(0usize..200_000, 1..8),
            piece in 1usize..100_000,
        ) {
            let mut stream = Vec::new();
            for (sync, size) in sizes.iter().enumerate() {
                let mut object = Vec::new();
                model::msgpack::write_bin(&mut object, &vec![sync as u8; *size]);
                frame::write_answer(&mut stream, sync as u64, Some(&object));
            }
            let mut inbound = Inbound::default();
            let mut rest = &stream[..];
            let mut next = 0;
            while next < sizes.len() {
                let room = inbound.room();
                let count = room.len().min(piece).min(rest.len());
                room[..count].copy_from_slice(&rest[..count]);
                rest = &rest[count..];
                inbound.filled(count);
                while let Some(frame) = inbound.frame().unwrap() {
                    prop_assert_eq!(frame.sync, next as u64);
                    prop_assert!(frame.body.len() >= sizes[next]);
                    next += 1;
                }
            }
            prop_assert!(rest.is_empty());
        }
    }
}
