//! The order of stored values, as the host's indexes have it: null first, then by value.

use crate::cell::{decimal_of, double, integer};
use model::ColumnType;
use model::msgpack::Reader;
use std::cmp::Ordering;

/// Compares two stored values of one column, each the bytes of one object.
pub fn compare(ty: ColumnType, a: &[u8], b: &[u8]) -> Ordering {
    use ColumnType::*;
    let is_null = |bytes: &[u8]| bytes == [0xc0];
    match (is_null(a), is_null(b)) {
        (false, false) => {}
        (a_null, b_null) => return b_null.cmp(&a_null),
    }
    match ty {
        SmallInt | Integer | BigInt | Unsigned | Date | Time | Timestamp | TimestampTz => integer(a).cmp(&integer(b)),
        Real | Double => match (double(a), double(b)) {
            (Some(a), Some(b)) => compare_doubles(a, b),
            (a, b) => a.is_some().cmp(&b.is_some()),
        },
        Decimal { .. } => decimal_of(a).cmp(&decimal_of(b)),
        // One byte each: 0xc2 is false, 0xc3 true.
        Boolean => a.cmp(b),
        Char { .. } | Varchar { .. } | Text | Json => text(a).cmp(text(b)),
        Varbinary => Reader::new(a).bin().unwrap_or_default().cmp(Reader::new(b).bin().unwrap_or_default()),
        // Big-endian fields behind two equal bytes of head.
        Uuid => a.cmp(b),
    }
}

/// NaN before all numbers, as the host sorts it, and equal to itself.
fn compare_doubles(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

/// The bytes of a stored string. It was checked when it was written, so it is not validated again.
fn text(bytes: &[u8]) -> &[u8] {
    let head = match bytes.first() {
        Some(0xa0..=0xbf) => 1,
        Some(0xd9) => 2,
        Some(0xda) => 3,
        _ => 5,
    };
    bytes.get(head..).unwrap_or_default()
}

/// An order over stored tuples: fields to compare in turn, all ascending or all descending.
#[derive(Clone, Debug)]
pub struct TupleOrder {
    /// (field of the stored tuple, type), most significant first.
    pub fields: Vec<(usize, ColumnType)>,
    pub descending: bool,
}

impl TupleOrder {
    pub fn compare(&self, a: &[u8], b: &[u8]) -> Ordering {
        for &(field, ty) in &self.fields {
            let ordering = match (field_of(a, field), field_of(b, field)) {
                (Some(a), Some(b)) => compare(ty, a, b),
                (a, b) => a.is_some().cmp(&b.is_some()),
            };
            if ordering != Ordering::Equal {
                return if self.descending { ordering.reverse() } else { ordering };
            }
        }
        Ordering::Equal
    }
}

/// The bytes of a field of a stored tuple.
pub fn field_of(tuple: &[u8], field: usize) -> Option<&[u8]> {
    let mut reader = Reader::new(tuple);
    let len = reader.array_len().ok()?;
    if field >= len {
        return None;
    }
    for _ in 0..field {
        reader.skip().ok()?;
    }
    reader.raw().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::Cell;
    use crate::value_tests::{any_type, sent_value};
    use model::Value;
    use proptest::prelude::*;

    fn stored(ty: ColumnType, value: &Value) -> Option<(Value, Vec<u8>)> {
        let (mut sent, mut out) = (Vec::new(), Vec::new());
        value.write_stored(&mut sent);
        Cell::new(ty).write(&mut Reader::new(&sent), &mut out).ok()?;
        Some((value.clone().coerce(ty).unwrap(), out))
    }

    fn by_value(a: &Value, b: &Value) -> Option<Ordering> {
        Some(match (a, b) {
            (Value::Boolean(a), Value::Boolean(b)) => a.cmp(b),
            (Value::Integer(a), Value::Integer(b)) => a.cmp(b),
            (Value::Double(a), Value::Double(b)) => a.partial_cmp(b)?,
            (Value::Decimal(a), Value::Decimal(b)) => a.cmp(b),
            (Value::Text(a), Value::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
            (Value::Uuid(a), Value::Uuid(b)) => a.cmp(b),
            _ => return None,
        })
    }

    proptest! {
        #[test]
        fn stored_order_is_the_order_of_values(ty in any_type(), a in sent_value(), b in sent_value()) {
            if let (Some((a, raw_a)), Some((b, raw_b))) = (stored(ty, &a), stored(ty, &b)) {
                let ordering = compare(ty, &raw_a, &raw_b);
                prop_assert_eq!(ordering, compare(ty, &raw_b, &raw_a).reverse());
                if let Some(expected) = by_value(&a, &b) {
                    prop_assert_eq!(ordering, expected);
                }
                prop_assert_eq!(compare(ty, &[0xc0], &raw_a), Ordering::Less);
            }
        }
    }

    #[test]
    fn an_order_descends_as_a_whole() {
        let tuple = |a: u8, b: u8| vec![0x92, a, b];
        let fields = vec![(0, ColumnType::Integer), (1, ColumnType::Integer)];
        let up = TupleOrder { fields: fields.clone(), descending: false };
        let down = TupleOrder { fields, descending: true };
        assert_eq!(up.compare(&tuple(1, 2), &tuple(1, 3)), Ordering::Less);
        assert_eq!(down.compare(&tuple(1, 2), &tuple(1, 3)), Ordering::Greater);
        assert_eq!(up.compare(&tuple(2, 0), &tuple(1, 3)), Ordering::Greater);
        assert_eq!(up.compare(&tuple(1, 3), &tuple(1, 3)), Ordering::Equal);
    }
}
