//! MessagePack, as much of it as rows and requests need: writers that append to a buffer, and a reader over borrowed
//! bytes that never trusts a length.

use crate::decimal::{self, Decimal};
use crate::error::{Code, Error, Result};
use crate::value::{UUID_EXT_TYPE, Value};

/// How deep arrays and maps may nest in a request. The reader recurses, and a fiber's stack is small.
pub const DEPTH_MAX: usize = 32;

pub fn write_nil(out: &mut Vec<u8>) {
    out.push(0xc0);
}

pub fn write_bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { 0xc3 } else { 0xc2 });
}

/// The shortest form, as the host writes it: non-negative numbers are unsigned.
pub fn write_int(out: &mut Vec<u8>, value: i64) {
    match value {
        0.. => write_uint(out, value as u64),
        -32..=-1 => out.push(value as i8 as u8),
        -0x80..=-33 => out.extend([0xd0, value as i8 as u8]),
        -0x8000..=-0x81 => write_head(out, 0xd1, &(value as i16).to_be_bytes()),
        -0x8000_0000..=-0x8001 => write_head(out, 0xd2, &(value as i32).to_be_bytes()),
        _ => write_head(out, 0xd3, &value.to_be_bytes()),
    }
}

pub fn write_uint(out: &mut Vec<u8>, value: u64) {
    match value {
        0..=0x7f => out.push(value as u8),
        0x80..=0xff => out.extend([0xcc, value as u8]),
        0x100..=0xffff => write_head(out, 0xcd, &(value as u16).to_be_bytes()),
        0x1_0000..=0xffff_ffff => write_head(out, 0xce, &(value as u32).to_be_bytes()),
        _ => write_head(out, 0xcf, &value.to_be_bytes()),
    }
}

pub fn write_double(out: &mut Vec<u8>, value: f64) {
    write_head(out, 0xcb, &value.to_be_bytes());
}

pub fn write_str(out: &mut Vec<u8>, text: &str) {
    match text.len() {
        len @ 0..=31 => out.push(0xa0 | len as u8),
        len @ 32..=0xff => out.extend([0xd9, len as u8]),
        len @ 0x100..=0xffff => write_head(out, 0xda, &(len as u16).to_be_bytes()),
        len => write_head(out, 0xdb, &(len as u32).to_be_bytes()),
    }
    out.extend_from_slice(text.as_bytes());
}

pub fn write_bin(out: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        len @ 0..=0xff => out.extend([0xc4, len as u8]),
        len @ 0x100..=0xffff => write_head(out, 0xc5, &(len as u16).to_be_bytes()),
        len => write_head(out, 0xc6, &(len as u32).to_be_bytes()),
    }
    out.extend_from_slice(bytes);
}

pub fn write_array_len(out: &mut Vec<u8>, len: usize) {
    match len {
        0..=15 => out.push(0x90 | len as u8),
        16..=0xffff => write_head(out, 0xdc, &(len as u16).to_be_bytes()),
        _ => write_head(out, 0xdd, &(len as u32).to_be_bytes()),
    }
}

pub fn write_map_len(out: &mut Vec<u8>, len: usize) {
    match len {
        0..=15 => out.push(0x80 | len as u8),
        16..=0xffff => write_head(out, 0xde, &(len as u16).to_be_bytes()),
        _ => write_head(out, 0xdf, &(len as u32).to_be_bytes()),
    }
}

pub fn write_ext(out: &mut Vec<u8>, ext_type: i8, payload: &[u8]) {
    match payload.len() {
        1 => out.push(0xd4),
        2 => out.push(0xd5),
        4 => out.push(0xd6),
        8 => out.push(0xd7),
        16 => out.push(0xd8),
        len @ 0..=0xff => out.extend([0xc7, len as u8]),
        len @ 0x100..=0xffff => write_head(out, 0xc8, &(len as u16).to_be_bytes()),
        len => write_head(out, 0xc9, &(len as u32).to_be_bytes()),
    }
    out.push(ext_type as u8);
    out.extend_from_slice(payload);
}

fn write_head(out: &mut Vec<u8>, marker: u8, bytes: &[u8]) {
    out.push(marker);
    out.extend_from_slice(bytes);
}

