//! A scan gives the tuples of its buckets and bounds, in the index's order, slice by slice.

use crate::memory::{BUCKETS, MemoryWalk, int, show, user, users};
use crud::Layout;
use crud::row::bucket_of_stored;
use crud::scan::contains;
use crud::selection::{Condition, Operator};
use crud::slice::{SLICE_ROWS_MAX, SliceRange, SliceRequest, Slicer};
use model::Value;
use model::msgpack;
use proptest::prelude::*;
use sharding::BucketRange;
use std::collections::BTreeSet;
use std::sync::Arc;

fn bound(operator: Operator, column: usize, value: i64) -> Condition {
    let mut bytes = Vec::new();
    msgpack::write_int(&mut bytes, value);
    Condition { operator, columns: vec![column], values: vec![bytes] }
}

fn scan(request: SliceRequest, tuples: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let layout: Arc<Layout> = Arc::clone(&request.layout);
    let mut walk = MemoryWalk::new(&layout, request.index, tuples);
    let mut slicer = Slicer::new(request);
    let mut found = Vec::new();
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    let mut has_more = true;
    while has_more {
        has_more = slicer.next(&mut walk, |_| Ok(true), &mut bytes, &mut ends).unwrap();
        assert!(ends.len() <= SLICE_ROWS_MAX);
        let mut start = 0;
        for end in ends.drain(..) {
            found.push(bytes[start..end as usize].to_vec());
            start = end as usize;
        }
        assert_eq!(start, bytes.len());
        bytes.clear();
    }
    found
}

fn any_bound(operators: [Operator; 2]) -> impl Strategy<Value = Option<(Operator, i64)>> {
    proptest::option::of((any::<bool>().prop_map(move |b| operators[usize::from(b)]), -1i64..12))
}

fn ranges() -> impl Strategy<Value = Vec<BucketRange>> {
    proptest::collection::vec(any::<bool>(), BUCKETS as usize).prop_map(|is_in| {
        let mut ranges: Vec<BucketRange> = Vec::new();
        for bucket in (1..=BUCKETS).filter(|bucket| is_in[*bucket as usize - 1]) {
            match ranges.last_mut() {
                Some(range) if range.last + 1 == bucket => range.last = bucket,
                _ => ranges.push(BucketRange::new(bucket, bucket)),
            }
        }
        ranges
    })
}

proptest! {
    #[test]
    fn a_scan_is_a_filter_in_the_order_of_the_index(
        ages in proptest::collection::btree_map(0i64..12, proptest::option::of(0i64..12), 0..12),
        lower in any_bound([Operator::Greater, Operator::GreaterOrEqual]),
        upper in any_bound([Operator::Less, Operator::LessOrEqual]),
        buckets in ranges(),
        index in 0u32..2,
        descending in any::<bool>(),
        rows_max in proptest::option::of(0usize..5),
    ) {
        let layout = Arc::new(users());
        let column = if index == 0 { 0 } else { 2 };
        let lower = lower.map(|(operator, value)| bound(operator, column, value));
        let upper = upper.map(|(operator, value)| bound(operator, column, value));
        let tuples: Vec<Vec<u8>> = ages.iter().map(|(id, age)| user(*id, "a", age.map_or(Value::Null, int))).collect();
        let is_in = |tuple: &Vec<u8>| {
            contains(&buckets, bucket_of_stored(tuple).unwrap())
                && [&lower, &upper].into_iter().flatten().all(|bound| bound.accepts(&layout, tuple))
        };
        // A scan of everything from the store itself gives the index's order.
        let whole = SliceRequest { layout: Arc::clone(&layout), index, descending, ranges: vec![SliceRange::default()], buckets: vec![BucketRange::new(1, BUCKETS)], rows_max: None };
        let all = scan(whole.clone(), &tuples);
        prop_assert_eq!(all.len(), tuples.len());
        let mut expected: Vec<String> = all.iter().filter(|tuple| is_in(tuple)).map(|tuple| show(tuple)).collect();
        expected.truncate(rows_max.unwrap_or(usize::MAX));
        let ranges = vec![SliceRange { lower: lower.clone(), upper: upper.clone(), bucket: None }];
        let request = SliceRequest { ranges, buckets: buckets.clone(), rows_max, ..whole };
        let found: Vec<String> = scan(request, &tuples).iter().map(|tuple| show(tuple)).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_scan_of_several_keys_gives_the_rows_of_each_in_the_order_of_the_index(
        ages in proptest::collection::btree_map(0i64..12, proptest::option::of(0i64..6), 0..12),
        keys in proptest::collection::btree_set(-1i64..13, 2..8),
        buckets in ranges(),
        index in 0u32..2,
        rows_max in proptest::option::of(0usize..5),
    ) {
        let layout = Arc::new(users());
        let tuples: Vec<Vec<u8>> = ages.iter().map(|(id, age)| user(*id, "a", age.map_or(Value::Null, int))).collect();
        let ranges = keys_of(index, &keys);
        let whole = SliceRequest { layout, index, descending: false, ranges: vec![SliceRange::default()], buckets: vec![BucketRange::new(1, BUCKETS)], rows_max: None };
        let layout = Arc::clone(&whole.layout);
        let is_in = |tuple: &Vec<u8>| {
            let accepts = |range: &SliceRange| [&range.lower, &range.upper].into_iter().flatten().all(|bound| bound.accepts(&layout, tuple));
            contains(&buckets, bucket_of_stored(tuple).unwrap()) && ranges.iter().any(accepts)
        };
        let mut expected: Vec<String> = scan(whole.clone(), &tuples).iter().filter(|tuple| is_in(tuple)).map(|tuple| show(tuple)).collect();
        expected.truncate(rows_max.unwrap_or(usize::MAX));
        let request = SliceRequest { ranges: ranges.clone(), buckets: buckets.clone(), rows_max, ..whole };
        let found: Vec<String> = scan(request, &tuples).iter().map(|tuple| show(tuple)).collect();
        prop_assert_eq!(found, expected);
    }
}

/// A range for each key, in the order of the index.
pub fn keys_of(index: u32, keys: &BTreeSet<i64>) -> Vec<SliceRange> {
    let range = |key: &i64| {
        let column = if index == 0 { 0 } else { 2 };
        let stored = user(*key, "a", Value::Null);
        let bucket = (index == 0).then(|| bucket_of_stored(&stored).unwrap());
        let [lower, upper] = [Operator::GreaterOrEqual, Operator::LessOrEqual].map(|op| Some(bound(op, column, *key)));
        SliceRange { lower, upper, bucket }
    };
    let mut ranges: Vec<SliceRange> = keys.iter().map(range).collect();
    ranges.sort_by_key(|range| range.bucket);
    ranges
}

#[test]
fn nothing_is_read_of_no_range() {
    let tuples = [user(1, "a", Value::Null)];
    let buckets = vec![BucketRange::new(1, BUCKETS)];
    let request = SliceRequest {
        layout: Arc::new(users()),
        index: 0,
        descending: false,
        ranges: vec![],
        buckets,
        rows_max: None,
    };
    assert!(scan(request, &tuples).is_empty());
}

#[test]
fn slices_are_bounded() {
    let layout = Arc::new(users());
    let tuples: Vec<Vec<u8>> = (0..5000).map(|id| user(id, "a", Value::Null)).collect();
    let buckets = vec![BucketRange::new(1, BUCKETS)];
    let request = SliceRequest {
        layout,
        index: 0,
        descending: false,
        ranges: vec![SliceRange::default()],
        buckets,
        rows_max: None,
    };
    assert_eq!(scan(request, &tuples).len(), 5000);
}
