//! A single SQL value and its two MessagePack forms: as stored in box, and as shown to users.
//!
//! They differ for dates and times only, which the host stores as integers and users read as ISO 8601 text.

use crate::decimal::{self, Decimal};
use crate::error::{Code, Error, Result};
use crate::msgpack::{self, Reader};
use crate::temporal;
use crate::types::ColumnType;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A value. Integers of all widths share a variant; the column's type says which range holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    Null,
    Boolean(bool),
    Integer(i64),
    Double(f64),
    Decimal(Decimal),
    Text(String),
    Bytes(Vec<u8>),
    Uuid([u8; 16]),
    /// Days since 1970-01-01.
    Date(i64),
    /// Microseconds since midnight.
    Time(i64),
    /// Microseconds since 1970-01-01.
    Timestamp(i64),
    /// Microseconds since 1970-01-01 UTC.
    TimestampTz(i64),
    /// In results and parameters only: no column has this type yet.
    Array(Vec<Value>),
}

impl Value {
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// What the value is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Boolean(_) => "boolean",
            Value::Integer(_) => "integer",
            Value::Double(_) => "double",
            Value::Decimal(_) => "decimal",
            Value::Text(_) => "text",
            Value::Bytes(_) => "varbinary",
            Value::Uuid(_) => "uuid",
            Value::Date(_) => "date",
            Value::Time(_) => "time",
            Value::Timestamp(_) => "timestamp",
            Value::TimestampTz(_) => "timestamptz",
            Value::Array(_) => "array",
        }
    }

    /// The value as a column of type `ty` keeps it: range and length checked, text parsed where the type has a text
    /// form, decimals rounded to their scale, CHAR padded. Null passes: whether it may be is the table's affair.
    ///
    /// Errors: `WrongType` when no implicit conversion exists, `ValueOutOfRange` when it does not fit.
    pub fn coerce(self, ty: ColumnType) -> Result<Value> {
        use ColumnType as T;
        let out_of_range = |v: &dyn fmt::Display| Error::new(Code::ValueOutOfRange, format!("{v} does not fit {ty}"));
        let integer_in = |i: i64, min: i64, max: i64| {
            if (min..=max).contains(&i) { Ok(Value::Integer(i)) } else { Err(out_of_range(&i)) }
        };
        Ok(match (ty, self) {
            (_, Value::Null) => Value::Null,
            (T::Boolean, Value::Boolean(b)) => Value::Boolean(b),
            (T::SmallInt | T::Integer | T::BigInt | T::Unsigned, v) => {
                let i = v.to_integer(ty)?;
                match ty {
                    T::SmallInt => integer_in(i, i16::MIN.into(), i16::MAX.into())?,
                    T::Integer => integer_in(i, i32::MIN.into(), i32::MAX.into())?,
                    T::Unsigned => integer_in(i, 0, i64::MAX)?,
                    _ => Value::Integer(i),
                }
            }
            (T::Real, v) => match v.to_double(ty)? {
                d if d.is_finite() && (d as f32).is_infinite() => return Err(out_of_range(&d)),
                d => Value::Double((d as f32).into()),
            },
            (T::Double, v) => Value::Double(v.to_double(ty)?),
            (T::Decimal { precision, scale }, v) => {
                let d = v.to_decimal(ty)?;
                Value::Decimal(d.fit(precision, scale).ok_or_else(|| out_of_range(&d))?)
            }
            (T::Text, Value::Text(s)) => Value::Text(s),
            (T::Varchar { length }, Value::Text(s)) => Value::Text(fit_text(s, length, ty)?),
            (T::Char { length }, Value::Text(s)) => {
                let mut s = fit_text(s, length, ty)?;
                let missing = (length as usize).saturating_sub(s.chars().count());
                s.extend(std::iter::repeat_n(' ', missing));
                Value::Text(s)
            }
            (T::Json, Value::Text(s)) if crate::json::is_json(&s) => Value::Text(s),
            (T::Json, Value::Text(s)) => {
                let what = format!("{} is not JSON", Value::Text(s));
                return Err(Error::new(Code::WrongType, what));
            }
            (T::Varbinary, Value::Bytes(b)) => Value::Bytes(b),
            (T::Varbinary, Value::Text(s)) => Value::Bytes(s.into_bytes()),
            (T::Uuid, Value::Uuid(u)) => Value::Uuid(u),
            (T::Uuid, Value::Text(s)) => Value::Uuid(parse_uuid(&s)?),
            (T::Date, Value::Date(d)) => Value::Date(d),
            (T::Date, Value::Text(s)) => Value::Date(temporal::parse_date(&s)?),
            (T::Date, Value::Timestamp(t) | Value::TimestampTz(t)) => {
                Value::Date(t.div_euclid(temporal::MICROS_PER_DAY))
            }
            (T::Time, Value::Time(t)) => Value::Time(t),
            (T::Time, Value::Text(s)) => Value::Time(temporal::parse_time(&s)?),
            (T::Timestamp, Value::Timestamp(t) | Value::TimestampTz(t)) => Value::Timestamp(t),
            (T::Timestamp, Value::Date(d)) => Value::Timestamp(d * temporal::MICROS_PER_DAY),
            (T::Timestamp, Value::Text(s)) => Value::Timestamp(temporal::parse_timestamp(&s)?),
            (T::TimestampTz, Value::Timestamp(t) | Value::TimestampTz(t)) => Value::TimestampTz(t),
            (T::TimestampTz, Value::Date(d)) => Value::TimestampTz(d * temporal::MICROS_PER_DAY),
            (T::TimestampTz, Value::Text(s)) => Value::TimestampTz(temporal::parse_timestamp(&s)?),
            (_, v) => return Err(v.wrong_type(ty)),
        })
    }

    fn wrong_type(&self, ty: ColumnType) -> Error {
        Error::new(Code::WrongType, format!("{} is {}, but the column's type is {ty}", self, self.kind()))
    }

    fn to_integer(&self, ty: ColumnType) -> Result<i64> {
        let out_of_range = || Error::new(Code::ValueOutOfRange, format!("{self} does not fit {ty}"));
        match self {
            Value::Integer(i) => Ok(*i),
            Value::Decimal(d) => d.rescaled(0).and_then(Decimal::to_i64).ok_or_else(out_of_range),
            Value::Double(d) => {
                let rounded = d.round_ties_even();
                // 2^63 as a double is one past the largest i64.
                let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&rounded);
                if fits { Ok(rounded as i64) } else { Err(out_of_range()) }
            }
            _ => Err(self.wrong_type(ty)),
        }
    }

    fn to_double(&self, ty: ColumnType) -> Result<f64> {
        match self {
            Value::Integer(i) => Ok(*i as f64),
            Value::Decimal(d) => Ok(d.to_f64()),
            Value::Double(d) => Ok(*d),
            _ => Err(self.wrong_type(ty)),
        }
    }

    fn to_decimal(&self, ty: ColumnType) -> Result<Decimal> {
        match self {
            Value::Integer(i) => Ok(Decimal::from(*i)),
            Value::Decimal(d) => Ok(*d),
            // The shortest text that reads back as this double is what its writer meant.
            Value::Double(d) => {
                d.to_string().parse().map_err(|_| Error::new(Code::ValueOutOfRange, format!("{d} does not fit {ty}")))
            }
            _ => Err(self.wrong_type(ty)),
        }
    }

    /// Appends the value as box stores it.
    pub fn write_stored(&self, out: &mut Vec<u8>) {
        match self {
            Value::Date(i) | Value::Time(i) | Value::Timestamp(i) | Value::TimestampTz(i) => {
                msgpack::write_int(out, *i)
            }
            other => other.write_shown(out),
        }
    }

    /// Appends the value as users read it.
    pub fn write_shown(&self, out: &mut Vec<u8>) {
        match self {
            Value::Null => msgpack::write_nil(out),
            Value::Boolean(b) => msgpack::write_bool(out, *b),
            Value::Integer(i) => msgpack::write_int(out, *i),
            Value::Double(d) => msgpack::write_double(out, *d),
            Value::Decimal(d) => {
                let mut payload = Vec::with_capacity(24);
                d.write_payload(&mut payload);
                msgpack::write_ext(out, decimal::EXT_TYPE, &payload);
            }
            Value::Text(s) => msgpack::write_str(out, s),
            Value::Bytes(b) => msgpack::write_bin(out, b),
            Value::Uuid(u) => msgpack::write_ext(out, UUID_EXT_TYPE, u),
            Value::Date(_) | Value::Time(_) | Value::Timestamp(_) | Value::TimestampTz(_) => {
                msgpack::write_str(out, &self.to_string());
            }
            Value::Array(items) => {
                msgpack::write_array_len(out, items.len());
                items.iter().for_each(|item| item.write_shown(out));
            }
        }
    }

    /// Reads a value whose type is not known, as a parameter arrives.
    ///
    /// Errors: `Argument` for maps, foreign extensions and broken bytes.
    pub fn read(reader: &mut Reader<'_>) -> Result<Value> {
        reader.value()
    }

    /// Reads a value that box stored for a column of type `ty`.
    pub fn read_stored(reader: &mut Reader<'_>, ty: ColumnType) -> Result<Value> {
        Ok(match (ty, reader.value()?) {
            (ColumnType::Date, Value::Integer(i)) => Value::Date(i),
            (ColumnType::Time, Value::Integer(i)) => Value::Time(i),
            (ColumnType::Timestamp, Value::Integer(i)) => Value::Timestamp(i),
            (ColumnType::TimestampTz, Value::Integer(i)) => Value::TimestampTz(i),
            (_, value) => value,
        })
    }
}

