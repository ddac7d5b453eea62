//! How many rows of each member a log file of the host's holds or follows, without applying them.
//!
//! The file is a head of lines, of which one is the clock that it begins with, and blocks of rows: a mark of four bytes, three
//! MessagePack numbers of which the first is the length, padded to 19 bytes, and the rows. A row is a map (2: the
//! member's number, 3: the row's) and, but for those that say nothing, another map.

use model::msgpack::Reader;
use model::{Code, Error, Result};
use std::collections::BTreeMap;
use std::io::{BufRead, ErrorKind, Read};

const VERSION: &str = "0.13";
const CLOCK: &str = "VClock: ";
const HEAD_LINES_MAX: usize = 16;
const HEAD_LINE_BYTES_MAX: u64 = 4096;
const MARK_OF_ROWS: [u8; 4] = [0xd5, 0xba, 0x0b, 0xab];
const MARK_OF_COMPRESSED_ROWS: [u8; 4] = [0xd5, 0xba, 0x0b, 0xba];
const BLOCK_HEAD_BYTES: usize = 19;
const BLOCK_BYTES_MAX: u64 = 1 << 30;

const KEY_TYPE: u64 = 0;
const KEY_MEMBER: u64 = 2;
const KEY_ROW: u64 = 3;
const TYPE_NOTHING: u64 = 12;

/// Rows by the numbers of the members that wrote them. Blocks that are compressed are not looked into, so there may be
/// more; a block that was not written to its end does not count.
///
/// Errors: `Storage`; `Corrupted` for what this host does not write.
pub fn rows(mut file: impl BufRead) -> Result<BTreeMap<u32, u64>> {
    let mut rows = head(&mut file)?;
    let mut bytes = Vec::new();
    while let Some((is_compressed, len)) = block(&mut file)? {
        bytes.clear();
        let read = file.by_ref().take(len).read_to_end(&mut bytes).map_err(failed)?;
        if (read as u64) < len {
            break;
        }
        if !is_compressed {
            count(&bytes, &mut rows).map_err(|_| strange("a row"))?;
        }
    }
    Ok(rows)
}

/// The clock in the head.
fn head(file: &mut impl BufRead) -> Result<BTreeMap<u32, u64>> {
    let mut clock = None;
    for at in 0..HEAD_LINES_MAX {
        let mut line = Vec::new();
        file.by_ref().take(HEAD_LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(failed)?;
        let line = std::str::from_utf8(&line).map_err(|_| strange("the head"))?.trim_end();
        match (at, line) {
            (1, version) if version != VERSION => return Err(strange("the version")),
            (_, "") => break,
            _ => {}
        }
        if let Some(text) = line.strip_prefix(CLOCK) {
            clock = Some(parse_clock(text).ok_or_else(|| strange("the clock"))?);
        }
    }
    clock.ok_or_else(|| strange("the head"))
}

/// `{1: 20, 3: 4}`.
fn parse_clock(text: &str) -> Option<BTreeMap<u32, u64>> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    let parts = inner.split(',').filter(|part| !part.trim().is_empty());
    let entry = |part: &str| {
        let (number, rows) = part.split_once(':')?;
        Some((number.trim().parse().ok()?, rows.trim().parse().ok()?))
    };
    parts.map(entry).collect()
}

/// Whether the next block is compressed, and its length; None at the end.
fn block(file: &mut impl Read) -> Result<Option<(bool, u64)>> {
    let mut head = [0; BLOCK_HEAD_BYTES];
    match file.read_exact(&mut head) {
        Ok(()) => {}
        // A block that was being written, or the mark of the end.
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(failed(e)),
    }
    let is_compressed = match [head[0], head[1], head[2], head[3]] {
        MARK_OF_ROWS => false,
        MARK_OF_COMPRESSED_ROWS => true,
        _ => return Err(strange("a block")),
    };
    let len = Reader::new(&head[4..]).uint().ok().filter(|len| *len <= BLOCK_BYTES_MAX);
    len.map(|len| Some((is_compressed, len))).ok_or_else(|| strange("the length of a block"))
}

