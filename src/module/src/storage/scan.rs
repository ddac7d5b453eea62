//! Scans of this instance's rows for the SQL room: slices of raw tuples, copied on the tx thread.

use super::select::Reading;
use super::{BoxWalk, Storage, columns};
use crate::host::Space;
use crate::lease;
use crud::Layout;
use crud::chunks::Place;
use crud::moment::{Moment, MomentScan};
use crud::selection::{Condition, Operator, index_columns};
use crud::slice::{SLICE_ROWS_MAX, SliceRange, SliceRequest};
use model::{Code, Engine, Error, Result, Table};
use sharding::BucketRange;
use sql::cluster::{Bound, KeyRange, ScanRequest, TupleBatch};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// A running scan. It belongs to the tx thread; dropping it closes it, and lets the rows of buckets that left go.
pub struct ScanCursor {
    storage: &'static Storage,
    /// The definition that the rows are read by.
    table: Arc<Table>,
    scan: MomentScan,
    walk: BoxWalk,
    /// Where it is in the table's columnar copy, as long as it goes by that.
    place: Option<Place>,
    /// Positions of the columns that it is for.
    columns: Vec<usize>,
    reading: Option<Reading>,
    /// The number of its rows, when that is all that is wanted and the host knows it.
    counted: Option<usize>,
    bytes_last: usize,
}

impl ScanCursor {
    /// The next slice of some thousand tuples, perhaps of none, and whether there may be more. Does not yield for memtx.
    ///
    /// Errors: `NoMaster` when another master may have taken over meanwhile; `Conflict` when the moment can not be seen any
    /// more; `SchemaChanged` when that is so because the table is gone, or when it is another by now, whose rows this scan
    /// would misread; what the host says.
    pub fn next_slice(&mut self) -> Result<(TupleBatch, bool)> {
        if self.reading.is_some() && !lease::holds() {
            return Err(Error::new(Code::NoMaster, "this master does not hear from the Raft leader any more"));
        }
        self.storage.check_definition(&self.table)?;
        if let Some(counted) = self.counted.take() {
            return Ok((TupleBatch { counted, ..TupleBatch::default() }, false));
        }
        let mut batch = TupleBatch {
            bytes: Vec::with_capacity(self.bytes_last),
            ends: Vec::with_capacity(if self.bytes_last == 0 { 0 } else { SLICE_ROWS_MAX }),
            ..TupleBatch::default()
        };
        let Self { table, scan, walk, place, columns, .. } = self;
        let has_more = match place {
            Some(_) => columns::next_slice(table.id, place, columns, scan, walk, &mut batch)?,
            None => scan.next(walk, &mut batch.bytes, &mut batch.ends)?,
        };
        self.bytes_last = batch.bytes.len();
        Ok((batch, has_more))
    }
}

impl Storage {
    /// Opens a scan that sees a moment. The rows of its buckets stay until it is dropped, wherever the buckets go meanwhile.
    ///
    /// Errors: `WrongBucket`, `NoMaster`, `NoSuchIndex`, `SchemaChanged` when the table is not here.
    pub fn open_scan(&'static self, request: &ScanRequest, moment: Rc<RefCell<Moment>>) -> Result<ScanCursor> {
        let id = request.table.id;
        let layout = self.check_definition(&request.table)?;
        let mut buckets: Vec<BucketRange> =
            request.buckets.iter().map(|range| BucketRange::new(range.first, range.last)).collect();
        buckets.sort_unstable();
        let reading = if layout.is_sharded() { Some(self.begin_scan(&buckets)?) } else { None };
        let counted = self.count_at_once(request, &layout, &buckets, &moment.borrow())?;
        let yields = request.table.engine == Engine::Vinyl;
        let slices = SliceRequest {
            index: request.index,
            descending: request.descending,
            ranges: request.ranges.iter().map(|part| range(&layout, request.index, part)).collect::<Result<_>>()?,
            buckets: buckets.clone(),
            rows_max: request.rows_max,
            layout: Arc::clone(&layout),
        };
        let scan = MomentScan::new(moment, slices, yields)?;
        let goes_by_copy = scan.is_full() && counted.is_none();
        let place = if goes_by_copy { columns::begin(&layout, &buckets)? } else { None };
        Ok(ScanCursor {
            storage: self,
            table: Arc::clone(&request.table),
            scan,
            walk: BoxWalk::new(id, request.index),
            place,
            columns: request.columns.clone(),
            reading,
            counted,
            bytes_last: 0,
        })
    }

    /// The number of rows of a scan that wants no more, if it is that of all rows which the space holds.
    fn count_at_once(
        &self,
        request: &ScanRequest,
        layout: &Layout,
        buckets: &[BucketRange],
        moment: &Moment,
    ) -> Result<Option<usize>> {
        let is_open = request.index == 0 && matches!(&request.ranges[..], [range] if *range == KeyRange::default());
        let id = layout.table.id;
        if !request.count_only || !is_open || !self.holds_only(layout, buckets) || moment.has_changes(id) {
            return Ok(None);
        }
        Space(id).len(0).map(Some)
    }

    /// The table as this instance has it, if it is the definition that a statement was planned on.
    fn check_definition(&self, table: &Table) -> Result<Arc<Layout>> {
        match self.served().get(table.id) {
            Some(layout) if layout.table.version == table.version => Ok(Arc::clone(layout)),
            Some(_) => {
                let message = format!("table \"{}\" was changed while the statement ran", table.name);
                Err(Error::new(Code::SchemaChanged, message))
            }
            None => Err(Error::new(Code::SchemaChanged, format!("table \"{}\" is not on this instance", table.name))),
        }
    }

    /// About how many rows of a table this instance holds.
    ///
    /// Errors: what the host says, when the space is not here.
    pub fn row_count(&self, table: model::TableId) -> Result<u64> {
        Space(table).len(0).map(|len| len as u64)
    }
}

fn range(layout: &Layout, index: u32, range: &KeyRange) -> Result<SliceRange> {
    let lower = condition(layout, index, &range.lower, [Operator::GreaterOrEqual, Operator::Greater])?;
    let upper = condition(layout, index, &range.upper, [Operator::LessOrEqual, Operator::Less])?;
    Ok(SliceRange { lower, upper, bucket: range.bucket })
}

/// A bound on a prefix of the index's columns; `operators` are those for an inclusive and an exclusive one.
fn condition(
    layout: &Layout,
    index: u32,
    bound: &Option<Bound>,
    operators: [Operator; 2],
) -> Result<Option<Condition>> {
    let Some(bound) = bound else { return Ok(None) };
    let columns = index_columns(layout, index)?;
    if bound.values.is_empty() || bound.values.len() > columns.len() {
        return Err(Error::internal("a bound of a scan has more values than the index has columns"));
    }
    let values = bound.values.iter().map(|value| {
        let mut bytes = Vec::new();
        value.write_stored(&mut bytes);
        bytes
    });
    let operator = operators[usize::from(!bound.inclusive)];
    Ok(Some(Condition { operator, columns: columns[..bound.values.len()].to_vec(), values: values.collect() }))
}
