//! One value on its way into a column, from MessagePack to MessagePack.
//!
//! What already has the column's form is checked where it lies and copied; anything else takes the long way through
//! `model::Value::coerce`, which is the one place that knows the conversions. Both ways accept the same values and
//! store the same values: a property test holds them together.

use model::msgpack::Reader;
use model::{Code, ColumnType, Decimal, Error, Result, Value, decimal};

/// How the values of one column are checked and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub ty: ColumnType,
}

impl Cell {
    pub fn new(ty: ColumnType) -> Self {
        Self { ty }
    }

    /// Whether users read something else than box stores.
    pub fn is_temporal(self) -> bool {
        use ColumnType::*;
        matches!(self.ty, Date | Time | Timestamp | TimestampTz)
    }

    /// Whether the host's field type admits values that the column does not, so that a row has to be looked at again
    /// after the host has computed it.
    pub fn is_stricter_than_host(self) -> bool {
        use ColumnType::*;
        !matches!(self.ty, Boolean | BigInt | Unsigned | Double | Varbinary | Uuid)
    }

    /// Consumes one value that is not nil and appends its stored form.
    ///
    /// Errors: `WrongType`, `ValueOutOfRange`, `Argument` for broken MessagePack.
    pub fn write(self, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<()> {
        let mut ahead = *reader;
        let bytes = ahead.raw()?;
        if self.fits(bytes)? {
            out.extend_from_slice(bytes);
            *reader = ahead;
            return Ok(());
        }
        let value = reader.value()?.coerce(self.ty)?;
        self.check_json(&value)?;
        value.write_stored(out);
        Ok(())
    }

    /// Checks a value that box computed or holds, in its stored form.
    pub fn check_stored(self, bytes: &[u8]) -> Result<()> {
        if self.fits(bytes)? {
            return Ok(());
        }
        let value = Value::read_stored(&mut Reader::new(bytes), self.ty)?;
        // The host computes REAL in double precision; readers take what lies nearest.
        if let (ColumnType::Real, Value::Double(d)) = (self.ty, &value)
            && (!d.is_finite() || (*d as f32).is_finite())
        {
            return Ok(());
        }
        let kept = value.clone().coerce(self.ty)?;
        self.check_json(&kept)?;
        // What coercion would change (a scale, a padding) did not come from a checked write.
        if kept == value && !self.is_temporal_out_of_range(&value) {
            return Ok(());
        }
        Err(Error::new(Code::ValueOutOfRange, format!("{value} does not fit {}", self.ty)))
    }

    /// Whether the bytes of one whole object are the stored form of a value of this column, seen without decoding.
    /// False means only that the long way has to decide.
    fn fits(self, bytes: &[u8]) -> Result<bool> {
        use ColumnType::*;
        let Some((&marker, _)) = bytes.split_first() else { return Ok(false) };
        Ok(match self.ty {
            Boolean => matches!(marker, 0xc2 | 0xc3),
            SmallInt => shortest_integer(bytes).is_some_and(|i| i16::try_from(i).is_ok()),
            Integer => shortest_integer(bytes).is_some_and(|i| i32::try_from(i).is_ok()),
            BigInt => shortest_integer(bytes).is_some(),
            Unsigned => shortest_integer(bytes).is_some_and(|i| i >= 0),
            Double => marker == 0xcb,
            Real => double(bytes).is_some_and(|d| f64::from(d as f32) == d),
            Decimal { precision, scale } => {
                decimal_of(bytes).is_some_and(|d| d.scale == scale && d.fit(precision, scale).is_some())
            }
            Text => is_text(marker) && Reader::new(bytes).str().map(|_| true)?,
            // As many bytes as characters are allowed can not be too many characters.
            Varchar { length } => is_text(marker) && Reader::new(bytes).str()?.len() <= length as usize,
            Char { length } => is_text(marker) && is_ascii_of(Reader::new(bytes).str()?, length),
            Json | Date | Time | Timestamp | TimestampTz => false,
            Varbinary => matches!(marker, 0xc4..=0xc6),
            Uuid => marker == 0xd8 && bytes.get(1) == Some(&(model::value::UUID_EXT_TYPE as u8)),
        })
    }

    fn check_json(self, value: &Value) -> Result<()> {
        let (ColumnType::Json, Value::Text(text)) = (self.ty, value) else { return Ok(()) };
        match serde_json::from_str::<serde::de::IgnoredAny>(text) {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::new(Code::WrongType, format!("the text is not JSON: {error}"))),
        }
    }

