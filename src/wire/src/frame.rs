//! Frames: a length, a header map and a body map, all in MessagePack.
//!
//! Requests and errors are as Tarantool defines them, so that its own connectors and servers understand ours.

use model::msgpack::{self, Reader};
use model::{Code, Error, Result};

/// Request types that this room speaks.
pub mod request {
    /// The older of the two calls: its answer carries what a C procedure returned as it is. `CALL` wraps it once more.
    pub const CALL_16: u64 = 6;
    pub const AUTH: u64 = 7;
    pub const CALL: u64 = 10;
    pub const PING: u64 = 64;
}

mod key {
    pub const REQUEST_TYPE: u64 = 0x00;
    pub const SYNC: u64 = 0x01;
    pub const TUPLE: u64 = 0x21;
    pub const FUNCTION_NAME: u64 = 0x22;
    pub const USER_NAME: u64 = 0x23;
    pub const DATA: u64 = 0x30;
    pub const ERROR: u64 = 0x31;
}

/// Set in an answer's code when it is an error; the rest is the error's number.
const ERROR_FLAG: u64 = 0x8000;
/// The length before a frame: a marker and four bytes, always written in this form.
const LENGTH_BYTES: usize = 5;
const LENGTH_MARKER: u8 = 0xce;

/// A frame as it stands in the inbound buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The request type, or an answer's code.
    pub code: u64,
    pub sync: u64,
    /// The body map; empty when there is none.
    pub body: &'a [u8],
}

/// The frame at the beginning of `bytes` and how long it is; None when more bytes are needed.
///
/// Errors: `Argument` when the bytes are no frame, `LimitExceeded` when it is longer than `bytes_max`.
pub fn split(bytes: &[u8], bytes_max: usize) -> Result<Option<(Frame<'_>, usize)>> {
    let Some((&marker, rest)) = bytes.split_first() else { return Ok(None) };
    let width = match marker {
        0x00..=0x7f => 0,
        0xcc => 1,
        0xcd => 2,
        LENGTH_MARKER => 4,
        0xcf => 8,
        _ => return Err(Error::new(Code::Argument, "the stream does not begin with the length of a frame")),
    };
    let Some((length_bytes, rest)) = rest.split_at_checked(width) else { return Ok(None) };
    let length = match width {
        0 => u64::from(marker),
        _ => length_bytes.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
    };
    if length > bytes_max as u64 {
        let message = format!("a frame of {length} bytes is larger than the {bytes_max} that are allowed");
        return Err(Error::new(Code::LimitExceeded, message));
    }
    let length = length as usize;
    let Some(content) = rest.get(..length) else { return Ok(None) };
    Ok(Some((parse(content)?, 1 + width + length)))
}

/// How long the frame at the beginning of `bytes` is, if its length can be read already.
pub fn length_ahead(bytes: &[u8]) -> Option<usize> {
    let (&marker, rest) = bytes.split_first()?;
    let length = rest.first_chunk::<4>()?;
    (marker == LENGTH_MARKER).then(|| LENGTH_BYTES + u32::from_be_bytes(*length) as usize)
}

fn parse(content: &[u8]) -> Result<Frame<'_>> {
    let mut reader = Reader::new(content);
    let (mut code, mut sync) = (0, 0);
    for _ in 0..reader.map_len()? {
        match reader.uint()? {
            key::REQUEST_TYPE => code = reader.uint()?,
            key::SYNC => sync = reader.uint()?,
            _ => reader.skip()?,
        }
    }
    Ok(Frame { code, sync, body: reader.rest() })
}

