//! The two type systems side by side: ours, as declared and stored, and Arrow's, as the query engine computes.
//!
//! | column                    | Arrow                       | note |
//! |---------------------------|-----------------------------|------|
//! | smallint, integer, bigint | Int16, Int32, Int64         |      |
//! | unsigned                  | Int64                       | arithmetic of UInt64 with Int64 would leave the integers |
//! | real, double              | Float32, Float64            |      |
//! | decimal(p, s)             | Decimal128(p, s)            |      |
//! | char, varchar, text, json | Utf8View                    | json is marked in the field's metadata |
//! | uuid                      | Utf8View                    | lower case with hyphens, marked; orders as its bytes do |
//! | varbinary                 | BinaryView                  |      |
//! | date, time                | Date32, Time64(us)          |      |
//! | timestamp, timestamptz    | Timestamp(us), with +00:00  |      |
//!
//! UUIDs are text here because every comparison with a literal, LIKE and every driver's string parameter then works
//! without special cases. The mark lets results show them as UUIDs again.

use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use model::value::parse_uuid;
use model::{Code, ColumnType, Decimal, Error, Result, Table, Value};
use std::sync::Arc;

/// The key of field metadata that says what a text is; its values are the names of column types.
pub const TYPE_MARK: &str = "picodata.type";
const UTC: &str = "+00:00";

pub fn arrow_type(ty: ColumnType) -> DataType {
    use ColumnType as T;
    match ty {
        T::Boolean => DataType::Boolean,
        T::SmallInt => DataType::Int16,
        T::Integer => DataType::Int32,
        T::BigInt | T::Unsigned => DataType::Int64,
        T::Real => DataType::Float32,
        T::Double => DataType::Float64,
        T::Decimal { precision, scale } => DataType::Decimal128(precision, scale as i8),
        T::Char { .. } | T::Varchar { .. } | T::Text | T::Json | T::Uuid => DataType::Utf8View,
        T::Varbinary => DataType::BinaryView,
        T::Date => DataType::Date32,
        T::Time => DataType::Time64(TimeUnit::Microsecond),
        T::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        T::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
    }
}

/// The schema of a table's columns, without the bucket id.
pub fn table_schema(table: &Table) -> SchemaRef {
    let fields = table
        .columns
        .iter()
        .map(|column| marked(Field::new(&column.name, arrow_type(column.ty), column.nullable), column.ty));
    Arc::new(Schema::new(fields.collect::<Fields>()))
}

/// The field with its mark, when texts of this type mean more than their letters.
pub fn marked(field: Field, ty: ColumnType) -> Field {
    match ty {
        ColumnType::Uuid | ColumnType::Json | ColumnType::Char { .. } => {
            field.with_metadata([(TYPE_MARK.to_owned(), ty.to_string())].into())
        }
        _ => field,
    }
}

/// What a text is; None for plain ones.
pub fn mark_of(field: &Field) -> Option<ColumnType> {
    field.metadata().get(TYPE_MARK).and_then(|mark| super::functions::convert::parse_type(mark))
}

/// The column type that an Arrow type stands for.
pub fn column_type_of(ty: &DataType) -> Option<ColumnType> {
    Some(match ty {
        DataType::Boolean => ColumnType::Boolean,
        DataType::Int16 => ColumnType::SmallInt,
        DataType::Int32 => ColumnType::Integer,
        DataType::Int64 => ColumnType::BigInt,
        DataType::Float32 => ColumnType::Real,
        DataType::Float64 => ColumnType::Double,
        DataType::Decimal128(precision, scale) => {
            ColumnType::Decimal { precision: *precision, scale: u8::try_from(*scale).ok()? }
        }
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => ColumnType::Text,
        DataType::Binary | DataType::BinaryView | DataType::LargeBinary => ColumnType::Varbinary,
        DataType::Date32 => ColumnType::Date,
        DataType::Time64(_) => ColumnType::Time,
        DataType::Timestamp(_, None) => ColumnType::Timestamp,
        DataType::Timestamp(_, Some(_)) => ColumnType::TimestampTz,
        _ => return None,
    })
}

