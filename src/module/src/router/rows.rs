//! Rows that an SQL statement looks up by their keys.

use super::execute::Request;
use super::{Router, TableRoute};
use crate::host::Deadline;
use crate::side_by_side::{self, Task};
use crate::storage::global;
use crud::wire::{self, Verb};
use model::{Code, Error, Result, Table, Value};
use std::rc::Rc;

/// Keys asked for at the same time; those for one master leave together.
const KEYS_MAX: usize = 64;

impl Router {
    /// The rows with these primary keys, None where there is none, in the order of the keys.
    ///
    /// Errors: `SchemaChanged` when the table is another by now; those of reading.
    pub fn rows(
        &'static self,
        table: &Table,
        keys: Vec<Vec<Value>>,
        deadline: Deadline,
    ) -> Result<Vec<Option<Vec<Value>>>> {
        let route = self.route_of(table)?;
        let task = |key: Vec<Value>| -> Task<Result<Option<Vec<Value>>>> {
            let route = Rc::clone(&route);
            Box::new(move || self.row(&route, &key, deadline))
        };
        side_by_side::run("pico_rows", KEYS_MAX, keys.into_iter().map(task).collect())?.into_iter().collect()
    }

    fn row(&self, route: &TableRoute, key: &[Value], deadline: Deadline) -> Result<Option<Vec<Value>>> {
        let (mut stored_key, mut tuple) = (Vec::new(), Vec::new());
        let bucket = route.writer().key_of_values(key, &mut stored_key)?;
        if route.tier.is_none() {
            let is_found = global::get(&route.layout, &stored_key, &mut tuple)?;
            return is_found.then(|| route.layout.values_of_stored(&tuple)).transpose();
        }
        let mut operation = Vec::new();
        wire::write_op_head(&mut operation, Verb::Get, 0, &route.layout.table, 1);
        operation.append(&mut stored_key);
        let request = Request { route, bucket, is_write: false, operation: &operation, deadline };
        let reply = self.execute(&request)?;
        reply.done()?.first.map(|tuple| route.layout.values_of_stored(tuple)).transpose()
    }

    /// The way to a table that a statement was planned on.
    ///
    /// Errors: `SchemaChanged` when it is gone or another by now: the statement has to be planned again.
    pub(super) fn route_of(&self, table: &Table) -> Result<Rc<TableRoute>> {
        let snapshot = self.snapshot();
        let route = snapshot.table_by_id(table.id)?;
        if route.layout.table.version != table.version {
            let message = format!("table \"{}\" was changed while the statement ran", table.name);
            return Err(Error::new(Code::SchemaChanged, message));
        }
        Ok(Rc::clone(route))
    }
}
