//! Stored tuples -> Arrow batches, for the projected columns only.
//!
//! Two passes a slice. The first walks each tuple once, skipping fields by a table of marker lengths, and notes where
//! every wanted field begins; tuples end where their batch says, or they are refused. The second decodes one column at a
//! time, in a loop that knows its type. Without wanted columns no byte is looked at: `count(*)` needs the number of
//! tuples alone.
//!
//! Bytes come from disk and the network: whatever they are, the answer is a batch or `Corrupted`, never a panic.

use super::types::one_zero;
use crate::cluster::{Columnar, TupleBatch};
use datafusion::arrow::array::{
    Array, ArrayRef, BinaryViewBuilder, BooleanBuilder, Decimal128Array, NullBufferBuilder, PrimitiveArray,
    RecordBatch, RecordBatchOptions, StringViewBuilder,
};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    SchemaRef, Time64MicrosecondType, TimestampMicrosecondType,
};
use model::value::UUID_EXT_TYPE;
use model::{Code, ColumnType, Decimal, Error, Result, Table, Value, decimal};
use std::borrow::Cow;
use std::sync::Arc;

/// Where a field that its tuple is too short for begins: it is NULL.
const MISSING: u32 = u32::MAX;

/// Bytes of an object by its marker, the marker included; 0 where the length stands in the object.
const LENGTHS: [u8; 256] = lengths();

const fn lengths() -> [u8; 256] {
    let mut table = [0; 256];
    let mut marker = 0;
    while marker < 256 {
        table[marker] = match marker {
            0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => 1,
            0xa0..=0xbf => (marker - 0xa0) as u8 + 1,
            0xcc | 0xd0 => 2,
            0xcd | 0xd1 | 0xd4 => 3,
            0xd5 => 4,
            0xca | 0xce | 0xd2 => 5,
            0xd6 => 6,
            0xcb | 0xcf | 0xd3 => 9,
            0xd7 => 10,
            0xd8 => 18,
            _ => 0,
        };
        marker += 1;
    }
    table
}

/// Decodes the tuples of one table into batches of one projection.
#[derive(Debug)]
pub struct Decoder {
    schema: SchemaRef,
    /// Positions of the table's columns.
    projection: Vec<usize>,
    /// The wanted columns in the order of their fields.
    columns: Vec<Wanted>,
    /// For each of `columns`, where its field begins in each tuple.
    starts: Vec<Vec<u32>>,
    /// Values of columns that came later than some tuples; they are read behind the tuples of a slice.
    fills: Vec<u8>,
    table: String,
}

#[derive(Debug)]
struct Wanted {
    /// Which column of the projection this is.
    output: usize,
    /// The field's position in the stored tuple.
    field: usize,
    ty: ColumnType,
    /// Where in `fills` the value of tuples without the field begins.
    fill: Option<usize>,
}

impl Decoder {
    /// `projection` holds positions of the table's columns; `schema` is theirs.
    pub fn new(table: &Table, projection: &[usize], schema: SchemaRef) -> Self {
        assert_eq!(projection.len(), schema.fields().len());
        let mut fills = Vec::new();
        let mut wanted = |(output, at): (usize, &usize)| {
            let column = &table.columns[*at];
            let fill = column.added.as_ref().filter(|value| !value.is_null()).map(|value| {
                let start = fills.len();
                value.write_stored(&mut fills);
                start
            });
            Wanted { output, field: at + table.stored_offset(), ty: column.ty, fill }
        };
        let mut columns: Vec<Wanted> = projection.iter().enumerate().map(&mut wanted).collect();
        columns.sort_by_key(|wanted| wanted.field);
        let starts = columns.iter().map(|_| Vec::new()).collect();
        Self { schema, projection: projection.to_vec(), columns, starts, fills, table: table.name.clone() }
    }

