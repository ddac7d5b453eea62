//! Result batches -> MessagePack rows, as users see them: the rules of `model::Value::write_shown`.
//!
//! Rows are written one after the other, but what a column's type means is decided once a batch.

use super::QueryOutput;
use super::functions::interval_text;
use super::types::mark_of;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, Decimal128Array, PrimitiveArray, RecordBatch,
    StringViewArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use model::msgpack::{
    write_array_len, write_bin, write_bool, write_double, write_int, write_nil, write_str, write_uint,
};
use model::value::parse_uuid;
use model::{Code, ColumnType, Decimal, Error, Result, Value};

/// All rows of a result as one MessagePack array of arrays.
///
/// Errors: `Internal` when a column's type has no form that users see.
pub fn rows_to_msgpack(output: &QueryOutput) -> Result<Vec<u8>> {
    let rows = output.row_count();
    let mut out = Vec::with_capacity(rows * output.columns.len() * 8 + 16);
    write_array_len(&mut out, rows);
    for batch in &output.batches {
        write_batch(batch, &mut out)?;
    }
    Ok(out)
}

/// Appends each row of a batch as an array.
pub fn write_batch(batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
    let schema = batch.schema();
    let columns: Vec<ArrayRef> = batch.columns().iter().map(shown_form).collect::<Result<_>>()?;
    let writers = columns.iter().zip(schema.fields()).map(|(array, field)| writer(array, field));
    let writers = writers.collect::<Result<Vec<_>>>()?;
    for row in 0..batch.num_rows() {
        write_array_len(out, writers.len());
        for (write, array) in writers.iter().zip(&columns) {
            if array.is_null(row) { write_nil(out) } else { write(row, out) }
        }
    }
    Ok(())
}

/// Brings types of which users see one form into one type: all texts, all binaries, all fractions of a second.
fn shown_form(array: &ArrayRef) -> Result<ArrayRef> {
    let to = match array.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Dictionary(..) => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary | DataType::FixedSizeBinary(_) => DataType::BinaryView,
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => DataType::Decimal128(*p, *s),
        DataType::Decimal256(_, s) => DataType::Decimal128(38, *s),
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Interval(_) | DataType::Duration(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        _ => return Ok(array.clone()),
    };
    if *array.data_type() == to {
        return Ok(array.clone());
    }
    cast(array, &to).map_err(|error| Error::new(Code::ValueOutOfRange, format!("a result does not fit: {error}")))
}

type Writer<'a> = Box<dyn Fn(usize, &mut Vec<u8>) + 'a>;

fn writer<'a>(array: &'a ArrayRef, field: &Field) -> Result<Writer<'a>> {
    Ok(match array.data_type() {
        DataType::Null => Box::new(|_, out| write_nil(out)),
        DataType::Boolean => {
            let array: &BooleanArray = array.as_boolean();
            Box::new(move |row, out| write_bool(out, array.value(row)))
        }
        DataType::Int8 => integers::<Int8Type>(array),
        DataType::Int16 => integers::<Int16Type>(array),
        DataType::Int32 => integers::<Int32Type>(array),
        DataType::Int64 => integers::<Int64Type>(array),
        DataType::UInt8 => integers::<UInt8Type>(array),
        DataType::UInt16 => integers::<UInt16Type>(array),
        DataType::UInt32 => integers::<UInt32Type>(array),
        DataType::UInt64 => primitive::<UInt64Type>(array, |value, out| write_uint(out, value)),
        DataType::Float32 => primitive::<Float32Type>(array, |value, out| write_double(out, value.into())),
        DataType::Float64 => primitive::<Float64Type>(array, |value, out| write_double(out, value)),
        DataType::Decimal128(_, scale) => decimals(array, *scale)?,
        DataType::Utf8View => texts(array, field),
        DataType::BinaryView => {
            let array: &BinaryViewArray = array.as_binary_view();
            Box::new(move |row, out| write_bin(out, array.value(row)))
        }
        DataType::Date32 => primitive::<Date32Type>(array, |day, out| Value::Date(day.into()).write_shown(out)),
        DataType::Time64(_) => {
            primitive::<Time64MicrosecondType>(array, |time, out| Value::Time(time).write_shown(out))
        }
        DataType::Timestamp(_, None) => {
            primitive::<TimestampMicrosecondType>(array, |time, out| Value::Timestamp(time).write_shown(out))
        }
        DataType::Timestamp(_, Some(_)) => {
            primitive::<TimestampMicrosecondType>(array, |time, out| Value::TimestampTz(time).write_shown(out))
        }
        DataType::List(item) => {
            let array = array.as_list::<i32>();
            let item = item.clone();
            Box::new(move |row, out| write_list(&array.value(row), &item, out))
        }
        DataType::Interval(_) => primitive::<IntervalMonthDayNanoType>(array, |by, out| {
            write_str(out, &interval_text(by));
        }),
        _ => printed(array)?,
    })
}

fn primitive<'a, T: ArrowPrimitiveType>(
    array: &'a ArrayRef,
    write: impl Fn(T::Native, &mut Vec<u8>) + 'a,
) -> Writer<'a> {
    let array: &PrimitiveArray<T> = array.as_primitive();
    Box::new(move |row, out| write(array.value(row), out))
}

fn integers<'a, T: ArrowPrimitiveType>(array: &'a ArrayRef) -> Writer<'a>
where
    T::Native: Into<i64>,
{
    primitive::<T>(array, |value, out| write_int(out, value.into()))
}

fn decimals(array: &ArrayRef, scale: i8) -> Result<Writer<'_>> {
    let array: &Decimal128Array = array.as_primitive();
    let scale = u8::try_from(scale).map_err(|_| Error::internal("a decimal with a negative scale"))?;
    Ok(Box::new(move |row, out| Value::Decimal(Decimal { unscaled: array.value(row), scale }).write_shown(out)))
}

fn texts<'a>(array: &'a ArrayRef, field: &Field) -> Writer<'a> {
    let array: &StringViewArray = array.as_string_view();
    if mark_of(field) == Some(ColumnType::Uuid) {
        return Box::new(move |row, out| match parse_uuid(array.value(row)) {
            Ok(uuid) => Value::Uuid(uuid).write_shown(out),
            Err(_) => write_str(out, array.value(row)),
        });
    }
    Box::new(move |row, out| write_str(out, array.value(row)))
}

/// A list in a result: an array, or NULL where its items have no form of their own.
fn write_list(items: &ArrayRef, field: &Field, out: &mut Vec<u8>) {
    let mut inner = Vec::new();
    let written = shown_form(items).and_then(|items| {
        let write = writer(&items, field)?;
        write_array_len(&mut inner, items.len());
        for row in 0..items.len() {
            if items.is_null(row) { write_nil(&mut inner) } else { write(row, &mut inner) }
        }
        Ok(())
    });
    match written {
        Ok(()) => out.extend_from_slice(&inner),
        Err(_) => write_nil(out),
    }
}

/// Structs and the like: as the engine prints them.
fn printed(array: &ArrayRef) -> Result<Writer<'_>> {
    const OPTIONS: &FormatOptions<'static> = &FormatOptions::new();
    let formatter = ArrayFormatter::try_new(array.as_ref(), OPTIONS)
        .map_err(|error| Error::new(Code::Unsupported, format!("a result can not be shown: {error}")))?;
    Ok(Box::new(move |row, out| write_str(out, &formatter.value(row).to_string())))
}