/// Reads MessagePack from a slice. Every method either consumes one object or fails with `Argument`.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The bytes not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or_else(broken)?;
        self.rest = rest;
        Ok(head)
    }

    fn be<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(broken)?;
        self.rest = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8> {
        self.be::<1>().map(|[b]| b)
    }

    fn len8(&mut self) -> Result<usize> {
        self.u8().map(usize::from)
    }

    fn len16(&mut self) -> Result<usize> {
        self.be().map(u16::from_be_bytes).map(usize::from)
    }

    fn len32(&mut self) -> Result<usize> {
        self.be().map(u32::from_be_bytes).map(|len| len as usize)
    }

    /// The marker byte of the next object, not consumed.
    pub fn peek(&self) -> Result<u8> {
        self.rest.first().copied().ok_or_else(broken)
    }

    pub fn is_nil(&self) -> bool {
        self.rest.first() == Some(&0xc0)
    }

    /// Consumes a nil if one is next.
    pub fn take_nil(&mut self) -> bool {
        let nil = self.is_nil();
        if nil {
            self.rest = &self.rest[1..];
        }
        nil
    }

    pub fn array_len(&mut self) -> Result<usize> {
        let len = match self.u8()? {
            marker @ 0x90..=0x9f => usize::from(marker & 15),
            0xdc => self.len16()?,
            0xdd => self.len32()?,
            _ => return Err(expected("an array")),
        };
        // Each element takes a byte at least, so a length beyond that is a lie.
        if len > self.rest.len() { Err(broken()) } else { Ok(len) }
    }

    pub fn map_len(&mut self) -> Result<usize> {
        let len = match self.u8()? {
            marker @ 0x80..=0x8f => usize::from(marker & 15),
            0xde => self.len16()?,
            0xdf => self.len32()?,
            _ => return Err(expected("a map")),
        };
        if len > self.rest.len() / 2 { Err(broken()) } else { Ok(len) }
    }

    pub fn str(&mut self) -> Result<&'a str> {
        let len = match self.u8()? {
            marker @ 0xa0..=0xbf => usize::from(marker & 31),
            0xd9 => self.len8()?,
            0xda => self.len16()?,
            0xdb => self.len32()?,
            _ => return Err(expected("a string")),
        };
        std::str::from_utf8(self.bytes(len)?).map_err(|_| Error::new(Code::Argument, "a string is not valid UTF-8"))
    }

    pub fn bin(&mut self) -> Result<&'a [u8]> {
        let len = match self.u8()? {
            0xc4 => self.len8()?,
            0xc5 => self.len16()?,
            0xc6 => self.len32()?,
            _ => return Err(expected("binary data")),
        };
        self.bytes(len)
    }

    pub fn bool(&mut self) -> Result<bool> {
        match self.u8()? {
            0xc2 => Ok(false),
            0xc3 => Ok(true),
            _ => Err(expected("a boolean")),
        }
    }

    pub fn uint(&mut self) -> Result<u64> {
        match self.value()? {
            Value::Integer(i) => u64::try_from(i).map_err(|_| expected("a number that is not negative")),
            _ => Err(expected("an integer")),
        }
    }

    pub fn int(&mut self) -> Result<i64> {
        match self.value()? {
            Value::Integer(i) => Ok(i),
            _ => Err(expected("an integer")),
        }
    }

    /// A number of any kind as a double.
    pub fn number(&mut self) -> Result<f64> {
        match self.value()? {
            Value::Integer(i) => Ok(i as f64),
            Value::Double(d) => Ok(d),
            Value::Decimal(d) => Ok(d.to_f64()),
            _ => Err(expected("a number")),
        }
    }

    /// The bytes of the next object, whatever it is. Does not recurse.
    pub fn raw(&mut self) -> Result<&'a [u8]> {
        let start = self.rest;
        let mut objects: usize = 1;
        while objects > 0 {
            objects -= 1;
            let marker = self.u8()?;
            let skip = match marker {
                0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => 0,
                0x80..=0x8f => {
                    objects += usize::from(marker & 15) * 2;
                    0
                }
                0x90..=0x9f => {
                    objects += usize::from(marker & 15);
                    0
                }
                0xa0..=0xbf => usize::from(marker & 31),
                0xcc | 0xd0 => 1,
                0xcd | 0xd1 => 2,
                0xca | 0xce | 0xd2 => 4,
                0xcb | 0xcf | 0xd3 => 8,
                0xc4 | 0xd9 => self.len8()?,
                0xc5 | 0xda => self.len16()?,
                0xc6 | 0xdb => self.len32()?,
                0xc7 => self.len8()? + 1,
                0xc8 => self.len16()? + 1,
                0xc9 => self.len32()? + 1,
                0xd4..=0xd8 => (1 << (marker - 0xd4)) + 1,
                0xdc => {
                    objects += self.len16()?;
                    0
                }
                0xdd => {
                    objects += self.len32()?;
                    0
                }
                0xde => {
                    objects += self.len16()? * 2;
                    0
                }
                0xdf => {
                    objects += self.len32()? * 2;
                    0
                }
                0xc1 => return Err(broken()),
            };
            self.bytes(skip)?;
            if objects > self.rest.len() {
                return Err(broken());
            }
        }
        Ok(&start[..start.len() - self.rest.len()])
    }

    pub fn skip(&mut self) -> Result<()> {
        self.raw().map(|_| ())
    }

    /// The next object as a value.
    pub fn value(&mut self) -> Result<Value> {
        self.value_at(0)
    }

    fn value_at(&mut self, depth: usize) -> Result<Value> {
        Ok(match self.peek()? {
            0xc0 => {
                self.rest = &self.rest[1..];
                Value::Null
            }
            0xc2 | 0xc3 => Value::Boolean(self.bool()?),
            0xa0..=0xbf | 0xd9..=0xdb => Value::Text(self.str()?.to_owned()),
            0xc4..=0xc6 => Value::Bytes(self.bin()?.to_vec()),
            0x90..=0x9f | 0xdc | 0xdd => {
                if depth >= DEPTH_MAX {
                    return Err(Error::new(Code::LimitExceeded, format!("arrays nest deeper than {DEPTH_MAX}")));
                }
                let len = self.array_len()?;
                let mut items = Vec::with_capacity(len.min(1024));
                for _ in 0..len {
                    items.push(self.value_at(depth + 1)?);
                }
                Value::Array(items)
            }
            0xc7..=0xc9 | 0xd4..=0xd8 => self.ext_value()?,
            0x80..=0x8f | 0xde | 0xdf => return Err(Error::new(Code::Argument, "a map is not an SQL value")),
            _ => self.number_value()?,
        })
    }

    fn number_value(&mut self) -> Result<Value> {
        Ok(Value::Integer(match self.u8()? {
            marker @ 0x00..=0x7f => i64::from(marker),
            marker @ 0xe0..=0xff => i64::from(marker as i8),
            0xcc => i64::from(self.u8()?),
            0xcd => i64::from(u16::from_be_bytes(self.be()?)),
            0xce => i64::from(u32::from_be_bytes(self.be()?)),
            0xcf => {
                let unsigned = u64::from_be_bytes(self.be()?);
                match i64::try_from(unsigned) {
                    Ok(i) => i,
                    Err(_) => return Ok(Value::Decimal(Decimal::new(unsigned.into(), 0))),
                }
            }
            0xd0 => i64::from(self.u8()? as i8),
            0xd1 => i64::from(i16::from_be_bytes(self.be()?)),
            0xd2 => i64::from(i32::from_be_bytes(self.be()?)),
            0xd3 => i64::from_be_bytes(self.be()?),
            0xca => return Ok(Value::Double(f32::from_be_bytes(self.be()?).into())),
            0xcb => return Ok(Value::Double(f64::from_be_bytes(self.be()?))),
            _ => return Err(broken()),
        }))
    }

    fn ext_value(&mut self) -> Result<Value> {
        let len = match self.u8()? {
            marker @ 0xd4..=0xd8 => 1 << (marker - 0xd4),
            0xc7 => self.len8()?,
            0xc8 => self.len16()?,
            _ => self.len32()?,
        };
        let ext_type = self.u8()? as i8;
        let payload = self.bytes(len)?;
        match ext_type {
            decimal::EXT_TYPE => Ok(Value::Decimal(Decimal::read_payload(payload)?)),
            UUID_EXT_TYPE => Ok(Value::Uuid(payload.try_into().map_err(|_| broken())?)),
            other => Err(Error::new(Code::Argument, format!("MessagePack extension {other} is not an SQL value"))),
        }
    }
}