    /// Whether arithmetic by the host moved a date or time out of the calendar.
    fn is_temporal_out_of_range(self, value: &Value) -> bool {
        const DAYS_MIN: i64 = -719_162;
        const DAYS_MAX: i64 = 2_932_896;
        use model::temporal::MICROS_PER_DAY;
        match *value {
            Value::Date(days) => !(DAYS_MIN..=DAYS_MAX).contains(&days),
            Value::Time(micros) => !(0..MICROS_PER_DAY).contains(&micros),
            Value::Timestamp(micros) | Value::TimestampTz(micros) => {
                !(DAYS_MIN..=DAYS_MAX).contains(&micros.div_euclid(MICROS_PER_DAY))
            }
            _ => false,
        }
    }
}

fn is_text(marker: u8) -> bool {
    matches!(marker, 0xa0..=0xbf | 0xd9..=0xdb)
}

fn is_ascii_of(text: &str, length: u32) -> bool {
    text.len() == length as usize && text.is_ascii()
}

/// The integer that the bytes of one object are, if they are one that fits 64 bits with a sign.
pub(crate) fn integer(bytes: &[u8]) -> Option<i64> {
    Some(match *bytes {
        [marker @ 0x00..=0x7f] => i64::from(marker),
        [marker @ 0xe0..=0xff] => i64::from(marker as i8),
        [0xcc, a] => i64::from(a),
        [0xcd, a, b] => i64::from(u16::from_be_bytes([a, b])),
        [0xce, a, b, c, d] => i64::from(u32::from_be_bytes([a, b, c, d])),
        [0xcf, ref rest @ ..] => i64::try_from(u64::from_be_bytes(rest.try_into().ok()?)).ok()?,
        [0xd0, a] => i64::from(a as i8),
        [0xd1, a, b] => i64::from(i16::from_be_bytes([a, b])),
        [0xd2, a, b, c, d] => i64::from(i32::from_be_bytes([a, b, c, d])),
        [0xd3, ref rest @ ..] => i64::from_be_bytes(rest.try_into().ok()?),
        _ => return None,
    })
}

/// The integer, if it has the shortest form. The host compares keys by their bytes, so only that form is stored.
fn shortest_integer(bytes: &[u8]) -> Option<i64> {
    let value = integer(bytes)?;
    let len = match value {
        -0x20..=0x7f => 1,
        -0x80..=0xff => 2,
        -0x8000..=0xffff => 3,
        -0x8000_0000..=0xffff_ffff => 5,
        _ => 9,
    };
    // What is not negative has to be written as unsigned.
    let is_signed = matches!(bytes[0], 0xd0..=0xd3);
    (bytes.len() == len && is_signed == (value < -0x20)).then_some(value)
}

pub(crate) fn double(bytes: &[u8]) -> Option<f64> {
    let (0xcb, rest) = bytes.split_first().map(|(marker, rest)| (*marker, rest))? else { return None };
    rest.try_into().ok().map(f64::from_be_bytes)
}

