//! From a sharding key to its bucket.
//!
//! Equal values must meet in one bucket however they were written: 1, 1.0 and decimal 1.00 are one number. So each field
//! of the key is first brought to a canonical payload, and the payloads are chained through xxh3, the hash of one field
//! seeding that of the next:
//!
//! ```text
//! h = 0; for each field: h = xxh3_64(payload, seed = h + tag)
//! field                                      tag  payload
//! null                                       1    nothing
//! boolean                                    2    one byte, 0 or 1
//! a number that is an i64, however written   3    8 bytes, little endian
//! any other number                           4    the bits of the nearest double, little endian; one NaN
//! text                                       5    its bytes
//! varbinary                                  6    its bytes
//! uuid                                       7    its 16 bytes
//! date, time, timestamps                     3    the integer that box stores
//! ```
//!
//! The function is frozen: rows on disk lie where it put them. The golden vectors below keep it so.
//!
//! Values are hashed as a column stores them, that is after `Value::coerce`: a date that is still text is another key.

use model::decimal;
use model::msgpack::Reader;
use model::value::UUID_EXT_TYPE;
use model::{BucketId, Code, Decimal, Error, Result, Value};
use std::io::Write;
use xxhash_rust::xxh3::xxh3_64_with_seed;

const TAG_NULL: u64 = 1;
const TAG_BOOLEAN: u64 = 2;
const TAG_INTEGER: u64 = 3;
const TAG_NUMBER: u64 = 4;
const TAG_TEXT: u64 = 5;
const TAG_BYTES: u64 = 6;
const TAG_UUID: u64 = 7;

/// The bucket, from 1, of a key's hash among `bucket_count` buckets (0 counts as 1).
#[inline]
pub fn bucket_of(hash: u64, bucket_count: u32) -> BucketId {
    let at = hash % u64::from(bucket_count.max(1));
    1 + at as BucketId // Below a u32, so nothing is cut off.
}

/// The hash of a complete sharding key.
///
/// Errors: `WrongType` for an array.
pub fn hash_values<'a>(key: impl IntoIterator<Item = &'a Value>) -> Result<u64> {
    let mut hasher = KeyHasher::default();
    for value in key {
        hasher.push(value)?;
    }
    Ok(hasher.finish())
}

/// The hash of the sharding key of a row that is still MessagePack: an array of column values, of which `key` holds the
/// positions that make the key. Does not allocate.
///
/// Errors: `Argument` when the bytes are broken or the row is too short, `WrongType` for an array or map in the key.
pub fn hash_row(row: &[u8], key: &[usize]) -> Result<u64> {
    let mut start = Reader::new(row);
    let len = start.array_len()?;
    let (mut reader, mut at) = (start, 0);
    let mut hasher = KeyHasher::default();
    for &position in key {
        if position >= len {
            let message = format!("a row of {len} values lacks the sharding key's value number {}", position + 1);
            return Err(Error::new(Code::Argument, message));
        }
        if position < at {
            (reader, at) = (start, 0);
        }
        while at < position {
            reader.skip()?;
            at += 1;
        }
        hasher.push_raw(&mut reader)?;
        at += 1;
    }
    Ok(hasher.finish())
}

/// Takes the fields of a key one by one, as values or straight from MessagePack, and gives their hash.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyHasher {
    state: u64,
}

impl KeyHasher {
    /// The hash of the fields so far.
    #[inline]
    pub fn finish(self) -> u64 {
        self.state
    }

    /// Takes one field.
    ///
    /// Errors: `WrongType` for an array.
    pub fn push(&mut self, value: &Value) -> Result<()> {
        match value {
            Value::Null => self.chain(TAG_NULL, &[]),
            Value::Boolean(b) => self.chain(TAG_BOOLEAN, &[u8::from(*b)]),
            Value::Integer(i) => self.integer(*i),
            Value::Double(d) => self.double(*d),
            Value::Decimal(d) => self.decimal(*d),
            Value::Text(s) => self.chain(TAG_TEXT, s.as_bytes()),
            Value::Bytes(b) => self.chain(TAG_BYTES, b),
            Value::Uuid(u) => self.chain(TAG_UUID, u),
            Value::Date(i) | Value::Time(i) | Value::Timestamp(i) | Value::TimestampTz(i) => self.integer(*i),
            Value::Array(_) => return Err(not_a_key("an array")),
        }
        Ok(())
    }