/// MessagePack's extension type for UUIDs on the host.
pub const UUID_EXT_TYPE: i8 = 2;

fn fit_text(mut text: String, length: u32, ty: ColumnType) -> Result<String> {
    let Some((cut, _)) = text.char_indices().nth(length as usize) else { return Ok(text) };
    // The standard lets spaces past the end be dropped.
    if text[cut..].bytes().all(|b| b == b' ') {
        text.truncate(cut);
        return Ok(text);
    }
    let chars = text.chars().count();
    Err(Error::new(Code::ValueOutOfRange, format!("a value of {chars} characters is too long for {ty}")))
}

/// Reads `64d22e4d-ac92-4a23-899a-e59f34af5479`, hyphens optional.
pub fn parse_uuid(text: &str) -> Result<[u8; 16]> {
    let bad = || Error::new(Code::WrongType, format!("\"{text}\" is not a UUID"));
    let mut uuid = [0u8; 16];
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
    if digits.len() != 32 {
        return Err(bad());
    }
    for (byte, pair) in uuid.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |b: u8| char::from(b).to_digit(16).ok_or_else(bad);
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Ok(uuid)
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("NULL"),
            Value::Boolean(b) => write!(f, "{b}"),
            Value::Integer(i) => write!(f, "{i}"),
            Value::Double(d) => write!(f, "{d}"),
            Value::Decimal(d) => write!(f, "{d}"),
            Value::Text(s) => write_quoted(f, s),
            Value::Bytes(b) => {
                f.write_str("x'")?;
                b.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str("'")
            }
            Value::Uuid(u) => {
                for (i, byte) in u.iter().enumerate() {
                    let hyphen = if [4, 6, 8, 10].contains(&i) { "-" } else { "" };
                    write!(f, "{hyphen}{byte:02x}")?;
                }
                Ok(())
            }
            Value::Date(d) => f.write_str(&temporal::format_date(*d)),
            Value::Time(t) => f.write_str(&temporal::format_time(*t)),
            Value::Timestamp(t) => f.write_str(&temporal::format_timestamp(*t, false)),
            Value::TimestampTz(t) => f.write_str(&temporal::format_timestamp(*t, true)),
            Value::Array(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
        }
    }
}

