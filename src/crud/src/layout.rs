//! A table as the data path uses it: what `model::Table` says, worked out once for each version of the definition so
//! that no request pays for it again.

use crate::cell::Cell;
use crate::compare::field_of;
use model::msgpack::{self, Reader};
use model::program::Surroundings;
use model::{Code, Durability, Error, Result, Table, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// A table definition compiled for reading and writing rows.
#[derive(Debug)]
pub struct Layout {
    pub table: Arc<Table>,
    /// How each column's values are checked and kept, in the order of the columns.
    pub cells: Vec<Cell>,
    /// The columns of the sharding key as places within the primary key; empty for a global table.
    pub sharding_in_key: Vec<usize>,
    /// The columns of the sharding key; empty for a global table.
    pub sharding: Vec<usize>,
    /// MessagePack of `[{name=, type=}, ...]` for all columns, as every answer carries it.
    pub metadata: Vec<u8>,
    /// Whether stored and shown rows have the same bytes: no column holds a date or a time, is hidden, or came later.
    pub is_shown_as_stored: bool,
    /// Positions of the columns that users see.
    pub visible: Vec<usize>,
    /// Whether rows are checked for more than box checks.
    is_strict: bool,
    /// For columns that came later the stored value in rows from before; empty for the others.
    fills: Vec<Vec<u8>>,
    positions: HashMap<Box<str>, usize>,
}

impl Layout {
    pub fn new(table: Arc<Table>) -> Self {
        let sharding = table.sharding_key().unwrap_or(&[]).to_vec();
        let place = |column: &usize| table.primary_key.iter().position(|p| p == column);
        let sharding_in_key = sharding.iter().filter_map(place).collect();
        let cells: Vec<Cell> = table.columns.iter().map(|column| Cell::new(column.ty)).collect();
        let visible: Vec<usize> = table.visible().collect();
        let fill = |column: &model::Column| {
            let mut bytes = Vec::new();
            column.added.iter().for_each(|value| value.write_stored(&mut bytes));
            bytes
        };
        let fills: Vec<Vec<u8>> = table.columns.iter().map(fill).collect();
        let is_plain = visible.len() == table.columns.len() && fills.iter().all(Vec::is_empty);
        Self {
            metadata: encode_metadata(&table, &visible),
            is_shown_as_stored: is_plain && cells.iter().all(|cell| !cell.is_temporal()),
            positions: visible.iter().map(|at| (table.columns[*at].name.as_str().into(), *at)).collect(),
            is_strict: table.is_checked(),
            visible,
            fills,
            cells,
            sharding_in_key,
            sharding,
            table,
        }
    }

    /// Whether rows are spread over buckets.
    pub fn is_sharded(&self) -> bool {
        !self.table.is_global()
    }

    /// Whether reads wait until what they saw can not be lost.
    pub fn is_replicated(&self) -> bool {
        self.is_sharded() && self.table.durability == Durability::Replicated
    }

    /// How many columns are stored.
    pub fn width(&self) -> usize {
        self.cells.len()
    }

    /// The stored bytes of the bucket, if the table has buckets, and of the primary key: a key of the primary index.
    ///
    /// Errors: `Internal` when the tuple is none of this table.
    pub fn primary_key_of(&self, tuple: &[u8]) -> Result<Vec<u8>> {
        let offset = self.table.stored_offset();
        let mut key = Vec::with_capacity(32);
        for field in (0..offset).chain(self.table.primary_key.iter().map(|column| column + offset)) {
            let bytes =
                field_of(tuple, field).ok_or_else(|| Error::internal("a stored tuple lacks its primary key"))?;
            key.extend_from_slice(bytes);
        }
        Ok(key)
    }

    /// A tuple with the bucket and the primary key of another in their places, and NULL in all places before them.
    ///
    /// Errors: `Internal` when the tuple is none of this table.
    pub fn key_tuple_of(&self, tuple: &[u8]) -> Result<Vec<u8>> {
        let offset = self.table.stored_offset();
        let is_key = |field: usize| field < offset || self.table.primary_key.contains(&(field - offset));
        let len = offset + self.table.primary_key.iter().max().map_or(0, |last| last + 1);
        let mut short = Vec::with_capacity(32);
        msgpack::write_array_len(&mut short, len);
        for field in 0..len {
            match field_of(tuple, field) {
                Some(bytes) if is_key(field) => short.extend_from_slice(bytes),
                None if is_key(field) => return Err(Error::internal("a stored tuple lacks its primary key")),
                _ => msgpack::write_nil(&mut short),
            }
        }
        Ok(short)
    }

    /// The stored value of a column, also where the tuple is older than the column.
    pub fn column<'t>(&'t self, tuple: &'t [u8], position: usize) -> Option<&'t [u8]> {
        let fill = || self.fills.get(position).map(Vec::as_slice).filter(|fill| !fill.is_empty());
        field_of(tuple, position + self.table.stored_offset()).or_else(fill)
    }

    /// The columns of a stored tuple.
    ///
    /// Errors: `Corrupted` when the tuple is not one of this table.
    pub fn values_of_stored(&self, tuple: &[u8]) -> Result<Vec<Value>> {
        let row = StoredRow { layout: self, tuple };
        (0..self.width()).map(|position| row.column(position)).collect()
    }

    /// The tuple with the columns that came later than it; None when it has them.
    ///
    /// Errors: `Argument` when it is too short to be one of this table.
    pub fn padded(&self, tuple: &[u8]) -> Result<Option<Vec<u8>>> {
        let offset = self.table.stored_offset();
        let mut fields = Reader::new(tuple);
        let len = fields.array_len()?;
        if len >= self.width() + offset {
            return Ok(None);
        }
        let missing = len.checked_sub(offset).map(|columns| &self.fills[columns..]).unwrap_or_default();
        if missing.is_empty() || missing.iter().any(Vec::is_empty) {
            return Err(Error::new(Code::Argument, format!("a tuple of table \"{}\" is too short", self.table.name)));
        }
        let mut padded = Vec::with_capacity(tuple.len() + 16);
        msgpack::write_array_len(&mut padded, self.width() + offset);
        padded.extend_from_slice(fields.rest());
        missing.iter().for_each(|fill| padded.extend_from_slice(fill));
        Ok(Some(padded))
    }

    /// Whether older tuples may lack columns.
    pub fn has_added_columns(&self) -> bool {
        self.fills.iter().any(|fill| !fill.is_empty())
    }

    /// Whether `verify` has something to look at.
    pub fn is_strict(&self) -> bool {
        self.is_strict
    }

    /// Checks a tuple for what box does not check: NOT NULL of columns that were altered, and the CHECK constraints.
    ///
    /// Errors: `NullViolation`, `CheckViolation`, and those of the expressions.
    pub fn verify(&self, tuple: &[u8]) -> Result<()> {
        if self.is_strict { self.table.check_row(&StoredRow { layout: self, tuple }) } else { Ok(()) }
    }

    /// The position of a column, or the error that names the nearest one.
    pub fn require_column(&self, name: &str) -> Result<usize> {
        match self.positions.get(name) {
            Some(position) => Ok(*position),
            None => self.table.require_column(name),
        }
    }
}

/// A stored tuple, as expressions read it.
struct StoredRow<'a> {
    layout: &'a Layout,
    tuple: &'a [u8],
}

impl Surroundings for StoredRow<'_> {
    fn column(&self, position: usize) -> Result<Value> {
        let bytes = self.layout.column(self.tuple, position);
        let bytes = bytes.ok_or_else(|| Error::new(Code::Corrupted, "a stored tuple is too short"))?;
        Value::read_stored(&mut Reader::new(bytes), self.layout.cells[position].ty)
    }
}

/// MessagePack of `[{name=, type=}, ...]` for some columns of a table.
pub fn encode_metadata(table: &Table, columns: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    msgpack::write_array_len(&mut out, columns.len());
    for &position in columns {
        let column = &table.columns[position];
        msgpack::write_map_len(&mut out, 2);
        msgpack::write_str(&mut out, "name");
        msgpack::write_str(&mut out, &column.name);
        msgpack::write_str(&mut out, "type");
        msgpack::write_str(&mut out, &column.ty.to_string());
    }
    out
}