    /// Takes one field from MessagePack, as box stores it. Text needs not be UTF-8.
    ///
    /// Errors: `Argument` for broken bytes, `WrongType` for arrays, maps and foreign extensions.
    #[inline]
    pub fn push_raw(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        let (marker, payload, rest) = split_scalar(reader.rest())?;
        match marker {
            0x00..=0x7f => self.integer(i64::from(marker)),
            0xe0..=0xff => self.integer(i64::from(marker as i8)),
            0xc0 => self.chain(TAG_NULL, &[]),
            0xc2 | 0xc3 => self.chain(TAG_BOOLEAN, &[marker & 1]),
            0xcc => self.integer(i64::from(u8::from_be_bytes(fixed(payload)?))),
            0xcd => self.integer(i64::from(u16::from_be_bytes(fixed(payload)?))),
            0xce => self.integer(i64::from(u32::from_be_bytes(fixed(payload)?))),
            0xcf => self.unsigned(u64::from_be_bytes(fixed(payload)?)),
            0xd0 => self.integer(i64::from(i8::from_be_bytes(fixed(payload)?))),
            0xd1 => self.integer(i64::from(i16::from_be_bytes(fixed(payload)?))),
            0xd2 => self.integer(i64::from(i32::from_be_bytes(fixed(payload)?))),
            0xd3 => self.integer(i64::from_be_bytes(fixed(payload)?)),
            0xca => self.double(f64::from(f32::from_be_bytes(fixed(payload)?))),
            0xcb => self.double(f64::from_be_bytes(fixed(payload)?)),
            0xa0..=0xbf | 0xd9..=0xdb => self.chain(TAG_TEXT, payload),
            0xc4..=0xc6 => self.chain(TAG_BYTES, payload),
            _ => self.extension(payload)?,
        }
        *reader = Reader::new(rest);
        Ok(())
    }

    /// An extension: its type, then its payload.
    fn extension(&mut self, body: &[u8]) -> Result<()> {
        let (&kind, payload) = body.split_first().ok_or_else(broken)?;
        match kind as i8 {
            decimal::EXT_TYPE => self.decimal(Decimal::read_payload(payload)?),
            UUID_EXT_TYPE => self.chain(TAG_UUID, &fixed::<16>(payload)?),
            other => return Err(not_a_key(&format!("MessagePack extension {other}"))),
        }
        Ok(())
    }

    fn integer(&mut self, value: i64) {
        self.chain(TAG_INTEGER, &value.to_le_bytes());
    }

    fn unsigned(&mut self, value: u64) {
        match i64::try_from(value) {
            Ok(i) => self.integer(i),
            Err(_) => self.number(value as f64),
        }
    }

    fn double(&mut self, value: f64) {
        // 2^63 as a double is one past the largest i64.
        const BOUND: f64 = 9_223_372_036_854_775_808.0;
        if value.trunc() == value && (-BOUND..BOUND).contains(&value) {
            self.integer(value as i64);
        } else {
            self.number(value);
        }
    }

    fn decimal(&mut self, value: Decimal) {
        match value.to_i64() {
            Some(i) => self.integer(i),
            None => self.number(nearest_double(value)),
        }
    }

    fn number(&mut self, value: f64) {
        let canonical = if value.is_nan() { f64::NAN } else { value };
        self.chain(TAG_NUMBER, &canonical.to_bits().to_le_bytes());
    }

    #[inline]
    fn chain(&mut self, tag: u64, payload: &[u8]) {
        self.state = xxh3_64_with_seed(payload, self.state.wrapping_add(tag));
    }
}

/// The double nearest to a decimal, through its text as the standard library reads it, without allocating.
fn nearest_double(value: Decimal) -> f64 {
    let mut text = [0u8; 64]; // A sign, 39 digits, "e-" and at most 3 digits.
    let mut rest = &mut text[..];
    let written = write!(rest, "{}e-{}", value.unscaled, value.scale);
    let left = rest.len();
    debug_assert!(written.is_ok());
    let used = text.len() - left;
    std::str::from_utf8(&text[..used]).ok().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN)
}

fn fixed<const N: usize>(body: &[u8]) -> Result<[u8; N]> {
    body.try_into().map_err(|_| broken())
}

