//! Box as the crate `crud` wants it: `Store` for the operations of a batch, `Walk` for an index.

use super::room;
use crate::acks;
use crate::host::txn::Bookmark;
use crate::host::{IteratorKind, Space, Transaction, TupleIterator, fiber};
use crud::batch::Store;
use crud::scan::{Direction, Walk};
use crud::selection::PRIMARY_INDEX_NAME;
use crud::update::INDEX_BASE;
use model::{Code, Durability, Error, Result, TableId, msgpack};

/// The store of one transaction on this instance: its own, or, when `begin` is never called, the caller's.
#[derive(Default)]
pub struct BoxStore {
    transaction: Option<Transaction>,
    has_written: bool,
}

impl Store for BoxStore {
    type Savepoint = Bookmark;

    fn begin(&mut self) -> Result<()> {
        self.transaction = Some(Transaction::begin()?);
        Ok(())
    }

    fn check_members(&mut self) -> Result<()> {
        acks::check_in_sync()
    }

    fn commit(&mut self, durability: Durability) -> Result<()> {
        let Some(transaction) = self.transaction.take() else {
            return Err(Error::internal("a commit without a transaction"));
        };
        let commit = acks::begin_commit()?;
        transaction.commit()?;
        drop(commit);
        match durability {
            Durability::Replicated if self.has_written => acks::await_in_sync(),
            Durability::Replicated | Durability::Local => Ok(()),
        }
    }

    fn settle(&mut self) -> Result<()> {
        acks::settle()
    }

    fn rollback(&mut self) {
        self.transaction = None;
    }

    fn savepoint(&mut self) -> Result<Bookmark> {
        Bookmark::new()
    }

    fn rollback_to(&mut self, savepoint: Bookmark) -> Result<()> {
        savepoint.rollback()
    }

    fn get(&mut self, space: TableId, key: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        append(Space(space).get(0, key)?, out)
    }

    fn insert(&mut self, space: TableId, tuple: &[u8]) -> Result<()> {
        self.has_written = true;
        self.admit(space, tuple)?;
        Space(space).insert(tuple).map(drop).map_err(plain_duplicate)
    }

    fn replace(&mut self, space: TableId, tuple: &[u8]) -> Result<()> {
        self.has_written = true;
        self.admit(space, tuple)?;
        Space(space).replace(tuple).map(drop).map_err(plain_duplicate)
    }

    fn delete(&mut self, space: TableId, key: &[u8], out: Option<&mut Vec<u8>>) -> Result<bool> {
        self.has_written = true;
        let old = Space(space).delete(0, key)?;
        match out {
            Some(out) => append(old, out),
            None => Ok(old.is_some()),
        }
    }

    fn update(&mut self, space: TableId, key: &[u8], operations: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        self.has_written = true;
        append(Space(space).update(0, key, operations, INDEX_BASE).map_err(plain_duplicate)?, out)
    }
}

impl BoxStore {
    /// Whether there is room for a row. What the cluster's log writes, in a transaction that is not this store's, has room of
    /// its own.
    fn admit(&self, space: TableId, tuple: &[u8]) -> Result<()> {
        if self.transaction.is_some() { room::admit(space, tuple.len()) } else { Ok(()) }
    }
}

/// A duplicate key in the words of tables: the host speaks of spaces and of our name for the primary index.
fn plain_duplicate(error: Error) -> Error {
    let mut quoted = error.message.split('\'').skip(1).step_by(2);
    match (error.code, quoted.next(), quoted.next()) {
        (Code::DuplicateKey, Some(PRIMARY_INDEX_NAME), Some(table)) => {
            Error::new(error.code, format!("table \"{table}\" already has a row with this primary key"))
        }
        (Code::DuplicateKey, Some(index), Some(table)) => Error::new(
            error.code,
            format!("table \"{table}\" already has a row with this key of its index \"{index}\""),
        ),
        _ => error,
    }
}

fn append(tuple: Option<crate::host::Tuple>, out: &mut Vec<u8>) -> Result<bool> {
    if let Some(tuple) = &tuple {
        tuple.copy_to(out);
    }
    Ok(tuple.is_some())
}

/// One index of one space.
pub struct BoxWalk {
    space: Space,
    index: u32,
    iterator: Option<TupleIterator>,
}

impl BoxWalk {
    pub fn new(space: TableId, index: u32) -> Self {
        Self { space: Space(space), index, iterator: None }
    }
}

impl Walk for BoxWalk {
    fn seek(&mut self, direction: Direction, parts: usize, key: &[u8]) -> Result<()> {
        let kind = match direction {
            Direction::Less => IteratorKind::Lt,
            Direction::LessOrEqual => IteratorKind::Le,
            Direction::GreaterOrEqual => IteratorKind::Ge,
            Direction::Greater => IteratorKind::Gt,
        };
        let mut bytes = Vec::with_capacity(key.len() + 5);
        msgpack::write_array_len(&mut bytes, parts);
        bytes.extend_from_slice(key);
        self.iterator = Some(self.space.iterate(self.index, kind, &bytes)?);
        Ok(())
    }

    fn next_into(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        match &mut self.iterator {
            Some(iterator) => iterator.copy_next(out),
            None => Ok(false),
        }
    }

    fn pause(&mut self) -> Result<()> {
        fiber::sleep_zero();
        if fiber::is_cancelled() {
            return Err(Error::new(Code::Cancelled, "cancelled while it read a table"));
        }
        Ok(())
    }
}
