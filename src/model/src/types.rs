//! SQL column types and how each is kept in a box space.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Digits that a DECIMAL can have at most, on the host and in the query engine.
pub const DECIMAL_PRECISION_MAX: u8 = 38;

/// The type of a column, as declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ColumnType {
    Boolean,
    /// 16 bits, signed.
    SmallInt,
    /// 32 bits, signed.
    Integer,
    /// 64 bits, signed.
    BigInt,
    /// 0 to 2^63-1: the host's `unsigned`, for tables made from Lua.
    Unsigned,
    /// 32-bit IEEE 754, kept as the host's double.
    Real,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    /// Padded with spaces to `length` characters.
    Char {
        length: u32,
    },
    /// At most `length` characters.
    Varchar {
        length: u32,
    },
    Text,
    Varbinary,
    Uuid,
    /// Days since 1970-01-01, kept as an integer.
    Date,
    /// Microseconds since midnight, kept as an integer.
    Time,
    /// Microseconds since 1970-01-01 00:00 without a time zone, kept as an integer.
    Timestamp,
    /// Microseconds since 1970-01-01 00:00 UTC, kept as an integer.
    TimestampTz,
    /// JSON text, checked when written.
    Json,
}

impl ColumnType {
    /// The host's field type that holds values of this type.
    pub fn host_type(self) -> &'static str {
        use ColumnType::*;
        match self {
            Boolean => "boolean",
            SmallInt | Integer | BigInt | Date | Time | Timestamp | TimestampTz => "integer",
            Unsigned => "unsigned",
            Real | Double => "double",
            Decimal { .. } => "decimal",
            Char { .. } | Varchar { .. } | Text | Json => "string",
            Varbinary => "varbinary",
            Uuid => "uuid",
        }
    }

    /// Whether two columns of these types put equal values into one bucket, so that a join of their tables on them
    /// needs no moving of rows. See `sharding::hash`.
    pub fn hashes_like(self, other: ColumnType) -> bool {
        let (a, b) = (self.hash_family(), other.hash_family());
        a.is_some() && a == b
    }

    fn hash_family(self) -> Option<u8> {
        use ColumnType::*;
        match self {
            Boolean => Some(0),
            SmallInt | Integer | BigInt | Unsigned | Decimal { .. } => Some(1),
            // A double that is no integer is not equal to the decimal of the same digits.
            Real | Double => Some(2),
            Varchar { .. } | Text => Some(3),
            // Equal under padding, but not byte for byte.
            Char { .. } => None,
            Varbinary => Some(4),
            Uuid => Some(5),
            Date => Some(6),
            Time => Some(7),
            Timestamp => Some(8),
            TimestampTz => Some(9),
            Json => None,
        }
    }

    pub fn is_integer(self) -> bool {
        matches!(self, Self::SmallInt | Self::Integer | Self::BigInt | Self::Unsigned)
    }

    /// Reads a type by the name that Lua users and the host give it, or the plain SQL name. Types with lengths are
    /// the parser's affair.
    pub fn from_name(name: &str) -> Option<ColumnType> {
        use ColumnType::*;
        Some(match name.to_ascii_lowercase().as_str() {
            "boolean" | "bool" => Boolean,
            "smallint" => SmallInt,
            "int" | "int32" => Integer,
            "integer" | "bigint" => BigInt,
            "unsigned" => Unsigned,
            "real" | "float" => Real,
            "double" | "number" => Double,
            "decimal" | "numeric" => Decimal { precision: DECIMAL_PRECISION_MAX, scale: 10 },
            "string" | "str" | "text" | "varchar" => Text,
            "varbinary" | "bytea" => Varbinary,
            "uuid" => Uuid,
            "date" => Date,
            "time" => Time,
            "timestamp" => Timestamp,
            "timestamptz" => TimestampTz,
            "json" => Json,
            _ => return None,
        })
    }
}

impl fmt::Display for ColumnType {
    /// The SQL spelling, as metadata and `SHOW` print it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use ColumnType::*;
        match self {
            Boolean => f.write_str("boolean"),
            SmallInt => f.write_str("smallint"),
            Integer => f.write_str("integer"),
            BigInt => f.write_str("bigint"),
            Unsigned => f.write_str("unsigned"),
            Real => f.write_str("real"),
            Double => f.write_str("double"),
            Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Char { length } => write!(f, "char({length})"),
            Varchar { length } => write!(f, "varchar({length})"),
            Text => f.write_str("text"),
            Varbinary => f.write_str("varbinary"),
            Uuid => f.write_str("uuid"),
            Date => f.write_str("date"),
            Time => f.write_str("time"),
            Timestamp => f.write_str("timestamp"),
            TimestampTz => f.write_str("timestamptz"),
            Json => f.write_str("json"),
        }
    }
}
