//! Scans that go by chunks see their moments, whatever is written, read and kept meanwhile.

use crate::memory::{BUCKETS, MemoryWalk, USERS, users};
use crate::moments::{Write, tuple};
use crud::Layout;
use crud::chunks::{Chunks, Content, Kept, Place};
use crud::moment::{Course, Moment, MomentScan};
use crud::row::bucket_of_stored;
use crud::scan::{Direction, Walk, contains};
use crud::slice::{SliceRange, SliceRequest};
use model::Result;
use proptest::prelude::*;
use sharding::BucketRange;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

const IDS: i64 = 40;

/// A table that changes: rows by id.
struct Table {
    layout: Arc<Layout>,
    rows: BTreeMap<i64, Vec<u8>>,
}

impl Table {
    /// Answers the tuple that was there, and the one that is.
    fn change(&mut self, write: &Write) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        match write {
            Write::Replace(id, age) => {
                let new = tuple(&self.layout, *id, *age);
                (self.rows.insert(*id, new.clone()), Some(new))
            }
            Write::Delete(id) => (self.rows.remove(id), None),
        }
    }

    fn rows_in(&self, buckets: &[BucketRange]) -> Vec<Vec<u8>> {
        self.rows.values().filter(|tuple| contains(buckets, bucket_of_stored(tuple).unwrap())).cloned().collect()
    }
}

/// Walks the table's primary index as it is at each step.
struct TableWalk {
    table: Rc<RefCell<Table>>,
    from: (Direction, usize, Vec<u8>),
}

impl Walk for TableWalk {
    fn seek(&mut self, direction: Direction, parts: usize, key: &[u8]) -> Result<()> {
        self.from = (direction, parts, key.to_vec());
        Ok(())
    }

    fn next_into(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        let table = self.table.borrow();
        let rows: Vec<Vec<u8>> = table.rows.values().cloned().collect();
        let mut walk = MemoryWalk::new(&table.layout, 0, &rows);
        walk.seek(self.from.0, self.from.1, &self.from.2)?;
        let start = out.len();
        let is_there = walk.next_into(out)?;
        if is_there {
            self.from = (Direction::Greater, 2, table.layout.primary_key_of(&out[start..])?);
        }
        Ok(is_there)
    }

    fn pause(&mut self) -> Result<()> {
        Ok(())
    }
}

fn any_write() -> impl Strategy<Value = Write> {
    prop_oneof![(0..IDS, 0i64..12).prop_map(|(id, age)| Write::Replace(id, age)), (0..IDS).prop_map(Write::Delete),]
}

/// Keeps the tuples themselves, as one column.
#[derive(Clone, Debug)]
struct Copied {
    rows: usize,
    tuples: Rc<RefCell<Option<Vec<Vec<u8>>>>>,
}

impl Content for Copied {
    fn of_rows(rows: usize) -> Self {
        Self { rows, tuples: Rc::default() }
    }

    fn has(&self, columns: &[usize]) -> bool {
        columns.is_empty() || self.tuples.borrow().is_some()
    }
}

/// A scan, what its moment was, and what it has given so far.
struct Running {
    scan: MomentScan,
    walk: TableWalk,
    place: Option<Place>,
    expected: Vec<Vec<u8>>,
    found: Vec<Vec<u8>>,
    /// Whether the slices that it reads are kept.
    fills: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Write(Write),
    Open {
        fills: bool,
    },
    /// The next slice of one of the scans that run.
    Read(prop::sample::Index, bool),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => any_write().prop_map(Step::Write),
        1 => any::<bool>().prop_map(|fills| Step::Open { fills }),
        6 => (any::<prop::sample::Index>(), prop::bool::weighted(0.8)).prop_map(|(at, keeps)| Step::Read(at, keeps)),
    ]
}

struct World {
    table: Rc<RefCell<Table>>,
    buckets: Vec<BucketRange>,
    chunks: Chunks<Copied>,
    running: Vec<Running>,
    moments: Vec<Rc<RefCell<Moment>>>,
    now: u64,
    /// Slices that were taken from what was kept.
    taken: usize,
}

impl World {
    fn write(&mut self, write: &Write) {
        let (old, new) = self.table.borrow_mut().change(write);
        self.now += 1;
        for tuple in [&old, &new].into_iter().flatten() {
            self.chunks.change(tuple, self.now);
        }
        self.moments.iter().for_each(|m| m.borrow_mut().change(USERS, old.as_deref(), new.as_deref()));
    }

    fn open(&mut self, fills: bool) {
        let layout = Arc::clone(&self.table.borrow().layout);
        let mut moment = Moment::at(self.now);
        moment.watch(layout);
        let moment = Rc::new(RefCell::new(moment));
        self.moments.push(Rc::clone(&moment));
        let request = SliceRequest {
            layout: Arc::clone(&self.table.borrow().layout),
            index: 0,
            descending: false,
            ranges: vec![SliceRange::default()],
            buckets: self.buckets.clone(),
            rows_max: None,
        };
        let scan = MomentScan::new(moment, request, false).unwrap().of_slices(3);
        assert!(scan.is_full());
        self.running.push(Running {
            scan,
            walk: TableWalk { table: Rc::clone(&self.table), from: (Direction::GreaterOrEqual, 0, Vec::new()) },
            place: Some(self.chunks.start()),
            expected: self.table.borrow().rows_in(&self.buckets),
            found: Vec::new(),
            fills,
        });
    }

