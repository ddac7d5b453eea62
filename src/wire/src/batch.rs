//! Operations for one peer that travel as one call, and their answers.
//!
//! The call has one argument, an array of operations; it answers an array of as many objects in the same order. What an
//! operation or an answer is, this room does not know: each is one MessagePack object that it carries.

use model::msgpack::{self, Reader};
use model::{Code, Error, Result};

/// A batch that is this large leaves without waiting for the loop turn to end.
pub const BATCH_BYTES_MAX: usize = 256 << 10;
pub const BATCH_OPERATIONS_MAX: usize = 1024;

/// The arguments of a batch call while operations are added: `[[operation, ...]]`.
#[derive(Default)]
pub struct BatchArgs {
    bytes: Vec<u8>,
    count: usize,
}

/// `[` of one argument, and an array header whose four bytes of length are filled in at the end.
const HEAD: [u8; 6] = [0x91, 0xdd, 0, 0, 0, 0];

impl BatchArgs {
    pub fn push(&mut self, operation: &[u8]) {
        if self.count == 0 {
            self.bytes.clear();
            self.bytes.extend_from_slice(&HEAD);
        }
        self.bytes.extend_from_slice(operation);
        self.count += 1;
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn is_full(&self) -> bool {
        self.count >= BATCH_OPERATIONS_MAX || self.bytes.len() >= BATCH_BYTES_MAX
    }

    /// The finished arguments; the next `push` begins anew.
    pub fn finish(&mut self) -> &[u8] {
        assert!(self.count > 0, "a batch without operations is not sent");
        self.bytes[2..HEAD.len()].copy_from_slice(&(self.count as u32).to_be_bytes());
        self.count = 0;
        &self.bytes
    }
}

/// The operations of a batch call's arguments.
///
/// Errors: `Argument` when they are not one array of objects, `LimitExceeded` when there are too many.
pub fn operations(args: &[u8]) -> Result<Vec<&[u8]>> {
    let mut reader = Reader::new(args);
    if reader.array_len()? != 1 {
        return Err(Error::new(Code::Argument, "a batch has one argument"));
    }
    objects(&mut reader)
}

/// The answers of a batch call's returned value.
pub fn answers(value: &[u8]) -> Result<Vec<&[u8]>> {
    objects(&mut Reader::new(value))
}

fn objects<'a>(reader: &mut Reader<'a>) -> Result<Vec<&'a [u8]>> {
    let count = reader.array_len()?;
    if count > BATCH_OPERATIONS_MAX {
        let message = format!("a batch of {count} is larger than the {BATCH_OPERATIONS_MAX} that are allowed");
        return Err(Error::new(Code::LimitExceeded, message));
    }
    (0..count).map(|_| reader.raw()).collect()
}

/// Appends the header of the array that a batch call answers; `count` objects must follow.
pub fn write_answers_head(out: &mut Vec<u8>, count: usize) {
    msgpack::write_array_len(out, count);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_arrive_as_they_were_pushed() {
        let mut args = BatchArgs::default();
        for round in 0..2u8 {
            for i in 0..300u16 {
                args.push(&[0x92, round, i as u8 & 0x7f]);
            }
            assert_eq!(args.len(), 300);
            let bytes = args.finish();
            let read = operations(bytes).unwrap();
            assert_eq!(read.len(), 300);
            assert_eq!(read[299], [0x92, round, 299u16 as u8 & 0x7f]);
        }
        assert!(args.is_empty());
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        assert_eq!(operations(&[0x91, 0xdd, 0, 0, 0, 9, 1]).unwrap_err().code, Code::Argument);
        let mut many = vec![0x91, 0xdd, 0, 0, 4, 1];
        many.resize(many.len() + 1025, 0x01);
        assert_eq!(operations(&many).unwrap_err().code, Code::LimitExceeded);
        assert_eq!(operations(&[0x92, 0x90, 0x90]).unwrap_err().code, Code::Argument);
        assert_eq!(answers(&[0x05]).unwrap_err().code, Code::Argument);
    }
}
