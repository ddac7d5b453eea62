//! Operations as they travel from a router to the master that owns their bucket, and the answers.
//!
//! An operation is one array of MessagePack, `[verb, flags, table id, table version, ...]`, whose tuples and keys already
//! are what box takes; they are carried, not decoded. An answer is an array too: of 0 to 2 elements when it went well, of
//! 4 when it did not: `[code, message, hint, catalog version]`.

use model::msgpack::{self, Reader};
use model::{Code, Error, Result, Table, TableId};

/// What to do. The numbers are those on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Verb {
    /// `key` -> `[tuple]` or `[]`
    Get = 0,
    /// `tuple` -> `[]`
    Insert = 1,
    /// `tuple` -> `[]`
    Replace = 2,
    /// `tuple` -> `[1]`, or `[0]` when a row with the key was there
    InsertOrSkip = 3,
    /// `key` -> `[old tuple]` or `[]`
    Delete = 4,
    /// `key, host operations` -> `[new tuple]` or `[]`
    Update = 5,
    /// `tuple, key, host operations` -> `[]`
    Upsert = 6,
    /// `verb of each, mode, [tuples]` -> `[count, [[position, code, message], ...]]`
    Rows = 7,
    /// `mode, [[tuple, key, host operations, check], ...]` -> as `Rows`
    Upserts = 8,
    /// `[[verb, tuple] or [verb, key, expected, host operations], ...]` -> `[count]`; all or none
    Changes = 9,
    /// Inside `Changes` only. `tuple`: `Conflict` when a row with the primary key is there
    InsertAbsent = 10,
    /// `[operation, ...]` -> `[[answer, ...]]`; all or none, each sees what those before it did
    Transaction = 11,
}

impl Verb {
    fn from_number(number: u64) -> Option<Verb> {
        use Verb::*;
        const ALL: [Verb; 12] = [
            Get,
            Insert,
            Replace,
            InsertOrSkip,
            Delete,
            Update,
            Upsert,
            Rows,
            Upserts,
            Changes,
            InsertAbsent,
            Transaction,
        ];
        ALL.get(usize::try_from(number).ok()?).copied()
    }

    pub fn is_write(self) -> bool {
        self != Verb::Get
    }
}

/// What becomes of the other rows of a many-row operation when one fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Mode {
    /// They are written.
    #[default]
    Each = 0,
    /// Those after it are not tried.
    Stop = 1,
    /// None is written.
    Atomic = 2,
}

/// The tuple of the answer is not wanted.
pub const FLAG_NO_RETURN: u8 = 1;
/// The row that comes of an update has to be checked against the column types.
pub const FLAG_CHECK: u8 = 2;

/// An operation read from the wire; its payload not yet.
#[derive(Clone, Copy, Debug)]
pub struct Op<'a> {
    pub verb: Verb,
    pub flags: u8,
    pub table: TableId,
    /// The catalog version that last changed the table's definition, as far as the router knows.
    pub version: u64,
    /// Stands before the first element behind the head.
    pub payload: Reader<'a>,
}

impl<'a> Op<'a> {
    /// Consumes one operation.
    ///
    /// Errors: `Argument` when it is none.
    pub fn read(reader: &mut Reader<'a>) -> Result<Op<'a>> {
        let mut payload = Reader::new(reader.raw()?);
        payload.array_len()?;
        let verb = Verb::from_number(payload.uint()?).ok_or_else(unknown_verb)?;
        let flags = payload.uint()? as u8;
        let table = TableId::try_from(payload.uint()?).map_err(|_| unknown_verb())?;
        let version = payload.uint()?;
        Ok(Op { verb, flags, table, version, payload })
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

impl Mode {
    /// Errors: `Argument`.
    pub fn read(reader: &mut Reader<'_>) -> Result<Mode> {
        match reader.uint()? {
            0 => Ok(Mode::Each),
            1 => Ok(Mode::Stop),
            2 => Ok(Mode::Atomic),
            _ => Err(unknown_verb()),
        }
    }
}

/// Reads the verb of each row in `Rows` and of a change in `Changes`.
///
/// Errors: `Argument`.
pub fn read_verb(reader: &mut Reader<'_>) -> Result<Verb> {
    Verb::from_number(reader.uint()?).ok_or_else(unknown_verb)
}

fn unknown_verb() -> Error {
    Error::new(Code::Argument, "an operation of another version of the module arrived")
        .with_hint("run one version on all instances")
}

/// Writes the head of an operation with `elements` elements behind it.
pub fn write_op_head(out: &mut Vec<u8>, verb: Verb, flags: u8, table: &Table, elements: usize) {
    msgpack::write_array_len(out, 4 + elements);
    out.push(verb as u8);
    out.push(flags);
    msgpack::write_uint(out, table.id.into());
    msgpack::write_uint(out, table.version);
}

/// Writes the head of a transaction of so many operations, which must follow.
pub fn write_transaction_head(out: &mut Vec<u8>, operations: usize) {
    msgpack::write_array_len(out, 5);
    out.extend_from_slice(&[Verb::Transaction as u8, 0, 0, 0]);
    msgpack::write_array_len(out, operations);
}

/// An answer read from the wire.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer<'a> {
    /// Up to two objects.
    Done(Done<'a>),
    /// The error, and the catalog version that the instance had applied when it refused.
    Refused(Error, u64),
}

/// The bytes of the objects of a good answer.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Done<'a> {
    pub first: Option<&'a [u8]>,
    pub second: Option<&'a [u8]>,
}

/// Consumes one answer.
///
/// Errors: `Internal` when the bytes are no answer.
pub fn read_answer<'a>(reader: &mut Reader<'a>) -> Result<Answer<'a>> {
    let broken = |_| Error::internal("another instance sent an answer that can not be read");
    match reader.array_len().map_err(broken)? {
        0 => Ok(Answer::Done(Done::default())),
        1 => Ok(Answer::Done(Done { first: Some(reader.raw().map_err(broken)?), second: None })),
        2 => Ok(Answer::Done(Done {
            first: Some(reader.raw().map_err(broken)?),
            second: Some(reader.raw().map_err(broken)?),
        })),
        _ => {
            let number = reader.uint().map_err(broken)?;
            let code = u32::try_from(number).ok().and_then(Code::from_number).unwrap_or(Code::Internal);
            let mut error = Error::new(code, reader.str().map_err(broken)?);
            if !reader.take_nil() {
                error.hint = Some(reader.str().map_err(broken)?.to_owned());
            }
            Ok(Answer::Refused(error, reader.uint().map_err(broken)?))
        }
    }
}

