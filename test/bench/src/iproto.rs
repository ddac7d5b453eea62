//! IPROTO as a client speaks it: frames out, the head of each answer in.

use crate::broken;
use model::msgpack::{self, Reader};
use model::{Code, Error, Result};
use std::io::{Read, Write};
use std::net::TcpStream;

pub const SELECT: u64 = 1;
pub const REPLACE: u64 = 3;
pub const CALL: u64 = 10;
pub const PING: u64 = 64;

const KEY_TYPE: u64 = 0x00;
const KEY_SYNC: u64 = 0x01;
const KEY_ERROR: u64 = 0x31;
/// The greeting that the server sends first.
const GREETING_BYTES: usize = 128;
/// A frame begins with its length as a 32-bit MessagePack integer.
const LENGTH_BYTES: usize = 5;

/// A connection as the user guest.
pub struct Connection {
    stream: TcpStream,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    /// How much of `incoming` has been taken.
    taken: usize,
}

impl Connection {
    pub fn open(address: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(address).map_err(broken)?;
        stream.set_nodelay(true).map_err(broken)?;
        stream.read_exact(&mut [0; GREETING_BYTES]).map_err(broken)?;
        Ok(Self { stream, outgoing: Vec::new(), incoming: Vec::new(), taken: 0 })
    }

    /// Appends a request to what the next `flush` sends; `body` writes the body's map.
    pub fn request(&mut self, kind: u64, sync: u64, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.outgoing.len();
        self.outgoing.extend([0xce, 0, 0, 0, 0]);
        msgpack::write_map_len(&mut self.outgoing, 2);
        for (key, value) in [(KEY_TYPE, kind), (KEY_SYNC, sync)] {
            msgpack::write_uint(&mut self.outgoing, key);
            msgpack::write_uint(&mut self.outgoing, value);
        }
        body(&mut self.outgoing);
        let length = (self.outgoing.len() - start - LENGTH_BYTES) as u32;
        self.outgoing[start + 1..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    }

    pub fn flush(&mut self) -> Result<()> {
        self.stream.write_all(&self.outgoing).map_err(broken)?;
        self.outgoing.clear();
        Ok(())
    }

    /// Waits for more bytes.
    pub fn fill(&mut self) -> Result<()> {
        const READ_BYTES: usize = 256 * 1024;
        self.incoming.drain(..self.taken);
        self.taken = 0;
        let before = self.incoming.len();
        self.incoming.resize(before + READ_BYTES, 0);
        let read = self.stream.read(&mut self.incoming[before..]).map_err(broken)?;
        self.incoming.truncate(before + read);
        if read == 0 {
            return Err(Error::new(Code::Unreachable, "the instance closed the connection"));
        }
        Ok(())
    }

    /// The sync id of the next answer that is here whole. An answer that is an error is one here too.
    pub fn answer(&mut self) -> Result<Option<u64>> {
        let rest = &self.incoming[self.taken..];
        let Some(head) = rest.get(..LENGTH_BYTES) else { return Ok(None) };
        let length = Reader::new(head).uint()? as usize;
        let Some(frame) = rest.get(LENGTH_BYTES..LENGTH_BYTES + length) else { return Ok(None) };
        self.taken += LENGTH_BYTES + length;
        let mut reader = Reader::new(frame);
        let (mut kind, mut sync) = (0, 0);
        for _ in 0..reader.map_len()? {
            match reader.uint()? {
                KEY_TYPE => kind = reader.uint()?,
                KEY_SYNC => sync = reader.uint()?,
                _ => reader.skip()?,
            }
        }
        if kind == 0 { Ok(Some(sync)) } else { Err(read_error(kind, reader)) }
    }
}

fn read_error(kind: u64, mut reader: Reader<'_>) -> Error {
    let mut message = String::from("no message");
    if let Ok(pairs) = reader.map_len() {
        for _ in 0..pairs {
            match (reader.uint(), reader) {
                (Ok(KEY_ERROR), mut text) => message = text.str().unwrap_or_default().to_owned(),
                (Ok(_), _) => {}
                (Err(_), _) => break,
            }
            if reader.skip().is_err() {
                break;
            }
        }
    }
    Error::new(Code::Procedure, format!("answered with error {}: {message}", kind & 0x7fff))
}
