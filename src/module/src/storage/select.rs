//! `picodata.peer.select`: the rows of a selection, or their number, in some buckets of this instance.

use super::{BoxWalk, Storage};
use crate::host::{Call, Space};
use crud::scan::{Found, find};
use crud::{Layout, Selection};
use model::msgpack::{self, Reader};
use model::{Code, Engine, Error, Result, TableId};
use sharding::BucketRange;

pub const DOOR: &str = "picodata.peer.select";

/// Arguments: table id, selection, bucket ranges as `[first, last, first, last, ...]`, whether only the number is
/// wanted. Answers an array of stored tuples in the selection's order, or the number.
pub fn serve(call: &mut Call<'_>) -> Result<()> {
    let args = call.copy();
    let mut reader = Reader::new(&args);
    if reader.array_len()? != 4 {
        return Err(Error::new(Code::Argument, "picodata.peer.select takes four arguments"));
    }
    let storage = super::get()?;
    let tables = storage.tables();
    let layout = TableId::try_from(reader.uint()?).ok().and_then(|id| tables.get(id)).ok_or_else(no_such_table)?;
    let selection = Selection::read_wire(layout, &mut reader)?;
    let buckets = read_ranges(&mut reader)?;
    let count_only = reader.bool()?;
    let found = storage.select(layout, &selection, &buckets, count_only)?;
    let mut reply = Vec::new();
    if count_only {
        msgpack::write_uint(&mut reply, found.count);
    } else {
        msgpack::write_array_len(&mut reply, found.tuples.len());
        found.tuples.iter().for_each(|tuple| reply.extend_from_slice(tuple));
    }
    call.reply(&reply)
}

fn no_such_table() -> Error {
    let message = "the table is not on this instance: it was dropped, is not here yet, or is being emptied";
    Error::new(Code::SchemaChanged, message)
}

impl Storage {
    /// Finds rows in these buckets (sorted; of no meaning for a global table). May yield.
    ///
    /// Errors: `NoMaster`, `WrongBucket`, `SchemaChanged`, `LimitExceeded`, `Cancelled`, and what the host says.
    pub fn select(
        &'static self,
        layout: &Layout,
        selection: &Selection,
        buckets: &[BucketRange],
        count_only: bool,
    ) -> Result<Found> {
        self.served().get(layout.table.id).ok_or_else(no_such_table)?;
        let _reading = if layout.is_sharded() { Some(self.begin_scan(buckets)?) } else { None };
        let found = if count_only && self.is_whole(layout, selection, buckets) {
            Found { count: Space(layout.table.id).len(0)? as u64, ..Found::default() }
        } else {
            let walk = &mut BoxWalk::new(layout.table.id, selection.index);
            find(walk, layout, selection, buckets, count_only)?
        };
        if layout.is_replicated() {
            self.settle(buckets)?;
        }
        Ok(found)
    }

    /// Whether the rows wanted are all rows that the space holds, so that the host knows their number.
    fn is_whole(&self, layout: &Layout, selection: &Selection, buckets: &[BucketRange]) -> bool {
        let all = Selection::default();
        let is_open = *selection == all || *selection == Selection { descending: true, ..all };
        is_open && self.holds_only(layout, buckets)
    }

    /// Whether the space holds the rows of these buckets and no others, and knows how many they are.
    pub(super) fn holds_only(&self, layout: &Layout, buckets: &[BucketRange]) -> bool {
        let is_exact = layout.table.engine == Engine::Memtx;
        is_exact && (!layout.is_sharded() || (!self.has_strays() && self.guard.borrow().are_all_readable(buckets)))
    }

    /// Lists a scan of these buckets until the answer is dropped.
    pub(super) fn begin_scan(&'static self, buckets: &[BucketRange]) -> Result<Reading> {
        self.look_at_lease();
        let id = self.guard.borrow_mut().begin_scan(buckets, false)?;
        Ok(Reading { storage: self, id })
    }
}

/// A scan in the guard's list.
pub(super) struct Reading {
    storage: &'static Storage,
    id: crud::guard::ScanId,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.storage.guard.borrow_mut().end_scan(self.id);
        self.storage.quiet.notify_all();
    }
}

/// Writes ranges as they travel.
pub fn write_ranges(ranges: &[BucketRange], out: &mut Vec<u8>) {
    msgpack::write_array_len(out, ranges.len() * 2);
    for range in ranges {
        msgpack::write_uint(out, range.first.into());
        msgpack::write_uint(out, range.last.into());
    }
}

/// Reads them.
///
/// Errors: `Argument` when they are none.
fn read_ranges(reader: &mut Reader<'_>) -> Result<Vec<BucketRange>> {
    let wrong = |_| Error::new(Code::Argument, "a bucket is a number");
    let len = reader.array_len()? / 2;
    let mut ranges = Vec::with_capacity(len);
    for _ in 0..len {
        let first = u32::try_from(reader.uint()?).map_err(wrong)?;
        let last = u32::try_from(reader.uint()?).map_err(wrong)?;
        ranges.push(BucketRange::new(first, last));
    }
    Ok(ranges)
}