/// Splits off the first object: its marker, what it holds (for an extension with its type in front), and the rest. The
/// shared reader's `raw` knows arrays and maps too, which costs more than all the rest of the hash.
#[inline]
fn split_scalar(bytes: &[u8]) -> Result<(u8, &[u8], &[u8])> {
    let (&marker, body) = bytes.split_first().ok_or_else(broken)?;
    let (header, extra) = match marker {
        0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => (0, 0),
        0xcc | 0xd0 => (0, 1),
        0xcd | 0xd1 => (0, 2),
        0xca | 0xce | 0xd2 => (0, 4),
        0xcb | 0xcf | 0xd3 => (0, 8),
        0xa0..=0xbf => (0, usize::from(marker & 31)),
        0xd4..=0xd8 => (0, 1 + (1 << (marker - 0xd4))),
        0xc4 | 0xd9 => (1, 0),
        0xc5 | 0xda => (2, 0),
        0xc6 | 0xdb => (4, 0),
        0xc7 => (1, 1),
        0xc8 => (2, 1),
        0xc9 => (4, 1),
        0x90..=0x9f | 0xdc | 0xdd => return Err(not_a_key("an array")),
        0x80..=0x8f | 0xde | 0xdf => return Err(not_a_key("a map")),
        0xc1 => return Err(broken()),
    };
    let (length, body) = body.split_at_checked(header).ok_or_else(broken)?;
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    let (payload, rest) = body.split_at_checked(length + extra).ok_or_else(broken)?;
    Ok((marker, payload, rest))
}

fn broken() -> Error {
    Error::new(Code::Argument, "the MessagePack of a sharding key is malformed")
}