pub fn write_done_nothing(out: &mut Vec<u8>) {
    msgpack::write_array_len(out, 0);
}

/// Writes an answer of one count.
pub fn write_done_count(out: &mut Vec<u8>, count: u64) {
    msgpack::write_array_len(out, 1);
    msgpack::write_uint(out, count);
}

pub fn write_refused(out: &mut Vec<u8>, error: &Error, version: u64) {
    msgpack::write_array_len(out, 4);
    msgpack::write_uint(out, error.number().into());
    msgpack::write_str(out, &error.message);
    match &error.hint {
        Some(hint) => msgpack::write_str(out, hint),
        None => msgpack::write_nil(out),
    }
    msgpack::write_uint(out, version);
}

/// A row of a many-row operation that was not written.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Which row of the request, from 0.
    pub position: usize,
    pub error: Error,
}

/// Writes the answer of a many-row operation.
pub fn write_done_rows(out: &mut Vec<u8>, count: u64, failures: &[Failure]) {
    msgpack::write_array_len(out, 2);
    msgpack::write_uint(out, count);
    msgpack::write_array_len(out, failures.len());
    for failure in failures {
        msgpack::write_array_len(out, 3);
        msgpack::write_uint(out, failure.position as u64);
        msgpack::write_uint(out, failure.error.number().into());
        msgpack::write_str(out, &failure.error.message);
    }
}

/// Reads the two elements of a many-row operation's answer.
///
/// Errors: `Internal` when they are not that.
pub fn read_done_rows(done: Done<'_>) -> Result<(u64, Vec<Failure>)> {
    let broken = || Error::internal("another instance sent an answer to rows that can not be read");
    let (Some(count), Some(failures)) = (done.first, done.second) else { return Err(broken()) };
    let read = || -> Result<(u64, Vec<Failure>)> {
        let mut reader = Reader::new(failures);
        let len = reader.array_len()?;
        let mut list = Vec::with_capacity(len.min(1024));
        for _ in 0..len {
            reader.array_len()?;
            let position = reader.uint()? as usize;
            let code = u32::try_from(reader.uint()?).ok().and_then(Code::from_number).unwrap_or(Code::Internal);
            list.push(Failure { position, error: Error::new(code, reader.str()?) });
        }
        Ok((Reader::new(count).uint()?, list))
    };
    read().map_err(|_| broken())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refusals_survive_the_wire() {
        for error in [
            Error::new(Code::WrongBucket, "bucket 7 is elsewhere"),
            Error::new(Code::DuplicateKey, "é").with_hint("use replace"),
        ] {
            let mut bytes = Vec::new();
            write_refused(&mut bytes, &error, 42);
            assert_eq!(read_answer(&mut Reader::new(&bytes)), Ok(Answer::Refused(error, 42)));
        }
    }

    #[test]
    fn failures_survive_the_wire() {
        let failures = vec![Failure { position: 3, error: Error::new(Code::DuplicateKey, "there") }];
        let mut bytes = Vec::new();
        write_done_rows(&mut bytes, 9, &failures);
        let Ok(Answer::Done(done)) = read_answer(&mut Reader::new(&bytes)) else { panic!("not an answer") };
        assert_eq!(read_done_rows(done), Ok((9, failures)));
    }

    #[test]
    fn an_unknown_verb_is_another_version() {
        let bytes = [0x94, 0x20, 0, 1, 1];
        assert_eq!(Op::read(&mut Reader::new(&bytes)).unwrap_err().code, Code::Argument);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Op::read(&mut Reader::new(&bytes));
            let _ = read_answer(&mut Reader::new(&bytes));
            let _ = read_done_rows(Done { first: Some(&bytes), second: Some(&bytes) });
        }
    }
}
