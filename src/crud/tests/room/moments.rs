//! A scan gives the rows of its moment, whatever is written while it runs.

use crate::memory::{BUCKETS, MemoryWalk, USERS, int, pack, show, text, users};
use crud::moment::{BYTES_MAX, Moment, MomentScan};
use crud::scan::{Direction, Walk};
use crud::selection::{Condition, Operator};
use crud::slice::{SLICE_ROWS_MAX, SliceRange, SliceRequest};
use crud::{Layout, RowWriter};
use model::{Code, Result, msgpack};
use proptest::prelude::*;
use sharding::BucketRange;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// A table that changes: rows by id, and the moment that is told.
struct Live {
    layout: Arc<Layout>,
    rows: BTreeMap<i64, Vec<u8>>,
    moment: Rc<RefCell<Moment>>,
}

#[derive(Clone, Debug)]
pub enum Write {
    Replace(i64, i64),
    Delete(i64),
}

pub fn tuple(layout: &Layout, id: i64, age: i64) -> Vec<u8> {
    let mut tuple = Vec::new();
    let row = pack(&[int(id), text("a"), int(age)]);
    RowWriter::new(layout, BUCKETS).row(&mut msgpack::Reader::new(&row), &mut tuple).unwrap();
    tuple
}

impl Live {
    fn new(rows: impl Iterator<Item = (i64, i64)>) -> Rc<RefCell<Self>> {
        let layout = Arc::new(users());
        let mut moment = Moment::default();
        moment.watch(Arc::clone(&layout));
        let rows = rows.map(|(id, age)| (id, tuple(&layout, id, age))).collect();
        Rc::new(RefCell::new(Self { layout, rows, moment: Rc::new(RefCell::new(moment)) }))
    }

    fn write(&mut self, write: &Write) {
        let (old, new) = match write {
            Write::Replace(id, age) => {
                let new = tuple(&self.layout, *id, *age);
                (self.rows.insert(*id, new.clone()), Some(new))
            }
            Write::Delete(id) => (self.rows.remove(id), None),
        };
        self.moment.borrow_mut().change(USERS, old.as_deref(), new.as_deref());
    }

    fn scan(&self, request: SliceRequest, yields: bool) -> MomentScan {
        MomentScan::new(Rc::clone(&self.moment), request, yields).unwrap()
    }

    fn request(&self, index: u32, descending: bool) -> SliceRequest {
        SliceRequest {
            layout: Arc::clone(&self.layout),
            index,
            descending,
            ranges: vec![SliceRange::default()],
            buckets: vec![BucketRange::new(1, BUCKETS)],
            rows_max: None,
        }
    }
}

/// Walks the table as it is at each step; before each, one write happens.
struct LiveWalk {
    live: Rc<RefCell<Live>>,
    index: u32,
    /// What the walk goes on behind, as a key.
    from: (Direction, usize, Vec<u8>),
    writes: std::vec::IntoIter<Write>,
}

impl LiveWalk {
    fn new(live: &Rc<RefCell<Live>>, index: u32, writes: Vec<Write>) -> Self {
        let from = (Direction::GreaterOrEqual, 0, Vec::new());
        Self { live: Rc::clone(live), index, from, writes: writes.into_iter() }
    }

    /// The whole key of a tuple in the order of the index.
    fn key(&self, tuple: &[u8]) -> (usize, Vec<u8>) {
        let field = |at| crud::compare::field_of(tuple, at).unwrap();
        let fields: &[usize] = if self.index == 0 { &[0, 1] } else { &[3, 0, 1] };
        (fields.len(), fields.iter().flat_map(|at| field(*at).to_vec()).collect())
    }
}

impl Walk for LiveWalk {
    fn seek(&mut self, direction: Direction, parts: usize, key: &[u8]) -> Result<()> {
        self.from = (direction, parts, key.to_vec());
        Ok(())
    }

    fn next_into(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        if let Some(write) = self.writes.next() {
            self.live.borrow_mut().write(&write);
        }
        let live = self.live.borrow();
        let rows: Vec<Vec<u8>> = live.rows.values().cloned().collect();
        let mut walk = MemoryWalk::new(&live.layout, self.index, &rows);
        walk.seek(self.from.0, self.from.1, &self.from.2)?;
        let start = out.len();
        let is_there = walk.next_into(out)?;
        if is_there {
            let descending = matches!(self.from.0, Direction::Less | Direction::LessOrEqual);
            let (parts, key) = self.key(&out[start..]);
            self.from = (Direction::towards(descending, true), parts, key);
        }
        Ok(is_there)
    }

