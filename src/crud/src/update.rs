//! Update operations: from `{{'+', 'price', 1}, ...}`, on columns, to the host's, on fields of the stored tuple.
//!
//! Arguments are brought to the column's type here, so that the host never makes a double out of a decimal column. What
//! only the result can tell (a SMALLINT that grew too large) is marked for a second look at the storage.

use crate::cell::Cell;
use crate::layout::Layout;
use crate::row::{null_violation, write_column};
use model::msgpack::{self, Reader};
use model::{Code, ColumnType, Decimal, Error, Result, Value};

/// The host counts fields from here in the operations that this module writes.
pub const INDEX_BASE: i32 = 1;
/// Operations in one update; the host takes no more.
pub const OPERATIONS_MAX: usize = 4000;

/// Consumes the user's operations and appends the host's, as one array. Answers whether the storage has to check the
/// resulting row.
///
/// Errors: `Argument`, `NoSuchColumn`, `NullViolation`, `WrongType`, `ValueOutOfRange`.
pub fn translate(layout: &Layout, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<bool> {
    let count = reader.array_len().map_err(|_| malformed())?;
    if count > OPERATIONS_MAX {
        return Err(Error::new(
            Code::LimitExceeded,
            format!("{count} operations in an update, at most {OPERATIONS_MAX} are taken"),
        ));
    }
    msgpack::write_array_len(out, count);
    let mut check = false;
    for _ in 0..count {
        check |= translate_one(layout, reader, out)?;
    }
    Ok(check)
}

fn translate_one(layout: &Layout, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<bool> {
    let len = reader.array_len().map_err(|_| malformed())?;
    if len == 0 {
        return Err(malformed());
    }
    let operator = reader.str().map_err(|_| malformed())?;
    let len_wanted = match operator {
        "=" | "+" | "-" | "&" | "|" | "^" => 3,
        ":" => 5,
        "!" | "#" => {
            let message = format!("the update operator '{operator}' would change the number of columns");
            return Err(Error::new(Code::Unsupported, message).with_hint("set the column to null with '='"));
        }
        other => {
            let hint = "the operators are = + - & | ^ :";
            return Err(Error::new(Code::Argument, format!("'{other}' is no update operator")).with_hint(hint));
        }
    };
    if len != len_wanted {
        let message = format!("the update operator '{operator}' takes {len_wanted} elements, {len} are given");
        return Err(Error::new(Code::Argument, message));
    }
    let position = column(layout, reader)?;
    if layout.table.primary_key.contains(&position) {
        let message =
            format!("column \"{}\" is part of the primary key and can not be updated", name(layout, position));
        return Err(Error::new(Code::Argument, message).with_hint("delete the row and insert it anew"));
    }
    msgpack::write_array_len(out, len);
    msgpack::write_str(out, operator);
    let field = position + layout.table.stored_offset() + INDEX_BASE as usize;
    msgpack::write_uint(out, field as u64);
    argument(layout, position, operator, reader, out)?;
    Ok(operator != "=" && layout.cells[position].is_stricter_than_host())
}

/// A column by name, by number from 1, or from the end by a negative number.
fn column(layout: &Layout, reader: &mut Reader<'_>) -> Result<usize> {
    if let Ok(name) = { *reader }.str() {
        reader.skip()?;
        return layout.require_column(name);
    }
    let number = reader.int().map_err(|_| malformed())?;
    let width = layout.visible.len() as i64;
    let place = if number < 0 { width + number } else { number - 1 };
    let position = usize::try_from(place).ok().and_then(|place| layout.visible.get(place));
    position.copied().ok_or_else(|| {
        let message = format!("table \"{}\" has {width} columns, none has the number {number}", layout.table.name);
        Error::new(Code::NoSuchColumn, message)
    })
}

fn argument(
    layout: &Layout,
    position: usize,
    operator: &str,
    reader: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<()> {
    let cell = layout.cells[position];
    match operator {
        "=" if reader.take_nil() => {
            if !layout.table.columns[position].nullable {
                return Err(null_violation(layout, position));
            }
            msgpack::write_nil(out);
            Ok(())
        }
        "=" => write_column(layout, position, reader, out),
        "+" | "-" => operand(layout, position, cell, reader.value()?, out),
        ":" => splice(layout, position, cell, reader, out),
        _ => {
            if !cell.ty.is_integer() {
                return Err(does_not_apply(layout, position, operator));
            }
            let mask = reader.uint().map_err(|_| {
                Error::new(Code::WrongType, format!("'{operator}' takes a whole number that is not negative"))
            })?;
            msgpack::write_uint(out, mask);
            Ok(())
        }
    }
}

/// The number that '+' and '-' take, in a form that keeps the host's result in the column's type.
fn operand(layout: &Layout, position: usize, cell: Cell, value: Value, out: &mut Vec<u8>) -> Result<()> {
    use ColumnType as T;
    let value = match (cell.ty, value) {
        (ty, value @ Value::Integer(_)) if ty.is_integer() => value,
        (T::Real | T::Double, value) => value.coerce(T::Double)?,
        (T::Decimal { .. }, value @ (Value::Integer(_) | Value::Decimal(_))) => value,
        (T::Decimal { .. }, Value::Double(d)) => Value::Decimal(d.to_string().parse::<Decimal>()?),
        (ty, value) if ty.is_integer() => value.coerce(T::BigInt)?,
        _ => return Err(does_not_apply(layout, position, "+ and -")),
    };
    if value.is_null() {
        return Err(Error::new(
            Code::WrongType,
            format!("column \"{}\": null can not be added", name(layout, position)),
        ));
    }
    value.write_stored(out);
    Ok(())
}

fn splice(layout: &Layout, position: usize, cell: Cell, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<()> {
    use ColumnType::*;
    if !matches!(cell.ty, Text | Varchar { .. } | Char { .. } | Json) {
        return Err(does_not_apply(layout, position, ":"));
    }
    let wrong = |_| Error::new(Code::Argument, "':' takes a position, a length and a string");
    msgpack::write_int(out, reader.int().map_err(wrong)?);
    msgpack::write_int(out, reader.int().map_err(wrong)?);
    msgpack::write_str(out, reader.str().map_err(wrong)?);
    Ok(())
}

fn name(layout: &Layout, position: usize) -> &str {
    &layout.table.columns[position].name
}

fn does_not_apply(layout: &Layout, position: usize, operator: &str) -> Error {
    let column = &layout.table.columns[position];
    Error::new(
        Code::WrongType,
        format!("'{operator}' does not apply to column \"{}\" of type {}", column.name, column.ty),
    )
}

fn malformed() -> Error {
    Error::new(Code::Argument, "update operations are an array of {operator, column, argument}")
}

/// Checks a stored tuple that the host computed against the column types.
///
/// Errors: `ValueOutOfRange` or `WrongType` with the column's name.
pub fn check_tuple(layout: &Layout, tuple: &[u8]) -> Result<()> {
    let mut reader = Reader::new(tuple);
    reader.array_len()?;
    if layout.is_sharded() {
        reader.skip()?;
    }
    for (position, cell) in layout.cells.iter().enumerate() {
        // What comes later than the tuple was checked when the column was made.
        if reader.is_empty() {
            break;
        }
        let bytes = reader.raw()?;
        if bytes != [0xc0] {
            cell.check_stored(bytes).map_err(|mut error| {
                error.message = format!("column \"{}\": {}", name(layout, position), error.message);
                error
            })?;
        }
    }
    Ok(())
}