/// Writes text in SQL quotes, cut where it would swamp a message.
fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    const CHARS_MAX: usize = 60;
    let cut = text.char_indices().nth(CHARS_MAX).map_or(text.len(), |(at, _)| at);
    let more = if cut < text.len() { "..." } else { "" };
    write!(f, "'{}{more}'", text[..cut].replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Boolean),
            any::<i64>().prop_map(Value::Integer),
            any::<f64>().prop_filter("equal to itself", |d| !d.is_nan()).prop_map(Value::Double),
            (any::<i64>(), 0u8..=38).prop_map(|(u, s)| Value::Decimal(Decimal::new(u.into(), s))),
            ".{0,40}".prop_map(Value::Text),
            proptest::collection::vec(any::<u8>(), 0..300).prop_map(Value::Bytes),
            any::<[u8; 16]>().prop_map(Value::Uuid),
        ]
    }

    proptest! {
        #[test]
        fn values_survive_messagepack(values in proptest::collection::vec(any_value(), 0..8)) {
            let mut bytes = Vec::new();
            Value::Array(values.clone()).write_stored(&mut bytes);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(Value::read(&mut reader).unwrap(), Value::Array(values));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Value::read(&mut Reader::new(&bytes));
        }
    }

    #[test]
    fn coercion_checks_range_and_length() {
        let coerce = |v: Value, ty| v.coerce(ty).map_err(|e| e.code);
        let varchar = ColumnType::Varchar { length: 3 };
        assert_eq!(coerce(Value::Integer(32_768), ColumnType::SmallInt), Err(Code::ValueOutOfRange));
        assert_eq!(coerce(Value::Integer(1 << 31), ColumnType::Integer), Err(Code::ValueOutOfRange));
        assert_eq!(coerce(Value::Integer(-1), ColumnType::Unsigned), Err(Code::ValueOutOfRange));
        assert_eq!(coerce(Value::Text("1".into()), ColumnType::Integer), Err(Code::WrongType));
        assert_eq!(coerce(Value::Double(1e30), ColumnType::BigInt), Err(Code::ValueOutOfRange));
        assert_eq!(coerce(Value::Text("héé".into()), varchar), Ok(Value::Text("héé".into())));
        assert_eq!(coerce(Value::Text("abc  ".into()), varchar), Ok(Value::Text("abc".into())));
        assert_eq!(coerce(Value::Text("abcd".into()), varchar), Err(Code::ValueOutOfRange));
        assert_eq!(coerce(Value::Text("a".into()), ColumnType::Char { length: 3 }), Ok(Value::Text("a  ".into())));
        let money = ColumnType::Decimal { precision: 5, scale: 2 };
        assert_eq!(coerce(Value::Double(0.125), money), Ok(Value::Decimal(Decimal::new(13, 2))));
        assert_eq!(coerce(Value::Integer(1000), money), Err(Code::ValueOutOfRange));
        assert_eq!(coerce(Value::Null, money), Ok(Value::Null));
    }
}
