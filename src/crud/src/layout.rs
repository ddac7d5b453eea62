//! A table as the data path uses it: what `model::Table` says, worked out once for each version of the definition so
//! that no request pays for it again.

use crate::cell::Cell;
use model::{Table, msgpack};
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
    /// Whether stored and shown rows have the same bytes: no column holds a date or a time.
    pub is_shown_as_stored: bool,
    positions: HashMap<Box<str>, usize>,
}

impl Layout {
    pub fn new(table: Arc<Table>) -> Self {
        let sharding = table.sharding_key().unwrap_or(&[]).to_vec();
        let place = |column: &usize| table.primary_key.iter().position(|p| p == column);
        let sharding_in_key = sharding.iter().filter_map(place).collect();
        let cells: Vec<Cell> = table.columns.iter().map(|column| Cell::new(column.ty)).collect();
        let all: Vec<usize> = (0..table.columns.len()).collect();
        Self {
            metadata: encode_metadata(&table, &all),
            is_shown_as_stored: cells.iter().all(|cell| !cell.is_temporal()),
            positions: table.columns.iter().enumerate().map(|(at, c)| (c.name.as_str().into(), at)).collect(),
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

    /// How many columns users see.
    pub fn width(&self) -> usize {
        self.cells.len()
    }

    /// The position of a column, or the error that names the nearest one.
    pub fn require_column(&self, name: &str) -> model::Result<usize> {
        match self.positions.get(name) {
            Some(position) => Ok(*position),
            None => self.table.require_column(name),
        }
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