fn not_a_key(what: &str) -> Error {
    Error::new(Code::WrongType, format!("{what} can not be part of a sharding key"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_scalar() -> impl Strategy<Value = Value> {
        let bound = 10i128.pow(38) - 1;
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Boolean),
            any::<i64>().prop_map(Value::Integer),
            (any::<i64>(), 0u32..63).prop_map(|(i, shift)| Value::Integer(i >> shift)),
            any::<f64>().prop_map(Value::Double),
            (-bound..=bound, 0u8..=38).prop_map(|(u, s)| Value::Decimal(Decimal::new(u, s))),
            ".{0,40}".prop_map(Value::Text),
            "[a-z]{0,400}".prop_map(Value::Text),
            proptest::collection::vec(any::<u8>(), 0..70_000).prop_map(Value::Bytes),
            any::<[u8; 16]>().prop_map(Value::Uuid),
            any::<i64>().prop_map(Value::Timestamp),
        ]
    }

    fn row_of(values: &[Value]) -> Vec<u8> {
        let mut row = Vec::new();
        model::msgpack::write_array_len(&mut row, values.len());
        values.iter().for_each(|value| value.write_stored(&mut row));
        row
    }

    fn hash_one(value: Value) -> u64 {
        hash_values([&value]).unwrap()
    }

    proptest! {
        #[test]
        fn a_stored_row_hashes_like_its_values(
            values in proptest::collection::vec(any_scalar(), 1..6),
            picks in proptest::collection::vec(any::<proptest::sample::Index>(), 0..4),
        ) {
            let key: Vec<usize> = picks.iter().map(|pick| pick.index(values.len())).collect();
            let by_values = hash_values(key.iter().map(|&at| &values[at])).unwrap();
            prop_assert_eq!(hash_row(&row_of(&values), &key).unwrap(), by_values);
        }

        #[test]
        fn one_number_has_one_hash_however_written(number in any::<i64>(), shift in 0u32..63, scale in 0u8..=18) {
            let number = number >> shift;
            let expected = hash_one(Value::Integer(number));
            let scaled = i128::from(number) * 10i128.pow(scale.into());
            prop_assert_eq!(hash_one(Value::Decimal(Decimal::new(scaled, scale))), expected);
            if (number as f64) as i128 == i128::from(number) {
                prop_assert_eq!(hash_one(Value::Double(number as f64)), expected);
            }
            for bytes in encodings(number) {
                let row = [&[0x91], bytes.as_slice()].concat();
                prop_assert_eq!(hash_row(&row, &[0]).unwrap(), expected, "{:x?}", bytes);
            }
        }

        #[test]
        fn a_fraction_has_one_hash_as_decimal_and_as_double(unscaled in -1_000_000i64..1_000_000, scale in 1u8..6, zeros in 0u8..20) {
            let double: f64 = format!("{unscaled}e-{scale}").parse().unwrap();
            let longer = i128::from(unscaled) * 10i128.pow(zeros.into());
            prop_assert_eq!(
                hash_one(Value::Decimal(Decimal::new(longer, scale + zeros))),
                hash_one(Value::Double(double))
            );
        }

        #[test]
        fn any_bytes_are_hashed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64), at in 0usize..4) {
            let _ = hash_row(&bytes, &[at]);
        }
    }

    /// Every MessagePack form that holds the integer.
    fn encodings(number: i64) -> Vec<Vec<u8>> {
        let mut forms = Vec::new();
        if let Ok(u) = u64::try_from(number) {
            forms.push([&[0xcf][..], &u.to_be_bytes()].concat());
        }
        forms.push([&[0xd3][..], &number.to_be_bytes()].concat());
        if let Ok(i) = i32::try_from(number) {
            forms.push([&[0xd2][..], &i.to_be_bytes()].concat());
        }
        if let Ok(i) = i8::try_from(number) {
            forms.push(vec![0xd0, i as u8]);
        }
        if (number as f32) as i128 == i128::from(number) {
            forms.push([&[0xca][..], &(number as f32).to_be_bytes()].concat());
        }
        let mut shortest = Vec::new();
        model::msgpack::write_int(&mut shortest, number);
        forms.push(shortest);
        forms
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let text = |s: &str| Value::Text(s.into());
        let pair = |a: &str, b: &str| hash_values([&text(a), &text(b)]).unwrap();
        assert_ne!(pair("ab", "c"), pair("a", "bc"));
        assert_ne!(pair("", "a"), pair("a", ""));
        assert_ne!(hash_one(text("1")), hash_one(Value::Integer(1)));
        assert_ne!(hash_one(text("a")), hash_one(Value::Bytes(b"a".to_vec())));
        assert_ne!(hash_one(Value::Null), hash_values([&Value::Null, &Value::Null]).unwrap());
        assert_eq!(hash_one(Value::Double(-0.0)), hash_one(Value::Integer(0)));
        assert_eq!(hash_one(Value::Double(f64::NAN)), hash_one(Value::Double(-f64::NAN)));
        let over = u64::MAX; // Past i64: a decimal as the reader gives it, a double as a user may write it.
        assert_eq!(hash_one(Value::Decimal(Decimal::new(over.into(), 0))), hash_one(Value::Double(over as f64)));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let code = |row: &[u8], at| hash_row(row, &[at]).unwrap_err().code;
        assert_eq!(code(&[0x91, 0x90], 0), Code::WrongType);
        assert_eq!(code(&[0x91, 0x80], 0), Code::WrongType);
        assert_eq!(code(&[0x91, 0xd4, 9, 0], 0), Code::WrongType);
        assert_eq!(code(&[0x91, 0x01], 1), Code::Argument);
        assert_eq!(code(&[0x91, 0xd4, 2, 0], 0), Code::Argument);
        assert_eq!(code(&[0x01], 0), Code::Argument);
        assert_eq!(hash_values([&Value::Array(vec![])]).unwrap_err().code, Code::WrongType);
    }

    #[test]
    fn keys_spread_evenly() {
        const BUCKETS: u32 = 100;
        const KEYS: i64 = 100_000;
        let mut counts = [0u32; BUCKETS as usize];
        for key in 0..KEYS {
            counts[bucket_of(hash_one(Value::Integer(key)), BUCKETS) as usize - 1] += 1;
        }
        // A thousand each; five standard deviations are about 160.
        assert!(counts.iter().all(|n| (840..=1160).contains(n)), "{counts:?}");
    }

    /// Rows on disk lie where these say. A change here is a change of the format of every cluster.
    #[test]
    fn the_function_is_frozen() {
        let text = |s: &str| Value::Text(s.into());
        let decimal = |s: &str| Value::Decimal(s.parse().unwrap());
        let vectors: [(Vec<Value>, u64); 14] = [
            (vec![], 0),
            (vec![Value::Null], 0x4dc5_b0cc_826f_6703),
            (vec![Value::Boolean(true)], 0x64ba_3be0_638d_7735),
            (vec![Value::Integer(0)], 0xd4eb_d778_23c7_899a),
            (vec![Value::Integer(1)], 0xda47_ce5c_c134_efa4),
            (vec![Value::Integer(i64::MIN)], 0x0f06_3aef_9d22_9627),
            (vec![Value::Double(0.5)], 0xce00_02c0_6bfc_8fd1),
            (vec![decimal("1e30")], 0xa6ff_4d4d_d3aa_a1b9),
            (vec![text("")], 0x388e_c5bd_0562_e095),
            (vec![text("picodata")], 0x4348_8c88_f34d_dd5c),
            (vec![text(&"long ".repeat(100))], 0x2746_256f_ef8e_53c8),
            (vec![Value::Bytes(vec![0, 255])], 0x0058_39a7_bef4_dcf8),
            (vec![Value::Uuid(*b"0123456789abcdef")], 0xb5c9_aa9d_3ebd_6770),
            (vec![Value::Integer(42), text("a"), Value::Null], 0x1c91_adc5_e838_af97),
        ];
        for (key, expected) in vectors {
            assert_eq!(hash_values(&key).unwrap(), expected, "{key:?}");
        }
    }
}