    fn pause(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Reads a scan to its end, with writes between its slices.
fn read(scan: &mut MomentScan, walk: &mut impl Walk, mut between: impl FnMut()) -> Result<Vec<String>> {
    let mut found = Vec::new();
    loop {
        let (mut bytes, mut ends, mut start) = (Vec::new(), Vec::new(), 0);
        let has_more = scan.next(walk, &mut bytes, &mut ends)?;
        for end in ends {
            found.push(show(&bytes[start..end as usize]));
            start = end as usize;
        }
        if !has_more {
            found.sort();
            return Ok(found);
        }
        between();
    }
}

fn any_write() -> impl Strategy<Value = Write> {
    prop_oneof![(0i64..12, 0i64..12).prop_map(|(id, age)| Write::Replace(id, age)), (0i64..12).prop_map(Write::Delete),]
}

fn bound(operator: Operator, column: usize, value: i64) -> Condition {
    let mut bytes = Vec::new();
    msgpack::write_int(&mut bytes, value);
    Condition { operator, columns: vec![column], values: vec![bytes] }
}

proptest! {
    #[test]
    fn a_scan_that_yields_sees_its_moment(
        rows in proptest::collection::btree_map(0i64..12, 0i64..12, 0..12),
        before in proptest::collection::vec(any_write(), 0..6),
        during in proptest::collection::vec(any_write(), 0..40),
        index in 0u32..2,
        descending in any::<bool>(),
        lower in proptest::option::of(0i64..12),
        upper in proptest::option::of(0i64..12),
        first_bucket in 1..=BUCKETS,
    ) {
        let live = Live::new(rows.clone().into_iter());
        let column = if index == 0 { 0 } else { 2 };
        let lower = lower.map(|value| bound(Operator::Greater, column, value));
        let upper = upper.map(|value| bound(Operator::LessOrEqual, column, value));
        let buckets = vec![BucketRange::new(first_bucket, BUCKETS)];
        let request = SliceRequest {
            ranges: vec![SliceRange { lower: lower.clone(), upper: upper.clone(), bucket: None }],
            buckets: buckets.clone(),
            ..live.borrow().request(index, descending)
        };
        let mut expected: Vec<String> = live.borrow().rows.values()
            .filter(|tuple| crud::scan::contains(&buckets, crud::row::bucket_of_stored(tuple).unwrap()))
            .filter(|tuple| [&lower, &upper].into_iter().flatten().all(|b| b.accepts(&request.layout, tuple)))
            .map(|tuple| show(tuple))
            .collect();
        expected.sort();
        before.iter().for_each(|write| live.borrow_mut().write(write));
        let mut scan = live.borrow().scan(request, true);
        let mut walk = LiveWalk::new(&live, index, during);
        prop_assert_eq!(read(&mut scan, &mut walk, || ()).unwrap(), expected);
    }

    #[test]
    fn a_scan_of_several_keys_sees_its_moment(
        rows in proptest::collection::btree_map(0i64..12, 0i64..6, 0..12),
        before in proptest::collection::vec(any_write(), 0..6),
        during in proptest::collection::vec(any_write(), 0..40),
        index in 0u32..2,
        keys in proptest::collection::btree_set(0i64..12, 2..8),
    ) {
        let live = Live::new(rows.clone().into_iter());
        let wanted = |(id, age): (&i64, &i64)| keys.contains(if index == 0 { id } else { age });
        let mut expected: Vec<String> = rows.iter().filter(|row| wanted(*row))
            .map(|(id, age)| show(&tuple(&live.borrow().layout, *id, *age))).collect();
        expected.sort();
        let request = SliceRequest { ranges: crate::slices::keys_of(index, &keys), ..live.borrow().request(index, false) };
        before.iter().for_each(|write| live.borrow_mut().write(write));
        let mut scan = live.borrow().scan(request, true);
        let mut walk = LiveWalk::new(&live, index, during);
        prop_assert_eq!(read(&mut scan, &mut walk, || ()).unwrap(), expected);
    }
}

#[test]
fn writes_between_slices_are_not_seen_and_two_scans_agree() {
    const ROWS: i64 = 3 * SLICE_ROWS_MAX as i64;
    let live = Live::new((0..ROWS).map(|id| (id, id % 100)));
    let expected = |live: &Live| {
        let mut rows: Vec<String> = live.rows.values().map(|tuple| show(tuple)).collect();
        rows.sort();
        rows
    };
    let before = expected(&live.borrow());
    for (descending, step) in [(false, 0), (true, 1)] {
        // The host's walk goes on behind the last tuple; what was written behind it is not met, what lies ahead is.
        let rows: Vec<Vec<u8>> = live.borrow().rows.values().cloned().collect();
        let layout = Arc::clone(&live.borrow().layout);
        let mut walk = MemoryWalk::new(&layout, 0, &rows);
        let mut scan = live.borrow().scan(live.borrow().request(0, descending), false);
        let mut round = step;
        let found = read(&mut scan, &mut walk, || {
            round += 2;
            for id in (0..ROWS).step_by(7) {
                live.borrow_mut().write(&Write::Replace(id, round % 100));
                live.borrow_mut().write(&Write::Delete(id + 1));
                live.borrow_mut().write(&Write::Replace(ROWS + id + round, 5));
            }
        });
        assert!(found.unwrap() == before, "the scan differs from its moment");
    }
    assert!(expected(&live.borrow()) != before);
}

#[test]
fn a_moment_that_would_remember_too_much_is_lost() {
    let live = Live::new((0..10).map(|id| (id, id)));
    let mut scan = live.borrow().scan(live.borrow().request(0, false), false);
    let layout = users();
    // A row takes some hundred bytes to remember.
    for id in 0..BYTES_MAX as i64 / 80 {
        live.borrow_mut().write(&Write::Replace(id, 1));
    }
    let rows: Vec<Vec<u8>> = live.borrow().rows.values().cloned().collect();
    let mut walk = MemoryWalk::new(&layout, 0, &rows);
    assert_eq!(read(&mut scan, &mut walk, || ()).unwrap_err().code, Code::Conflict);
}
