//! All rows of a table, one slice after the other: what a change of the schema asks of a master.
//!
//! Writes go on in between. They are held to the new definition already, so a row that was looked at stays well.

use crate::host::{IteratorKind, Space, Transaction, fiber};
use crud::{Layout, RowWriter};
use model::Result;

/// Rows in one slice, after which other fibers have their turn.
const SLICE_ROWS: usize = 1_000;

/// Checks all rows against the definition.
///
/// Errors: those of the first row that does not meet it.
pub fn check_all(layout: &Layout) -> Result<()> {
    each_slice(layout, |rows| rows.iter().try_for_each(|row| layout.verify(row)))
}

/// Gives all rows the columns that came later than they.
///
/// Errors: what the host says.
pub fn pad_all(layout: &Layout) -> Result<()> {
    let space = Space(layout.table.id);
    each_slice(layout, |rows| {
        let transaction = Transaction::begin()?;
        for row in rows {
            // A row may have changed since it was read.
            let mut key = Vec::new();
            RowWriter::new(layout, 0).key_of_stored(row, &mut key)?;
            if let Some(now) = space.get(0, &key)?
                && let Some(padded) = layout.padded(&now.to_vec())?
            {
                space.replace(&padded)?;
            }
        }
        transaction.commit()
    })
}

/// Calls `work` for slices of stored rows, in the order of their keys.
fn each_slice(layout: &Layout, mut work: impl FnMut(&[Vec<u8>]) -> Result<()>) -> Result<()> {
    let mut iterator = Space(layout.table.id).iterate(0, IteratorKind::All, &[0x90])?;
    let mut slice = Vec::with_capacity(SLICE_ROWS);
    loop {
        let mut row = Vec::new();
        let is_row = iterator.copy_next(&mut row)?;
        if is_row {
            slice.push(row);
        }
        if slice.len() == SLICE_ROWS || !is_row {
            work(&slice)?;
            slice.clear();
            fiber::sleep_zero();
        }
        if !is_row {
            return Ok(());
        }
    }
}