    /// One slice; true when the scan is through.
    fn read(&mut self, at: usize, keeps: bool) -> bool {
        let running = &mut self.running[at];
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        let course =
            Course { chunks: &mut self.chunks, place: &mut running.place, columns: &[0], now: self.now, keeps };
        let (has_more, kept) = running.scan.next_by_chunks(&mut running.walk, course, &mut bytes, &mut ends).unwrap();
        let (mut tuples, mut start) = (Vec::new(), 0);
        for end in ends {
            tuples.push(bytes[start..end as usize].to_vec());
            start = end as usize;
        }
        if let Some(Kept { content, is_complete }) = kept {
            if is_complete {
                assert!(tuples.is_empty(), "rows beside what stands for them");
                tuples = content.tuples.borrow().clone().unwrap();
                self.taken += 1;
            } else if running.fills {
                content.tuples.borrow_mut().get_or_insert(tuples.clone());
            }
            assert_eq!(tuples.len(), content.rows);
        }
        running.found.extend(tuples);
        !has_more
    }

    fn finish(&mut self, at: usize) {
        let mut running = self.running.swap_remove(at);
        running.found.sort();
        running.expected.sort();
        assert_eq!(running.found, running.expected);
    }
}

#[test]
fn rows_that_come_to_an_emptied_chunk_are_in_it_for_the_next_scan() {
    let layout = Arc::new(users());
    let rows = (0..IDS).map(|id| (id, tuple(&layout, id, 1))).collect();
    let buckets = vec![BucketRange::new(1, BUCKETS)];
    let mut world = World {
        table: Rc::new(RefCell::new(Table { rows, layout: Arc::clone(&layout) })),
        chunks: Chunks::new(Arc::clone(&layout), buckets.clone()).unwrap(),
        buckets,
        running: Vec::new(),
        moments: Vec::new(),
        now: 7,
        taken: 0,
    };
    let in_order = {
        let mut ids: Vec<i64> = (0..IDS).collect();
        ids.sort_by_key(|id| bucket_of_stored(&world.table.borrow().rows[id]).unwrap());
        ids
    };
    world.open(true);
    while !world.read(0, true) {}
    world.finish(0);
    let count = world.chunks.count();
    // The first chunk holds the first rows; all of them go.
    in_order[..6].iter().for_each(|id| world.write(&Write::Delete(*id)));
    world.open(true);
    world.read(0, true);
    // The scan has passed the place by now.
    world.write(&Write::Replace(in_order[0], 2));
    while !world.read(0, true) {}
    world.finish(0);
    world.open(true);
    while !world.read(0, true) {}
    world.finish(0);
    // Gone again: the next scan finds that out, and the one after that has a chunk less.
    world.write(&Write::Delete(in_order[0]));
    for _ in 0..2 {
        world.open(true);
        while !world.read(0, true) {}
        world.finish(0);
    }
    assert!(world.chunks.count() < count, "emptied chunks stay");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn scans_by_chunks_see_their_moments(
        rows in proptest::collection::btree_map(0..IDS, 0i64..12, 0..IDS as usize),
        steps in proptest::collection::vec(any_step(), 0..80),
        gap in 0..=BUCKETS,
    ) {
        // With a bucket in the middle that is not read.
        let buckets: Vec<BucketRange> = match gap {
            0 => vec![BucketRange::new(1, BUCKETS)],
            gap => [(1, gap.saturating_sub(1)), (gap + 1, BUCKETS)].into_iter()
                .filter(|(first, last)| first <= last).map(|(first, last)| BucketRange::new(first, last)).collect(),
        };
        let layout = Arc::new(users());
        let mut world = World {
            table: Rc::new(RefCell::new(Table { rows: rows.iter().map(|(id, age)| (*id, tuple(&layout, *id, *age))).collect(), layout: Arc::clone(&layout) })),
            chunks: Chunks::new(Arc::clone(&layout), buckets.clone()).unwrap(),
            buckets, running: Vec::new(), moments: Vec::new(), now: 7, taken: 0,
        };
        for step in steps {
            match step {
                Step::Write(write) => world.write(&write),
                Step::Open { fills } => world.open(fills),
                Step::Read(index, keeps) if !world.running.is_empty() => {
                    let at = index.index(world.running.len());
                    if world.read(at, keeps) {
                        world.finish(at);
                    }
                }
                Step::Read(..) => {}
            }
        }
        while !world.running.is_empty() {
            while !world.read(0, true) {}
            world.finish(0);
        }
        // What is read twice without a write is there the second time.
        for _ in 0..2 {
            world.taken = 0;
            world.open(true);
            while !world.read(0, true) {}
            world.finish(0);
        }
        prop_assert_eq!(world.taken, world.chunks.count());
    }
}