fn count(block: &[u8], rows: &mut BTreeMap<u32, u64>) -> Result<()> {
    let mut reader = Reader::new(block);
    while !reader.is_empty() {
        let (mut kind, mut member, mut row) = (0, 0, 0);
        for _ in 0..reader.map_len()? {
            match reader.uint()? {
                KEY_TYPE => kind = reader.uint()?,
                KEY_MEMBER => member = reader.uint()?,
                KEY_ROW => row = reader.uint()?,
                _ => reader.skip()?,
            }
        }
        if kind != TYPE_NOTHING && !reader.is_empty() {
            reader.skip()?;
        }
        let known = rows.entry(u32::try_from(member).map_err(|_| strange("a member"))?).or_default();
        *known = row.max(*known);
    }
    Ok(())
}

fn failed(error: std::io::Error) -> Error {
    Error::new(Code::Storage, format!("a log file can not be read: {error}"))
}

fn strange(what: &str) -> Error {
    Error::new(Code::Corrupted, format!("{what} of a log file is none that this host writes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::msgpack::{write_double, write_map_len, write_uint};
    use proptest::prelude::*;

    const HEAD: &str = "XLOG\n0.13\nVersion: 2.6.0\nInstance: a\nVClock: {0: 9, 1: 5, 3: 7}\n\n";

    fn row(out: &mut Vec<u8>, kind: u64, member: u64, row: u64) {
        write_map_len(out, 4);
        for (key, value) in [(KEY_TYPE, kind), (KEY_MEMBER, member), (KEY_ROW, row)] {
            write_uint(out, key);
            write_uint(out, value);
        }
        write_uint(out, 4);
        write_double(out, 1.5);
        if kind != TYPE_NOTHING {
            write_map_len(out, 1);
            write_uint(out, 16);
            write_uint(out, 512);
        }
    }

    fn in_block(mark: [u8; 4], rows: &[u8]) -> Vec<u8> {
        let mut block = mark.to_vec();
        write_uint(&mut block, rows.len() as u64);
        block.resize(BLOCK_HEAD_BYTES, 0);
        [&block, rows].concat()
    }

    fn file() -> Vec<u8> {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        row(&mut first, 3, 1, 6);
        row(&mut first, TYPE_NOTHING, 1, 8);
        row(&mut second, 2, 2, 1);
        let compressed = in_block(MARK_OF_COMPRESSED_ROWS, b"whatever it is");
        [HEAD.as_bytes(), &in_block(MARK_OF_ROWS, &first), &compressed, &in_block(MARK_OF_ROWS, &second)].concat()
    }

    #[test]
    fn the_last_row_of_each_member_counts() {
        let all = BTreeMap::from([(0, 9), (1, 8), (2, 1), (3, 7)]);
        assert_eq!(rows(&file()[..]).unwrap(), all);
        let ended = [&file()[..], &[0xd5, 0x10, 0xad, 0xed]].concat();
        assert_eq!(rows(&ended[..]).unwrap(), all);
        // The last block was being written.
        assert_eq!(rows(&file()[..file().len() - 1]).unwrap(), BTreeMap::from([(0, 9), (1, 8), (3, 7)]));
        assert_eq!(rows(HEAD.as_bytes()).unwrap(), BTreeMap::from([(0, 9), (1, 5), (3, 7)]));
    }

    #[test]
    fn other_files_are_refused() {
        let broken: [&[u8]; 4] =
            [b"", b"XLOG\n0.14\nVClock: {}\n\n", b"XLOG\n0.13\nVClock: 1\n\n", b"XLOG\n0.13\n\nVClock: {}\n\n"];
        for file in broken {
            assert_eq!(rows(file).unwrap_err().code, Code::Corrupted);
        }
        let junk = [HEAD.as_bytes(), &[7; 40]].concat();
        assert_eq!(rows(&junk[..]).unwrap_err().code, Code::Corrupted);
        let junk_rows = [HEAD.as_bytes(), &in_block(MARK_OF_ROWS, b"abc")].concat();
        assert_eq!(rows(&junk_rows[..]).unwrap_err().code, Code::Corrupted);
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(at in 0..file().len(), byte: u8, cut in 0..file().len()) {
            let mut bytes = file();
            bytes[at] = byte;
            let _ = rows(&bytes[..bytes.len() - cut]);
        }
    }
}