/// Appends a frame to `out`: the header, and the body that `body` writes.
fn write(out: &mut Vec<u8>, code: u64, sync: u64, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([LENGTH_MARKER, 0, 0, 0, 0]);
    msgpack::write_map_len(out, 2);
    msgpack::write_uint(out, key::REQUEST_TYPE);
    msgpack::write_uint(out, code);
    msgpack::write_uint(out, key::SYNC);
    msgpack::write_uint(out, sync);
    body(out);
    let length = (out.len() - start - LENGTH_BYTES) as u32;
    out[start + 1..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// Appends a call of the C procedure `function`. `args` is one MessagePack array.
pub fn write_call(out: &mut Vec<u8>, sync: u64, function: &str, args: &[u8]) {
    write(out, request::CALL_16, sync, |out| {
        msgpack::write_map_len(out, 2);
        msgpack::write_uint(out, key::FUNCTION_NAME);
        msgpack::write_str(out, function);
        msgpack::write_uint(out, key::TUPLE);
        out.extend_from_slice(args);
    });
}

/// Appends the request that proves who we are, by the scramble of the password.
pub fn write_auth(out: &mut Vec<u8>, sync: u64, user: &str, scramble: &[u8]) {
    write(out, request::AUTH, sync, |out| {
        msgpack::write_map_len(out, 2);
        msgpack::write_uint(out, key::USER_NAME);
        msgpack::write_str(out, user);
        msgpack::write_uint(out, key::TUPLE);
        msgpack::write_array_len(out, 2);
        msgpack::write_str(out, crate::scramble::METHOD);
        msgpack::write_bin(out, scramble);
    });
}

/// Appends an answer that is one object, as a call of a C procedure answers; none for AUTH and PING.
pub fn write_answer(out: &mut Vec<u8>, sync: u64, object: Option<&[u8]>) {
    write(out, 0, sync, |out| {
        let Some(object) = object else { return msgpack::write_map_len(out, 0) };
        msgpack::write_map_len(out, 1);
        msgpack::write_uint(out, key::DATA);
        msgpack::write_array_len(out, 1);
        out.extend_from_slice(object);
    });
}

/// Appends an answer that is an error.
pub fn write_error(out: &mut Vec<u8>, sync: u64, error: &Error) {
    write(out, ERROR_FLAG | u64::from(error.number()), sync, |out| {
        msgpack::write_map_len(out, 1);
        msgpack::write_uint(out, key::ERROR);
        msgpack::write_str(out, &error.to_string());
    });
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// What was returned, one object after the other: one from a C procedure, any number from a Lua function.
    Values(&'a [u8]),
    /// The error's number on the wire and its text.
    Error(u32, &'a str),
}

impl<'a> Frame<'a> {
    /// Reads the frame as an answer.
    ///
    /// Errors: `Argument` when the body is not one.
    pub fn answer(&self) -> Result<Answer<'a>> {
        let mut reader = Reader::new(self.body);
        let pairs = if reader.is_empty() { 0 } else { reader.map_len()? };
        let is_error = self.code & ERROR_FLAG != 0;
        let mut text = "an error without a text";
        for _ in 0..pairs {
            match reader.uint()? {
                key::DATA if !is_error => {
                    reader.array_len()?;
                    return Ok(Answer::Values(reader.rest()));
                }
                key::ERROR if is_error => text = reader.str()?,
                _ => reader.skip()?,
            }
        }
        if is_error { Ok(Answer::Error((self.code & !ERROR_FLAG) as u32, text)) } else { Ok(Answer::Values(&[])) }
    }

    /// Reads the body of a CALL: the function's name and its arguments, one MessagePack array.
    pub fn call(&self) -> Result<(&'a str, &'a [u8])> {
        let (mut function, mut args) = (None, &[0x90][..]);
        let mut reader = Reader::new(self.body);
        for _ in 0..reader.map_len()? {
            match reader.uint()? {
                key::FUNCTION_NAME => function = Some(reader.str()?),
                key::TUPLE => args = reader.raw()?,
                _ => reader.skip()?,
            }
        }
        let function = function.ok_or_else(|| Error::new(Code::Argument, "a call without a function's name"))?;
        Ok((function, args))
    }

    /// Reads the body of an AUTH: the user's name and the scramble.
    ///
    /// Errors: `Unsupported` for another method than ours.
    pub fn auth(&self) -> Result<(&'a str, &'a [u8])> {
        let (mut user, mut scramble) = ("", &[][..]);
        let mut reader = Reader::new(self.body);
        for _ in 0..reader.map_len()? {
            match reader.uint()? {
                key::USER_NAME => user = reader.str()?,
                key::TUPLE => {
                    let parts = reader.array_len()?;
                    if parts != 2 || reader.str()? != crate::scramble::METHOD {
                        return Err(Error::new(Code::Unsupported, "only chap-sha1 is understood"));
                    }
                    scramble = read_bytes(reader.raw()?)?;
                }
                _ => reader.skip()?,
            }
        }
        Ok((user, scramble))
    }
}

/// The content of a string or of binary data: connectors send scrambles as either.
fn read_bytes(raw: &[u8]) -> Result<&[u8]> {
    let head = match raw.first() {
        Some(0xa0..=0xbf) => 1,
        Some(0xc4 | 0xd9) => 2,
        _ => return Err(Error::new(Code::Argument, "expected a scramble")),
    };
    Ok(&raw[head..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(bytes: &[u8]) -> Frame<'_> {
        let (frame, len) = split(bytes, 1 << 20).unwrap().unwrap();
        assert_eq!(len, bytes.len());
        assert_eq!(length_ahead(bytes), Some(len));
        frame
    }

    #[test]
    fn requests_are_read_as_they_were_written() {
        let mut out = Vec::new();
        write_call(&mut out, 7 << 32 | 3, "picodata.peer.batch", &[0x91, 0x05]);
        let frame = whole(&out);
        assert_eq!((frame.code, frame.sync), (request::CALL_16, 7 << 32 | 3));
        assert_eq!(frame.call().unwrap(), ("picodata.peer.batch", &[0x91, 0x05][..]));

        out.clear();
        write_auth(&mut out, 1, "pico_service", &[9; 20]);
        assert_eq!(whole(&out).auth().unwrap(), ("pico_service", &[9; 20][..]));
    }

    #[test]
    fn answers_and_errors_are_told_apart() {
        let mut out = Vec::new();
        write_answer(&mut out, 5, Some(&[0xa1, b'x']));
        assert_eq!(whole(&out).answer().unwrap(), Answer::Values(&[0xa1, b'x']));

        out.clear();
        write_answer(&mut out, 5, None);
        assert_eq!(whole(&out).answer().unwrap(), Answer::Values(&[]));

        out.clear();
        write_error(&mut out, 5, &Error::new(Code::WrongBucket, "bucket 7 moved").with_hint("ask again"));
        let expected = Answer::Error(Code::WrongBucket as u32, "bucket 7 moved (hint: ask again)");
        assert_eq!(whole(&out).answer().unwrap(), expected);
    }

    #[test]
    fn an_answer_of_the_host_is_read() {
        // Recorded from Tarantool 2.6.0: a C procedure that answered `[3]`, asked by IPROTO_CALL, which wraps it.
        let bytes = [
            0xce, 0, 0, 0, 0x21, 0x83, 0x00, 0xce, 0, 0, 0, 0, 0x01, 0xcf, 0, 0, 0, 1, 0, 0, 0, 2, 0x05, 0xce, 0, 0, 0,
            0x4e, 0x81, 0x30, 0xdd, 0, 0, 0, 1, 0x91, 0x91, 0x03,
        ];
        let frame = whole(&bytes);
        assert_eq!((frame.code, frame.sync), (0, 1 << 32 | 2));
        assert_eq!(frame.answer().unwrap(), Answer::Values(&[0x91, 0x91, 0x03]));
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_before_it_is_read() {
        let error = split(&[0xce, 0x7f, 0xff, 0xff, 0xff], 1 << 20).unwrap_err();
        assert_eq!(error.code, Code::LimitExceeded);
        assert_eq!(split(&[0xc0], 1 << 20).unwrap_err().code, Code::Argument);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_refused_or_wait_for_more(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(Some((frame, len))) = split(&bytes, 64) {
                prop_assert!(len <= bytes.len());
                let _ = (frame.answer(), frame.call(), frame.auth());
            }
        }

        #[test]
        fn a_frame_cut_anywhere_waits_for_the_rest(cut in 0usize..40, sync: u64) {
            let mut out = Vec::new();
            write_call(&mut out, sync, "f", &[0x90]);
            let cut = cut.min(out.len() - 1);
            prop_assert_eq!(split(&out[..cut], 1 << 20).unwrap(), None);
        }
    }
}
