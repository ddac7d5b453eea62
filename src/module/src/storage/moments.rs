//! The moments of this instance's running queries: which are open, and what they are told of changes.
//!
//! A moment that is watched hears of every change of a row of its tables (`watching`). All of it runs on the tx thread.

use super::{Storage, watching};
use crud::Layout;
use crud::moment::Moment;
use crud::row::bucket_of_stored;
use model::{Code, Error, Result, TableId};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

type Shared = Rc<RefCell<Moment>>;

#[derive(Default)]
struct Moments {
    /// With the tables that each is told of.
    by_number: HashMap<u64, (Shared, Vec<TableId>)>,
    /// The moments that are told of changes of a table.
    by_table: HashMap<TableId, Vec<Shared>>,
}

thread_local! {
    static MOMENTS: RefCell<Moments> = RefCell::default();
}

/// A moment that begins now.
pub fn fresh() -> Shared {
    Rc::new(RefCell::new(Moment::at(watching::now())))
}

/// The moment with this number, if it is watched.
pub fn watched(number: u64) -> Option<Shared> {
    MOMENTS.with_borrow(|moments| moments.by_number.get(&number).map(|(moment, _)| Rc::clone(moment)))
}

/// Tells the moment of all changes of these tables from now on, until `end`.
///
/// Errors: `SchemaChanged` when a table is not here; what the host says.
pub fn watch(storage: &Storage, number: u64, moment: &Shared, tables: &[TableId]) -> Result<()> {
    let known = storage.tables();
    let layouts: Vec<Arc<Layout>> = tables
        .iter()
        .map(|id| known.get(*id).cloned().ok_or_else(|| Error::new(Code::SchemaChanged, "a table is not here")))
        .collect::<Result<_>>()?;
    let mut held: Vec<TableId> = Vec::new();
    for table in tables {
        if let Err(error) = watching::hold(*table) {
            held.into_iter().for_each(watching::release);
            return Err(error);
        }
        held.push(*table);
    }
    MOMENTS.with_borrow_mut(|moments| {
        moments.by_number.insert(number, (Rc::clone(moment), held));
        for layout in layouts {
            moments.by_table.entry(layout.table.id).or_default().push(Rc::clone(moment));
            moment.borrow_mut().watch(layout);
        }
    });
    Ok(())
}

/// The moment is needed no more.
pub fn end(number: u64) {
    let tables: Vec<TableId> = MOMENTS.with_borrow_mut(|moments| {
        let Some((moment, tables)) = moments.by_number.remove(&number) else { return Vec::new() };
        for table in &tables {
            if let Some(watching) = moments.by_table.get_mut(table) {
                watching.retain(|other| !Rc::ptr_eq(other, &moment));
                if watching.is_empty() {
                    moments.by_table.remove(table);
                }
            }
        }
        tables
    });
    tables.into_iter().for_each(watching::release);
}

/// The rows of a table went all at once, or changes were taken back without a word: who looks at an earlier moment of it
/// begins again.
pub fn lose(table: Option<TableId>) {
    MOMENTS.with_borrow(|moments| {
        for (watched, watching) in &moments.by_table {
            if table.is_none_or(|table| table == *watched) {
                let cause = Error::new(Code::SchemaChanged, "the rows of a table went while a query read them");
                watching.iter().for_each(|moment| moment.borrow_mut().lose(cause.clone()));
            }
        }
    });
}

/// A row of a table becomes another. Rows of buckets that are not served here are nobody's: a move brings or takes them.
pub fn change(table: TableId, old: Option<&[u8]>, new: Option<&[u8]>) -> Result<()> {
    let storage = super::get()?;
    MOMENTS.with_borrow(|moments| {
        let Some(watching) = moments.by_table.get(&table) else { return Ok(()) };
        let is_sharded = storage.tables().get(table).is_some_and(|layout| layout.is_sharded());
        if let (true, Some(tuple)) = (is_sharded, old.or(new)) {
            let bucket = bucket_of_stored(tuple)?;
            if !storage.guard.borrow().is_readable(bucket) {
                return Ok(());
            }
        }
        watching.iter().for_each(|moment| moment.borrow_mut().change(table, old, new));
        Ok(())
    })
}