/// How results call a type: our own names where we have one.
pub fn shown_type(field: &Field) -> String {
    if let Some(ty @ (ColumnType::Uuid | ColumnType::Json)) = mark_of(field) {
        return ty.to_string();
    }
    let name = match field.data_type() {
        DataType::Boolean => "boolean",
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint",
        DataType::Int32 | DataType::UInt16 => "integer",
        DataType::Int64 | DataType::UInt32 => "bigint",
        DataType::UInt64 => "unsigned",
        DataType::Float16 | DataType::Float32 => "real",
        DataType::Float64 => "double",
        DataType::Decimal128(..) | DataType::Decimal256(..) | DataType::Decimal32(..) | DataType::Decimal64(..) => {
            "decimal"
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "varbinary",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Time32(_) | DataType::Time64(_) => "time",
        DataType::Timestamp(_, None) => "timestamp",
        DataType::Timestamp(_, Some(_)) => "timestamptz",
        DataType::Interval(_) | DataType::Duration(_) => "interval",
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => "array",
        _ => "text",
    };
    name.to_owned()
}

/// The engine's orders, ranks and distinct counts tell the negative zero from the other; SQL does not. So there is one zero
/// here: floats that come in, and those that computations may make negative zeros of, pass through this.
pub fn one_zero(value: f64) -> f64 {
    value + 0.0
}

/// A parameter as a literal of the engine.
///
/// Errors: `Unsupported` for an array of mixed types, `ValueOutOfRange` for a date past the engine's.
pub fn scalar_of(value: &Value) -> Result<ScalarValue> {
    Ok(match value {
        Value::Null => ScalarValue::Null,
        Value::Boolean(b) => ScalarValue::Boolean(Some(*b)),
        Value::Integer(i) => ScalarValue::Int64(Some(*i)),
        Value::Double(d) => ScalarValue::Float64(Some(one_zero(*d))),
        Value::Decimal(d) => {
            let digits = d.unscaled.unsigned_abs().checked_ilog10().map_or(1, |log| log as u8 + 1);
            ScalarValue::Decimal128(Some(d.unscaled), digits.max(d.scale).max(1), d.scale as i8)
        }
        Value::Text(s) => ScalarValue::Utf8View(Some(s.clone())),
        Value::Bytes(b) => ScalarValue::BinaryView(Some(b.clone())),
        Value::Uuid(_) => ScalarValue::Utf8View(Some(value.to_string())),
        Value::Date(d) => ScalarValue::Date32(Some(
            i32::try_from(*d).map_err(|_| Error::new(Code::ValueOutOfRange, format!("day {d} is out of range")))?,
        )),
        Value::Time(t) => ScalarValue::Time64Microsecond(Some(*t)),
        Value::Timestamp(t) => ScalarValue::TimestampMicrosecond(Some(*t), None),
        Value::TimestampTz(t) => ScalarValue::TimestampMicrosecond(Some(*t), Some(UTC.into())),
        Value::Array(items) => {
            let items = items.iter().map(scalar_of).collect::<Result<Vec<_>>>()?;
            let ty = items.iter().map(ScalarValue::data_type).find(|ty| !ty.is_null()).unwrap_or(DataType::Null);
            if items.iter().any(|item| !item.is_null() && item.data_type() != ty) {
                return Err(Error::new(Code::Unsupported, "an array parameter holds values of different types"));
            }
            ScalarValue::List(ScalarValue::new_list_nullable(&items, &ty))
        }
    })
}

/// A literal of the engine as a column of type `ty` stores it; None when no stored value can equal it, or when the
/// two do not compare exactly (then no index is used).
pub fn value_of(scalar: &ScalarValue, ty: ColumnType) -> Option<Value> {
    use ScalarValue as S;
    let integer = |i: i64| Some(Value::Integer(i));
    let value = match scalar {
        S::Boolean(Some(b)) => Value::Boolean(*b),
        S::Int8(Some(i)) => integer((*i).into())?,
        S::Int16(Some(i)) => integer((*i).into())?,
        S::Int32(Some(i)) => integer((*i).into())?,
        S::Int64(Some(i)) => integer(*i)?,
        S::Float32(Some(d)) => Value::Double((*d).into()),
        S::Float64(Some(d)) => Value::Double(*d),
        S::Decimal128(Some(unscaled), _, scale) => {
            Value::Decimal(Decimal { unscaled: *unscaled, scale: u8::try_from(*scale).ok()? })
        }
        S::Utf8(Some(s)) | S::LargeUtf8(Some(s)) | S::Utf8View(Some(s)) if ty == ColumnType::Uuid => {
            let uuid = Value::Uuid(parse_uuid(s).ok()?);
            // Another spelling of the same UUID is another text, which no row equals.
            return (uuid.to_string() == *s).then_some(uuid);
        }
        S::Utf8(Some(s)) | S::LargeUtf8(Some(s)) | S::Utf8View(Some(s)) => return text_of(s, ty),
        S::Binary(Some(b)) | S::LargeBinary(Some(b)) | S::BinaryView(Some(b)) => Value::Bytes(b.clone()),
        S::Date32(Some(d)) => Value::Date((*d).into()),
        S::Time64Microsecond(Some(t)) => Value::Time(*t),
        S::TimestampMicrosecond(Some(t), None) => Value::Timestamp(*t),
        S::TimestampMicrosecond(Some(t), Some(_)) => Value::TimestampTz(*t),
        _ => return None,
    };
    let exact = match (&value, ty) {
        (Value::Integer(_), _) => ty.is_integer(),
        (Value::Decimal(d), ColumnType::Decimal { scale, .. }) => d.rescaled(scale).is_some_and(|r| r == *d),
        (Value::Decimal(_), _) => false,
        // NaN and the zeros order differently in box.
        (Value::Double(d), ColumnType::Real | ColumnType::Double) => d.is_finite() && *d != 0.0,
        (Value::Double(_), _) => false,
        (Value::Boolean(_), ColumnType::Boolean) | (Value::Bytes(_), ColumnType::Varbinary) => true,
        (Value::Date(_), ColumnType::Date) | (Value::Time(_), ColumnType::Time) => true,
        (Value::Timestamp(_), ColumnType::Timestamp) | (Value::TimestampTz(_), ColumnType::TimestampTz) => true,
        _ => false,
    };
    if exact { value.coerce(ty).ok() } else { None }
}

/// Text is compared byte by byte here and in box, so nothing is padded or cut.
fn text_of(text: &str, ty: ColumnType) -> Option<Value> {
    let is_text = matches!(ty, ColumnType::Text | ColumnType::Varchar { .. } | ColumnType::Char { .. });
    is_text.then(|| Value::Text(text.to_owned()))
}
