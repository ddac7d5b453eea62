//! Rows of global tables as Raft's state machine writes them: inside its transactions, on every instance alike.

use crate::host::Deadline;
use crate::raft::Rows;
use crate::storage::{self, global};
use crate::{node, schema_work};
use catalog::{Op, State};
use crud::Layout;
use model::msgpack::{Reader, write_uint};
use model::{Code, Error, Result, Table, TableId, TableState};
use std::sync::Arc;

pub struct GlobalRows;

impl Rows for GlobalRows {
    fn prepare(&self, state: &State, tables: &[TableId]) -> Result<()> {
        schema_work::ensure(node::get()?, state, tables)
    }

    fn write(&self, state: &State, table: TableId, changes: &[u8]) -> Result<Vec<u8>> {
        let storage = storage::get()?;
        let Some(definition) = state.schema.table_by_id(table) else {
            return Err(Error::new(Code::SchemaChanged, "the table was dropped while the statement ran"));
        };
        let layout = match storage.tables().get(table) {
            Some(layout) if layout.table.version == definition.version => Arc::clone(layout),
            _ => Arc::new(Layout::new(definition.arc())),
        };
        let changed = global::write(storage, &layout, changes)?;
        let mut answer = Vec::new();
        write_uint(&mut answer, changed);
        Ok(answer)
    }

    fn clear(&self, state: &State, table: TableId) -> Result<()> {
        match state.schema.table_by_id(table).filter(|table| table.is_global()) {
            Some(table) => global::clear(&Layout::new(table.arc())),
            None => Ok(()),
        }
    }

    fn dump(&self, state: &State) -> Result<Vec<u8>> {
        global::dump(&layouts(state))
    }

    fn load(&self, state: &State, dump: &[u8]) -> Result<()> {
        global::load(&layouts(state), dump)
    }
}

/// Writes changes to a global table through the log; answers how many rows changed.
pub fn write(table: &Table, changes: Vec<u8>, deadline: Deadline) -> Result<u64> {
    let node = node::get()?;
    let op = Op::GlobalWrite { table: table.id, table_version: table.version, changes };
    let answer = node.propose(op, deadline)?;
    let rows = answer.rows.ok_or_else(|| Error::internal("a write to a global table was not answered"))?;
    Reader::new(&rows).uint()
}

/// The global tables that have rows.
fn layouts(state: &State) -> Vec<Arc<Layout>> {
    let tables = state.schema.tables.values();
    let filled = tables.filter(|table| table.is_global() && table.state == TableState::Operable);
    filled.map(|table| Arc::new(Layout::new(table.arc()))).collect()
}