fn broken() -> Error {
    Error::new(Code::Argument, "the MessagePack is cut short or malformed")
}

fn expected(what: &str) -> Error {
    Error::new(Code::Argument, format!("expected {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_take_the_shortest_form_and_come_back(value in any::<i64>(), shift in 0u32..64) {
            let value = value >> shift;
            let mut ours = Vec::new();
            write_int(&mut ours, value);
            let mut theirs = Vec::new();
            rmp::encode::write_sint(&mut theirs, value).unwrap();
            prop_assert_eq!(&ours, &theirs);
            prop_assert_eq!(Reader::new(&ours).int().unwrap(), value);
        }

        #[test]
        fn raw_consumes_what_value_consumes(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let (mut a, mut b) = (Reader::new(&bytes), Reader::new(&bytes));
            if a.value().is_ok() {
                b.raw().unwrap();
                prop_assert_eq!(a.rest(), b.rest());
            }
        }
    }

    #[test]
    fn lengths_that_lie_are_refused_without_allocating() {
        for bytes in
            [&[0xdd, 0xff, 0xff, 0xff, 0xff][..], &[0xdf, 0xff, 0xff, 0xff, 0xff], &[0xdb, 0xff, 0xff, 0xff, 0xff, 1]]
        {
            assert_eq!(Reader::new(bytes).value().unwrap_err().code, Code::Argument);
            assert!(Reader::new(bytes).raw().is_err());
        }
        let deep = vec![0x91; 100_000];
        assert_eq!(Reader::new(&deep).value().unwrap_err().code, Code::LimitExceeded);
        assert!(Reader::new(&deep).raw().is_err());
    }
}