/// The decimal that the bytes of one object are, if they are one.
pub(crate) fn decimal_of(bytes: &[u8]) -> Option<Decimal> {
    const EXT: u8 = decimal::EXT_TYPE as u8;
    let payload = match *bytes {
        [0xd4..=0xd8, EXT, ref payload @ ..] | [0xc7, _, EXT, ref payload @ ..] => payload,
        _ => return None,
    };
    Decimal::read_payload(payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value_tests::{any_type, sent_value};
    use proptest::prelude::*;

    fn write(ty: ColumnType, sent: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut reader = Reader::new(sent);
        Cell::new(ty).write(&mut reader, &mut out)?;
        assert!(reader.is_empty());
        Ok(out)
    }

    proptest! {
        #[test]
        fn both_ways_agree(ty in any_type(), value in sent_value()) {
            let mut sent = Vec::new();
            value.write_stored(&mut sent);
            let ours = write(ty, &sent).map_err(|e| e.code);
            let mut long_way = Vec::new();
            let coerced = value.coerce(ty).and_then(|v| Cell::new(ty).check_json(&v).map(|()| v));
            match coerced {
                Ok(kept) => {
                    kept.write_stored(&mut long_way);
                    let back = Value::read_stored(&mut Reader::new(&ours.clone().unwrap()), ty).unwrap();
                    prop_assert_eq!(&back, &kept);
                    prop_assert_eq!(Cell::new(ty).check_stored(&ours.unwrap()), Ok(()));
                    prop_assert_eq!(Cell::new(ty).check_stored(&long_way), Ok(()));
                }
                Err(error) => prop_assert_eq!(ours, Err(error.code)),
            }
        }

        #[test]
        fn any_bytes_are_written_or_refused(ty in any_type(), bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut out = Vec::new();
            let _ = Cell::new(ty).write(&mut Reader::new(&bytes), &mut out);
            let _ = Cell::new(ty).check_stored(&bytes);
        }
    }

    #[test]
    fn an_integer_is_stored_in_its_shortest_form_however_it_came() {
        let forms = |i: i64| {
            let bytes = i.to_be_bytes();
            let signed = [(0xd0, 7), (0xd1, 6), (0xd2, 4), (0xd3, 0)];
            let unsigned = [(0xcc, 7), (0xcd, 6), (0xce, 4), (0xcf, 0)];
            let form = move |(marker, from): (u8, usize)| [&[marker], &bytes[from..]].concat();
            signed.into_iter().chain(unsigned).map(form).filter(move |form| integer(form) == Some(i))
        };
        let edges = [0, 1, 127, 128, 255, 256, 65_535, 65_536, u32::MAX as i64, u32::MAX as i64 + 1, i64::MAX];
        let negative = [-1, -32, -33, -128, -129, -32_768, -32_769, i32::MIN as i64, i32::MIN as i64 - 1, i64::MIN];
        for value in edges.into_iter().chain(negative) {
            let mut shortest = Vec::new();
            model::msgpack::write_int(&mut shortest, value);
            assert!(Cell::new(ColumnType::BigInt).fits(&shortest).unwrap(), "{value}");
            for form in forms(value) {
                assert_eq!(write(ColumnType::BigInt, &form).unwrap(), shortest, "{value} as {form:x?}");
            }
        }
    }

    #[test]
    fn strings_are_utf8() {
        let error = write(ColumnType::Text, &[0xa2, 0xff, 0xfe]).unwrap_err();
        assert_eq!(error.code, Code::Argument);
    }

    #[test]
    fn arithmetic_by_the_host_is_held_to_the_column() {
        let stored = |value: i64| {
            let mut out = Vec::new();
            model::msgpack::write_int(&mut out, value);
            out
        };
        let check = |ty, value| Cell::new(ty).check_stored(&stored(value)).map_err(|e| e.code);
        assert_eq!(check(ColumnType::SmallInt, 32_767), Ok(()));
        assert_eq!(check(ColumnType::SmallInt, 32_768), Err(Code::ValueOutOfRange));
        assert_eq!(check(ColumnType::Time, -1), Err(Code::ValueOutOfRange));
        assert_eq!(check(ColumnType::Date, 4_000_000), Err(Code::ValueOutOfRange));
    }
}