    /// Of the batches that it makes.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Decodes one slice, unless its columns are there already, and leaves them where they are to be kept.
    ///
    /// Errors: `Corrupted` when the bytes are not tuples of this table.
    pub fn decode(&mut self, batch: &TupleBatch) -> Result<RecordBatch> {
        let mut arrays = match &batch.columnar {
            Some(Columnar::Whole(columns)) => columns
                .get(&self.projection)
                .ok_or_else(|| Error::internal("the storage said that it had columns which it has not"))?,
            _ => self.decode_columns(batch)?,
        };
        if let Some(Columnar::ToFill(columns)) = &batch.columnar {
            for (position, array) in self.projection.iter().zip(&mut arrays) {
                Array::shrink_to_fit(array);
                columns.put(*position, array);
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)
            .map_err(|error| self.corrupted(&error.to_string()))
    }

    /// The columns of the projection, in its order.
    fn decode_columns(&mut self, batch: &TupleBatch) -> Result<Vec<ArrayRef>> {
        let mut has_fills = false;
        if !self.columns.is_empty() {
            has_fills = self.locate(batch).ok_or_else(|| self.corrupted("a tuple is not what its table says"))?;
        }
        let bytes: Cow<'_, [u8]> =
            if has_fills { [&batch.bytes[..], &self.fills].concat().into() } else { (&batch.bytes[..]).into() };
        let mut arrays: Vec<(usize, ArrayRef)> = Vec::with_capacity(self.columns.len());
        for (wanted, starts) in self.columns.iter().zip(&self.starts) {
            let array = decode_column(&bytes, starts, wanted.ty);
            let array = array.ok_or_else(|| {
                let name = self.schema.field(wanted.output).name();
                self.corrupted(&format!("a value of column \"{name}\" is not of type {}", wanted.ty))
            })?;
            arrays.push((wanted.output, array));
        }
        arrays.sort_by_key(|(output, _)| *output);
        Ok(arrays.into_iter().map(|(_, array)| array).collect())
    }

    fn corrupted(&self, what: &str) -> Error {
        Error::new(Code::Corrupted, format!("table \"{}\": {what}", self.table))
    }

    /// The first pass: notes where the wanted fields begin, and answers whether some lie in `fills`. None when a tuple is
    /// broken.
    fn locate(&mut self, batch: &TupleBatch) -> Option<bool> {
        for starts in &mut self.starts {
            starts.clear();
            starts.reserve(batch.ends.len());
        }
        let (mut begin, mut has_fills) = (0, false);
        for &end in &batch.ends {
            let end = end as usize;
            let tuple = batch.bytes.get(begin..end)?;
            let (fields, mut at) = array_header(tuple)?;
            let mut field = 0;
            for (wanted, starts) in self.columns.iter().zip(&mut self.starts) {
                if wanted.field >= fields {
                    has_fills |= wanted.fill.is_some();
                    starts.push(wanted.fill.map_or(MISSING, |fill| (batch.bytes.len() + fill) as u32));
                    continue;
                }
                while field < wanted.field {
                    at += object_length(tuple, at)?;
                    field += 1;
                }
                starts.push((begin + at) as u32);
                at += object_length(tuple, at)?;
                field += 1;
            }
            if at > tuple.len() {
                return None;
            }
            begin = end;
        }
        Some(has_fills)
    }
}

/// The number of fields and where the first begins.
#[inline]
fn array_header(tuple: &[u8]) -> Option<(usize, usize)> {
    match *tuple.first()? {
        marker @ 0x90..=0x9f => Some((usize::from(marker & 15), 1)),
        0xdc => Some((be_u16(tuple, 1)?, 3)),
        0xdd => Some((be_u32(tuple, 1)?, 5)),
        _ => None,
    }
}

#[inline]
fn object_length(bytes: &[u8], at: usize) -> Option<usize> {
    match LENGTHS[usize::from(*bytes.get(at)?)] {
        0 => long_length(bytes, at),
        length => Some(usize::from(length)),
    }
}

/// Objects whose length follows their marker, and nested ones, which no column type has.
#[inline(never)]
fn long_length(bytes: &[u8], at: usize) -> Option<usize> {
    Some(match bytes[at] {
        0xc4 | 0xd9 => 2 + usize::from(*bytes.get(at + 1)?),
        0xc5 | 0xda => 3 + be_u16(bytes, at + 1)?,
        0xc6 | 0xdb => 5 + be_u32(bytes, at + 1)?,
        0xc7 => 3 + usize::from(*bytes.get(at + 1)?),
        0xc8 => 4 + be_u16(bytes, at + 1)?,
        0xc9 => 6 + be_u32(bytes, at + 1)?,
        _ => model::msgpack::Reader::new(bytes.get(at..)?).raw().ok()?.len(),
    })
}

#[inline]
fn be<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn be_u16(bytes: &[u8], at: usize) -> Option<usize> {
    be(bytes, at).map(u16::from_be_bytes).map(usize::from)
}

fn be_u32(bytes: &[u8], at: usize) -> Option<usize> {
    be(bytes, at).map(|b| u32::from_be_bytes(b) as usize)
}

/// The second pass, for one column. None when a value is not of its type.
fn decode_column(bytes: &[u8], starts: &[u32], ty: ColumnType) -> Option<ArrayRef> {
    use ColumnType as T;
    Some(match ty {
        T::Boolean => decode_boolean(bytes, starts)?,
        T::SmallInt => primitive::<Int16Type>(bytes, starts, |at| integer(bytes, at)?.try_into().ok())?,
        T::Integer => primitive::<Int32Type>(bytes, starts, |at| integer(bytes, at)?.try_into().ok())?,
        T::BigInt | T::Unsigned => primitive::<Int64Type>(bytes, starts, |at| integer(bytes, at))?,
        T::Real => primitive::<Float32Type>(bytes, starts, |at| double(bytes, at).map(|d| one_zero(d) as f32))?,
        T::Double => primitive::<Float64Type>(bytes, starts, |at| double(bytes, at).map(one_zero))?,
        T::Date => primitive::<Date32Type>(bytes, starts, |at| integer(bytes, at)?.try_into().ok())?,
        T::Time => primitive::<Time64MicrosecondType>(bytes, starts, |at| integer(bytes, at))?,
        T::Timestamp => primitive::<TimestampMicrosecondType>(bytes, starts, |at| integer(bytes, at))?,
        T::TimestampTz => {
            let (values, nulls) = collect::<TimestampMicrosecondType>(bytes, starts, |at| integer(bytes, at))?;
            let array = PrimitiveArray::<TimestampMicrosecondType>::new(values.into(), nulls);
            Arc::new(array.with_timezone("+00:00"))
        }
        T::Decimal { precision, scale } => {
            let (values, nulls) =
                collect::<Decimal128Type>(bytes, starts, |at| decimal_at(bytes, at, precision, scale))?;
            let array = Decimal128Array::new(values.into(), nulls);
            Arc::new(array.with_precision_and_scale(precision, scale as i8).ok()?)
        }
        T::Char { .. } | T::Varchar { .. } | T::Text | T::Json => decode_text(bytes, starts)?,
        T::Uuid => decode_uuid(bytes, starts)?,
        T::Varbinary => decode_binary(bytes, starts)?,
    })
}

#[inline]
fn is_null(bytes: &[u8], start: u32) -> bool {
    // `locate` has seen every other start inside the bytes.
    start == MISSING || bytes.get(start as usize) == Some(&0xc0)
}

#[inline]
fn collect<T: ArrowPrimitiveType>(
    bytes: &[u8],
    starts: &[u32],
    read: impl Fn(usize) -> Option<T::Native>,
) -> Option<(Vec<T::Native>, Option<NullBuffer>)> {
    let mut values = Vec::with_capacity(starts.len());
    let mut nulls = NullBufferBuilder::new(starts.len());
    for &start in starts {
        if is_null(bytes, start) {
            values.push(T::Native::default());
            nulls.append_null();
        } else {
            values.push(read(start as usize)?);
            nulls.append_non_null();
        }
    }
    Some((values, nulls.finish()))
}

#[inline]
fn primitive<T: ArrowPrimitiveType>(
    bytes: &[u8],
    starts: &[u32],
    read: impl Fn(usize) -> Option<T::Native>,
) -> Option<ArrayRef> {
    let (values, nulls) = collect::<T>(bytes, starts, read)?;
    Some(Arc::new(PrimitiveArray::<T>::new(values.into(), nulls)))
}

#[inline]
fn integer(bytes: &[u8], at: usize) -> Option<i64> {
    Some(match *bytes.get(at)? {
        marker @ 0x00..=0x7f => i64::from(marker),
        marker @ 0xe0..=0xff => i64::from(marker as i8),
        0xcc => i64::from(*bytes.get(at + 1)?),
        0xcd => i64::from(u16::from_be_bytes(be(bytes, at + 1)?)),
        0xce => i64::from(u32::from_be_bytes(be(bytes, at + 1)?)),
        0xcf => i64::try_from(u64::from_be_bytes(be(bytes, at + 1)?)).ok()?,
        0xd0 => i64::from(*bytes.get(at + 1)? as i8),
        0xd1 => i64::from(i16::from_be_bytes(be(bytes, at + 1)?)),
        0xd2 => i64::from(i32::from_be_bytes(be(bytes, at + 1)?)),
        0xd3 => i64::from_be_bytes(be(bytes, at + 1)?),
        _ => return None,
    })
}

#[inline]
fn double(bytes: &[u8], at: usize) -> Option<f64> {
    match *bytes.get(at)? {
        0xcb => be(bytes, at + 1).map(f64::from_be_bytes),
        0xca => be(bytes, at + 1).map(|b| f64::from(f32::from_be_bytes(b))),
        // The host may keep a whole number in a field of doubles as an integer.
        _ => integer(bytes, at).map(|i| i as f64),
    }
}

/// The type and payload of an extension.
#[inline]
fn extension(bytes: &[u8], at: usize) -> Option<(i8, &[u8])> {
    let (length, head) = match *bytes.get(at)? {
        marker @ 0xd4..=0xd8 => (1 << (marker - 0xd4), 1),
        0xc7 => (usize::from(*bytes.get(at + 1)?), 2),
        0xc8 => (be_u16(bytes, at + 1)?, 3),
        0xc9 => (be_u32(bytes, at + 1)?, 5),
        _ => return None,
    };
    let ty = *bytes.get(at + head)? as i8;
    let payload = at + head + 1;
    Some((ty, bytes.get(payload..payload + length)?))
}

#[inline]
fn decimal_at(bytes: &[u8], at: usize, precision: u8, scale: u8) -> Option<i128> {
    let Some((ty, payload)) = extension(bytes, at) else {
        return Decimal::from(integer(bytes, at)?).fit(precision, scale).map(|d| d.unscaled);
    };
    if ty != decimal::EXT_TYPE {
        return None;
    }
    match short_decimal(payload, scale) {
        Some(unscaled) => Some(unscaled.into()),
        None => Decimal::read_payload(payload).ok()?.fit(precision, scale).map(|d| d.unscaled),
    }
}

/// A decimal of the wanted scale and up to 17 digits, without 128-bit arithmetic.
#[inline]
fn short_decimal(payload: &[u8], scale: u8) -> Option<i64> {
    let (&payload_scale, digits) = payload.split_first()?;
    let (&last, body) = digits.split_last()?;
    if payload_scale != scale || body.len() > 8 || last >> 4 > 9 {
        return None;
    }
    let mut unscaled: i64 = 0;
    for byte in body {
        let (high, low) = (byte >> 4, byte & 15);
        if high > 9 || low > 9 {
            return None;
        }
        unscaled = unscaled * 100 + i64::from(high * 10 + low);
    }
    unscaled = unscaled * 10 + i64::from(last >> 4);
    match last & 15 {
        0x0c => Some(unscaled),
        0x0d => Some(-unscaled),
        _ => None,
    }
}

/// The bytes of a string, or of binary data.
#[inline]
fn string(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let (length, head) = match *bytes.get(at)? {
        marker @ 0xa0..=0xbf => (usize::from(marker & 31), 1),
        0xd9 | 0xc4 => (usize::from(*bytes.get(at + 1)?), 2),
        0xda | 0xc5 => (be_u16(bytes, at + 1)?, 3),
        0xdb | 0xc6 => (be_u32(bytes, at + 1)?, 5),
        _ => return None,
    };
    bytes.get(at + head..at + head + length)
}

fn decode_text(bytes: &[u8], starts: &[u32]) -> Option<ArrayRef> {
    let mut builder = StringViewBuilder::with_capacity(starts.len());
    for &start in starts {
        if is_null(bytes, start) {
            builder.append_null();
        } else {
            builder.append_value(std::str::from_utf8(string(bytes, start as usize)?).ok()?);
        }
    }
    Some(Arc::new(builder.finish()))
}

fn decode_binary(bytes: &[u8], starts: &[u32]) -> Option<ArrayRef> {
    let mut builder = BinaryViewBuilder::with_capacity(starts.len());
    for &start in starts {
        if is_null(bytes, start) {
            builder.append_null();
        } else {
            builder.append_value(string(bytes, start as usize)?);
        }
    }
    Some(Arc::new(builder.finish()))
}

fn decode_uuid(bytes: &[u8], starts: &[u32]) -> Option<ArrayRef> {
    let mut builder = StringViewBuilder::with_capacity(starts.len());
    for &start in starts {
        if is_null(bytes, start) {
            builder.append_null();
            continue;
        }
        let (ty, payload) = extension(bytes, start as usize)?;
        if ty != UUID_EXT_TYPE {
            return None;
        }
        builder.append_value(Value::Uuid(payload.try_into().ok()?).to_string());
    }
    Some(Arc::new(builder.finish()))
}

fn decode_boolean(bytes: &[u8], starts: &[u32]) -> Option<ArrayRef> {
    let mut builder = BooleanBuilder::with_capacity(starts.len());
    for &start in starts {
        if is_null(bytes, start) {
            builder.append_null();
            continue;
        }
        match bytes.get(start as usize)? {
            0xc2 => builder.append_value(false),
            0xc3 => builder.append_value(true),
            _ => return None,
        }
    }
    Some(Arc::new(builder.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::QueryOutput;
    use crate::engine::encode::rows_to_msgpack;
    use crate::engine::types::table_schema;
    use crate::testing::{TableBuilder, encode_tuple};
    use model::msgpack::Reader;
    use proptest::prelude::*;

    /// A table with a column of every type.
    fn table() -> Table {
        use ColumnType as T;
        TableBuilder::new("all")
            .key("id", T::BigInt)
            .column("a", T::Boolean)
            .column("b", T::SmallInt)
            .column("c", T::Integer)
            .column("d", T::Unsigned)
            .column("e", T::Real)
            .column("f", T::Double)
            .column("g", T::Decimal { precision: 38, scale: 4 })
            .column("h", T::Char { length: 3 })
            .column("i", T::Varchar { length: 40 })
            .column("j", T::Text)
            .column("k", T::Varbinary)
            .column("l", T::Uuid)
            .column("m", T::Date)
            .column("n", T::Time)
            .column("o", T::Timestamp)
            .column("p", T::TimestampTz)
            .column("q", T::Json)
            .sharded(&["id"])
            .build()
    }

    fn row() -> impl Strategy<Value = Vec<Value>> {
        let value = |strategy: BoxedStrategy<Value>| prop_oneof![1 => Just(Value::Null), 4 => strategy];
        let int = |range: std::ops::Range<i64>| range.prop_map(Value::Integer).boxed();
        let decimal = (-10i128.pow(37)..10i128.pow(37), 0..3u8).prop_map(|(unscaled, small)| {
            Value::Decimal(Decimal::new(if small > 0 { unscaled % 100_000 } else { unscaled }, 4))
        });
        let first = (
            any::<i64>().prop_map(Value::Integer),
            value(any::<bool>().prop_map(Value::Boolean).boxed()),
            value(int(-32768..32768)),
            value(int(-(1 << 31)..1 << 31)),
            value(int(0..i64::MAX)),
            value(
                any::<f32>()
                    .prop_filter("equal to itself", |d| !d.is_nan())
                    .prop_map(|d| Value::Double(d.into()))
                    .boxed(),
            ),
            value(any::<f64>().prop_filter("equal to itself", |d| !d.is_nan()).prop_map(Value::Double).boxed()),
            value(decimal.boxed()),
            value("[a-zä]{3}".prop_map(Value::Text).boxed()),
        );
        let second = (
            value("\\PC{0,40}".prop_map(Value::Text).boxed()),
            value(".{0,300}".prop_map(Value::Text).boxed()),
            value(proptest::collection::vec(any::<u8>(), 0..300).prop_map(Value::Bytes).boxed()),
            value(any::<[u8; 16]>().prop_map(Value::Uuid).boxed()),
            value((-700_000i64..2_000_000).prop_map(Value::Date).boxed()),
            value((0i64..86_400_000_000).prop_map(Value::Time).boxed()),
            value((-1i64 << 50..1 << 50).prop_map(Value::Timestamp).boxed()),
            value((-1i64 << 50..1 << 50).prop_map(Value::TimestampTz).boxed()),
            value("[0-9]{1,5}".prop_map(Value::Text).boxed()),
        );
        (first, second).prop_map(|((a, b, c, d, e, f, g, h, i), (j, k, l, m, n, o, p, q, r))| {
            vec![a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r]
        })
    }

    fn slice(table: &Table, rows: &[Vec<Value>]) -> TupleBatch {
        let mut batch = TupleBatch::default();
        for row in rows {
            batch.bytes.extend(encode_tuple(table, 7, row));
            batch.ends.push(batch.bytes.len() as u32);
        }
        batch
    }

    fn decoder(table: &Table, projection: &[usize]) -> Decoder {
        Decoder::new(table, projection, Arc::new(table_schema(table).project(projection).unwrap()))
    }

    proptest! {
        #[test]
        fn what_was_stored_is_shown(rows in proptest::collection::vec(row(), 0..20), order in Just((0..18).collect::<Vec<usize>>()).prop_shuffle(), kept in 1..18usize) {
            let table = table();
            let projection = &order[..kept];
            let batch = decoder(&table, projection).decode(&slice(&table, &rows)).unwrap();
            let columns = projection.iter().map(|at| (at.to_string(), String::new())).collect();
            let bytes = rows_to_msgpack(&QueryOutput { columns, batches: vec![batch], _held: None }).unwrap();
            let shown = rows.iter().map(|row| Value::Array(projection.iter().map(|at| row[*at].clone()).collect()));
            let mut expected = Vec::new();
            Value::Array(shown.collect()).write_shown(&mut expected);
            prop_assert_eq!(Value::read(&mut Reader::new(&bytes)).unwrap(), Value::read(&mut Reader::new(&expected)).unwrap());
        }

        #[test]
        fn broken_tuples_are_read_or_refused(rows in proptest::collection::vec(row(), 1..4), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let table = table();
            let all: Vec<usize> = (0..18).collect();
            let mut batch = slice(&table, &rows);
            let position = at.index(batch.bytes.len());
            batch.bytes[position] = byte;
            let _ = decoder(&table, &all).decode(&batch);
            batch.bytes.truncate(cut.index(batch.bytes.len()));
            prop_assert!(decoder(&table, &all).decode(&batch).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), ends in proptest::collection::vec(any::<u8>(), 0..6)) {
            let batch = TupleBatch { bytes, ends: ends.into_iter().map(u32::from).collect(), ..TupleBatch::default() };
            let _ = decoder(&table(), &[0, 3, 7, 10, 12]).decode(&batch);
        }
    }

    #[test]
    fn fields_that_are_not_there_are_null_and_none_are_counted() {
        let table = table();
        let mut batch = TupleBatch::default();
        for _ in 0..3 {
            batch.bytes.extend([0x92, 0x07, 0x05]);
            batch.ends.push(batch.bytes.len() as u32);
        }
        let decoded = decoder(&table, &[0, 10]).decode(&batch).unwrap();
        assert_eq!((decoded.num_rows(), decoded.column(1).null_count()), (3, 3));
        assert_eq!(decoder(&table, &[]).decode(&batch).unwrap().num_rows(), 3);
    }
}
