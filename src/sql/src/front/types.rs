//! SQL's spellings of types as column types.
//!
//! The standard's and PostgreSQL's spellings are all understood; what the host can not keep is refused by name.

use model::error::nearest;
use model::types::DECIMAL_PRECISION_MAX;
use model::{Code, ColumnType, Error, Result};
use sqlparser::ast::{BinaryLength, CharacterLength, DataType, ExactNumberInfo, TimezoneInfo};

/// Characters that CHAR(n) and VARCHAR(n) can name at most.
pub const LENGTH_MAX: u64 = 10_485_760;

/// Names for hints, beside those that no one misspells.
const NAMES: &[&str] = &[
    "boolean",
    "smallint",
    "integer",
    "bigint",
    "unsigned",
    "real",
    "double precision",
    "decimal",
    "numeric",
    "char",
    "varchar",
    "text",
    "varbinary",
    "uuid",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "json",
];

/// The column type that an SQL type stands for.
///
/// Errors: `Unsupported` for types of the standard or of PostgreSQL that no column can have, `InvalidStatement` for
/// lengths and precisions out of range and for names that mean nothing.
pub fn column_type(ty: &DataType) -> Result<ColumnType> {
    use ColumnType as T;
    use DataType as D;
    Ok(match ty {
        D::Boolean | D::Bool => T::Boolean,
        D::SmallInt(None) | D::Int2(None) => T::SmallInt,
        D::Int(None) | D::Integer(None) | D::Int4(None) => T::Integer,
        D::BigInt(None) | D::Int8(None) => T::BigInt,
        D::Unsigned | D::UnsignedInteger | D::BigIntUnsigned(None) => T::Unsigned,
        D::IntUnsigned(None) | D::IntegerUnsigned(None) => T::Unsigned,
        D::Real | D::Float4 => T::Real,
        D::DoublePrecision | D::Float8 | D::Double(ExactNumberInfo::None) => T::Double,
        D::Float(info) => float(info)?,
        D::Decimal(info) | D::Numeric(info) | D::Dec(info) => decimal(info)?,
        D::Char(length) | D::Character(length) => T::Char { length: characters(length)?.unwrap_or(1) },
        D::Varchar(length) | D::CharVarying(length) | D::CharacterVarying(length) | D::Nvarchar(length) => {
            characters(length)?.map_or(T::Text, |length| T::Varchar { length })
        }
        D::Text | D::String(None) | D::Clob(None) | D::CharacterLargeObject(None) | D::CharLargeObject(None) => T::Text,
        D::Bytea | D::Blob(None) | D::Varbinary(None | Some(BinaryLength::Max)) | D::Bytes(None) => T::Varbinary,
        D::Varbinary(Some(_)) | D::Binary(_) => return Err(unsupported(ty, "VARBINARY without a length")),
        D::Uuid => T::Uuid,
        D::Date => T::Date,
        D::Time(None | Some(6), TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => T::Time,
        D::Timestamp(None | Some(6), TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => T::Timestamp,
        D::Timestamp(None | Some(6), TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => T::TimestampTz,
        D::Time(_, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => {
            return Err(unsupported(ty, "TIME or TIMESTAMPTZ"));
        }
        D::Time(..) | D::Timestamp(..) => {
            return Err(unsupported(ty, "the type without a precision: it keeps microseconds"));
        }
        D::JSON | D::JSONB => T::Json,
        D::Custom(name, modifiers) if modifiers.is_empty() => named(&name.to_string())?,
        D::Interval { .. } => return Err(unsupported(ty, "an integer of the unit you need")),
        D::Array(_) => return Err(unsupported(ty, "JSON, or a table of its own")),
        other => return Err(Error::new(Code::Unsupported, format!("columns can not have the type {other}"))),
    })
}

fn unsupported(ty: &DataType, instead: &str) -> Error {
    Error::new(Code::Unsupported, format!("columns can not have the type {ty}")).with_hint(format!("use {instead}"))
}

fn out_of_range(message: String) -> Error {
    Error::new(Code::InvalidStatement, message)
}

/// FLOAT(p): p counts binary digits, as the standard has it.
fn float(info: &ExactNumberInfo) -> Result<ColumnType> {
    match info {
        ExactNumberInfo::None | ExactNumberInfo::Precision(25..=53) => Ok(ColumnType::Double),
        ExactNumberInfo::Precision(1..=24) => Ok(ColumnType::Real),
        _ => Err(out_of_range("FLOAT has a precision of 1 to 53 binary digits".into())),
    }
}

fn decimal(info: &ExactNumberInfo) -> Result<ColumnType> {
    let max = u64::from(DECIMAL_PRECISION_MAX);
    let (precision, scale) = match info {
        ExactNumberInfo::None => (max, 10),
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    let checked = (1..=max).contains(&precision).then_some(precision).zip(u64::try_from(scale).ok());
    let checked = checked.filter(|(precision, scale)| scale <= precision);
    let checked = checked.and_then(|(p, s)| Some((u8::try_from(p).ok()?, u8::try_from(s).ok()?)));
    let (precision, scale) = checked.ok_or_else(|| {
        out_of_range(format!(
            "DECIMAL({precision},{scale}): the precision goes from 1 to {max}, the scale from 0 to the precision"
        ))
    })?;
    Ok(ColumnType::Decimal { precision, scale })
}

fn characters(length: &Option<CharacterLength>) -> Result<Option<u32>> {
    match length {
        None | Some(CharacterLength::Max) => Ok(None),
        Some(CharacterLength::IntegerLength { length, .. }) => u32::try_from(*length)
            .ok()
            .filter(|n| (1..=LENGTH_MAX).contains(&u64::from(*n)))
            .map(Some)
            .ok_or_else(|| out_of_range(format!("a length of {length} characters: it goes from 1 to {LENGTH_MAX}"))),
    }
}

/// Names that are no keywords: the host's own, as Lua users know them.
fn named(name: &str) -> Result<ColumnType> {
    ColumnType::from_name(name).ok_or_else(|| {
        let error = Error::new(Code::InvalidStatement, format!("there is no type \"{name}\""));
        match (name.to_lowercase().ends_with("serial"), nearest(name, NAMES.iter().copied())) {
            (true, _) => Error::new(Code::Unsupported, format!("the type {name} is not supported"))
                .with_hint("use BIGINT and give the values yourself"),
            (false, Some(near)) => error.with_hint(format!("did you mean \"{near}\"?")),
            (false, None) => error,
        }
    })
}
