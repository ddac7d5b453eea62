//! Comparison of a column with a value that came from outside, made into a comparison of stored bytes.
//!
//! Assignment rounds, pads and cuts; a comparison must not: `id = 1.5` is true of no integer. So a value either has a
//! stored form that is equal to it, or no row can be equal to it, or it is a case for the engine's wider rules.

use model::msgpack::{self, Reader};
use model::{ColumnType, Value};

/// What a value is to a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exact {
    /// Its stored form was appended.
    Is,
    /// No value of the column is equal to it.
    Never,
    /// The engine decides.
    Unclear,
}

/// Integers above this have neighbours that a double can not tell apart.
const DOUBLE_INTEGER_MAX: i64 = 1 << 53;

/// Appends the stored form of the MessagePack value `raw` for a column of type `ty` when it has one that is equal.
pub fn write_exact(ty: ColumnType, raw: &[u8], out: &mut Vec<u8>) -> Exact {
    use ColumnType as T;
    match (ty, raw.first()) {
        // The two that matter for speed: nothing is decoded into a value.
        (T::BigInt | T::Integer, Some(0x00..=0x7f | 0xe0..=0xff)) if raw.len() == 1 => {
            out.push(raw[0]);
            Exact::Is
        }
        (T::Text, Some(0xa0..=0xbf | 0xd9..=0xdb)) => match Reader::new(raw).str() {
            Ok(text) => {
                msgpack::write_str(out, text);
                Exact::Is
            }
            Err(_) => Exact::Unclear,
        },
        _ => match Reader::new(raw).value() {
            Ok(value) => write_exact_value(ty, value, out),
            Err(_) => Exact::Unclear,
        },
    }
}

fn write_exact_value(ty: ColumnType, value: Value, out: &mut Vec<u8>) -> Exact {
    use ColumnType as T;
    let stored = match (ty, value) {
        (_, Value::Null) => return Exact::Never,
        (
            T::SmallInt | T::Integer | T::BigInt | T::Unsigned,
            value @ (Value::Integer(_) | Value::Decimal(_) | Value::Double(_)),
        ) => {
            let Some(integer) = integer_equal_to(&value) else { return Exact::Never };
            match Value::Integer(integer).coerce(ty) {
                Ok(value) => value,
                Err(_) => return Exact::Never,
            }
        }
        (T::Decimal { .. }, value @ (Value::Integer(_) | Value::Decimal(_))) => match value.clone().coerce(ty) {
            Ok(Value::Decimal(kept)) if Value::Decimal(kept) == as_decimal(&value) => Value::Decimal(kept),
            _ => return Exact::Never,
        },
        (T::Double | T::Real, Value::Integer(i)) if i.abs() <= DOUBLE_INTEGER_MAX => Value::Double(i as f64),
        (T::Double | T::Real, Value::Double(d)) if d.is_finite() => Value::Double(if d == 0.0 { 0.0 } else { d }),
        (T::Text, value @ Value::Text(_)) => value,
        // Spaces at the end count here, unlike in an assignment.
        (T::Varchar { length }, Value::Text(text)) => match text.chars().nth(length as usize) {
            Some(_) => return Exact::Never,
            None => Value::Text(text),
        },
        (T::Boolean, value @ Value::Boolean(_)) | (T::Uuid, value @ Value::Uuid(_)) => value,
        (T::Varbinary, value @ Value::Bytes(_)) => value,
        (T::Uuid | T::Date | T::Time | T::Timestamp | T::TimestampTz, value @ Value::Text(_)) => match value.coerce(ty)
        {
            Ok(value) => value,
            Err(_) => return Exact::Unclear,
        },
        (T::Date, value @ Value::Date(_)) | (T::Time, value @ Value::Time(_)) => value,
        (T::Timestamp, value @ Value::Timestamp(_)) | (T::TimestampTz, value @ Value::TimestampTz(_)) => value,
        _ => return Exact::Unclear,
    };
    stored.write_stored(out);
    Exact::Is
}

fn as_decimal(value: &Value) -> Value {
    match value {
        Value::Integer(integer) => Value::Decimal((*integer).into()),
        other => other.clone(),
    }
}

fn integer_equal_to(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(integer) => Some(*integer),
        Value::Decimal(decimal) => decimal.to_i64(),
        // A double of 2^53 and more stands for many integers; the column may hold another of them.
        Value::Double(d) if d.fract() == 0.0 && d.abs() <= DOUBLE_INTEGER_MAX as f64 => Some(*d as i64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exact(ty: ColumnType, value: &Value) -> (Exact, Option<Value>) {
        let (mut raw, mut out) = (Vec::new(), Vec::new());
        value.write_shown(&mut raw);
        let exact = write_exact(ty, &raw, &mut out);
        (exact, (!out.is_empty()).then(|| Value::read_stored(&mut Reader::new(&out), ty).unwrap()))
    }

    #[test]
    fn a_comparison_never_rounds() {
        let decimal = |text: &str| Value::Decimal(text.parse().unwrap());
        let money = ColumnType::Decimal { precision: 6, scale: 2 };
        assert_eq!(exact(ColumnType::Integer, &Value::Double(1.5)).0, Exact::Never);
        assert_eq!(exact(ColumnType::Integer, &Value::Double(2.0)), (Exact::Is, Some(Value::Integer(2))));
        assert_eq!(exact(ColumnType::Integer, &Value::Integer(1 << 40)).0, Exact::Never);
        assert_eq!(exact(ColumnType::Integer, &decimal("3.00")), (Exact::Is, Some(Value::Integer(3))));
        assert_eq!(exact(money, &decimal("1.005")).0, Exact::Never);
        assert_eq!(exact(money, &Value::Integer(7)), (Exact::Is, Some(decimal("7.00"))));
        assert_eq!(exact(ColumnType::Varchar { length: 2 }, &Value::Text("ab ".into())).0, Exact::Never);
        assert_eq!(exact(ColumnType::Text, &Value::Integer(5)).0, Exact::Unclear);
        assert_eq!(exact(ColumnType::Integer, &Value::Text("5".into())).0, Exact::Unclear);
        assert_eq!(exact(ColumnType::BigInt, &Value::Null).0, Exact::Never);
        assert_eq!(exact(ColumnType::Date, &Value::Text("1970-01-02".into())), (Exact::Is, Some(Value::Date(1))));
        assert_eq!(exact(ColumnType::Date, &Value::Text("soon".into())).0, Exact::Unclear);
        assert_eq!(exact(ColumnType::Double, &Value::Double(-0.0)), (Exact::Is, Some(Value::Double(0.0))));
    }

    proptest! {
        #[test]
        fn what_a_column_holds_is_equal_to_itself(integer in any::<i32>(), text in ".{0,20}", double in any::<f64>()) {
            for (ty, value) in [
                (ColumnType::Integer, Value::Integer(integer.into())),
                (ColumnType::BigInt, Value::Integer(i64::from(integer) << 20)),
                (ColumnType::Text, Value::Text(text)),
                (ColumnType::Double, Value::Double(if double.is_finite() { double } else { 1.0 })),
            ] {
                prop_assert_eq!(exact(ty, &value), (Exact::Is, Some(value)));
            }
        }

        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            for ty in [ColumnType::Integer, ColumnType::Text, ColumnType::Uuid, ColumnType::Char { length: 3 }] {
                write_exact(ty, &bytes, &mut Vec::new());
            }
        }
    }
}
