//! Conditions find the rows that a plain filter and sort would find, page by page.

use crate::memory::{BUCKETS, MemoryWalk, int, pack, show, text, user, users};
use crud::scan::{find, merge};
use crud::{Layout, RowWriter, Selection};
use model::msgpack::{self, Reader};
use model::{Code, Result, Value};
use proptest::prelude::*;
use sharding::BucketRange;

type Sent = (&'static str, &'static str, Value);

fn selection(layout: &Layout, conditions: &[Sent]) -> Result<Selection> {
    let mut sent = Vec::new();
    msgpack::write_array_len(&mut sent, conditions.len());
    for (operator, name, value) in conditions {
        sent.extend(pack(&[text(operator), text(name), value.clone()]));
    }
    Selection::read(layout, &mut Reader::new(&sent))
}

/// Finds rows on two instances that share the buckets, as a router does, through the wire form.
fn select(layout: &Layout, selection: &Selection, tuples: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    selection.write(&mut bytes);
    let selection = &Selection::read_wire(layout, &mut Reader::new(&bytes)).unwrap();
    let halves = [vec![BucketRange::new(1, 7), BucketRange::new(20, BUCKETS)], vec![BucketRange::new(8, 19)]];
    let mut walk = MemoryWalk::new(layout, selection.index, tuples);
    let answers = halves.map(|buckets| find(&mut walk, layout, selection, &buckets, false).unwrap().tuples);
    let counts = halves_count(layout, selection, tuples);
    if selection.rows_max.is_none() {
        assert_eq!(counts, answers.iter().map(Vec::len).sum::<usize>() as u64);
    }
    merge(&selection.order(layout).unwrap(), answers.to_vec(), selection.rows_max)
}

fn halves_count(layout: &Layout, selection: &Selection, tuples: &[Vec<u8>]) -> u64 {
    let all = [BucketRange::new(1, BUCKETS)];
    find(&mut MemoryWalk::new(layout, selection.index, tuples), layout, selection, &all, true).unwrap().count
}

fn any_condition() -> impl Strategy<Value = Sent> {
    let operator = prop_oneof![Just("="), Just("=="), Just("<"), Just("<="), Just(">="), Just(">")];
    let column = prop_oneof![
        (Just("id"), (-2i64..22).prop_map(int)),
        (Just("primary"), (-2i64..22).prop_map(int)),
        (Just("age"), prop_oneof![(0i64..6).prop_map(int), Just(Value::Null)]),
        (Just("by_age"), (0i64..6).prop_map(int)),
        (Just("name"), "[ab]{0,2}".prop_map(Value::Text)),
    ];
    (operator, column).prop_map(|(operator, (name, value))| (operator, name, value))
}

fn value_of(tuple: &[u8], name: &str) -> Value {
    let column = match name {
        "id" | "primary" => 0,
        "name" => 1,
        _ => 2,
    };
    let Value::Array(values) = Reader::new(tuple).value().unwrap() else { panic!("not a tuple") };
    values[column + 1].clone()
}

fn fulfils(tuple: &[u8], (operator, name, wanted): &Sent) -> bool {
    use std::cmp::Ordering;
    let ordering = match (&value_of(tuple, name), wanted) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        (Value::Integer(a), Value::Integer(b)) => a.cmp(b),
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        pair => panic!("{pair:?}"),
    };
    match *operator {
        "<" => ordering.is_lt(),
        "<=" => ordering.is_le(),
        ">=" => ordering.is_ge(),
        ">" => ordering.is_gt(),
        _ => ordering.is_eq(),
    }
}

fn shown(tuples: &[Vec<u8>]) -> Vec<String> {
    tuples.iter().map(|tuple| show(tuple)).collect()
}

proptest! {
    #[test]
    fn a_selection_is_a_filter_and_a_sort(
        ages in proptest::collection::btree_map(0i64..20, proptest::option::of(0i64..6), 0..20),
        conditions in proptest::collection::vec(any_condition(), 0..4),
        page_rows in 1usize..6,
    ) {
        let layout = users();
        let name = |id: i64| ["", "a", "ab", "b"][id as usize % 4];
        let tuples: Vec<Vec<u8>> =
            ages.iter().map(|(id, age)| user(*id, name(*id), age.map_or(Value::Null, int))).collect();
        let mut selection = selection(&layout, &conditions).unwrap();
        let order = selection.order(&layout).unwrap();
        let mut expected: Vec<Vec<u8>> =
            tuples.iter().filter(|tuple| conditions.iter().all(|c| fulfils(tuple, c))).cloned().collect();
        expected.sort_by(|a, b| order.compare(a, b));
        prop_assert_eq!(shown(&select(&layout, &selection, &tuples)), shown(&expected));

        // The same rows come page by page, each begun behind the last row of the one before.
        selection.rows_max = Some(page_rows);
        let mut pages: Vec<Vec<u8>> = Vec::new();
        loop {
            let page = select(&layout, &selection, &tuples);
            prop_assert!(page.len() <= page_rows);
            pages.extend(page.iter().cloned());
            let Some(last) = page.last() else { break };
            let row = pack(&["id", "name", "age"].map(|name| value_of(last, name)));
            selection.set_after(&RowWriter::new(&layout, BUCKETS), &mut Reader::new(&row)).unwrap();
        }
        prop_assert_eq!(shown(&pages), shown(&expected));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let layout = users();
        let _ = Selection::read(&layout, &mut Reader::new(&bytes));
        let _ = Selection::read_wire(&layout, &mut Reader::new(&bytes));
        let _ = Selection::default().set_after(&RowWriter::new(&layout, BUCKETS), &mut Reader::new(&bytes));
    }
}

#[test]
fn the_first_indexed_condition_picks_the_index_and_the_order() {
    let layout = users();
    let picks = |conditions: &[Sent]| {
        let selection = selection(&layout, conditions).unwrap();
        (selection.index, selection.descending, selection.filters.len())
    };
    assert_eq!(picks(&[]), (0, false, 0));
    assert_eq!(picks(&[("<=", "age", int(35))]), (1, true, 0));
    assert_eq!(picks(&[("=", "name", text("a")), (">", "age", int(1)), ("<", "id", int(9))]), (1, false, 2));
    assert_eq!(picks(&[(">", "age", int(1)), ("<=", "age", int(9))]), (1, false, 0));
    assert_eq!(picks(&[("=", "name", text("a"))]), (0, false, 1));
}

#[test]
fn a_page_does_not_read_the_table() {
    let layout = users();
    let tuples: Vec<Vec<u8>> = (0..3000).map(|id| user(id, "a", int(1))).collect();
    let mut selection = selection(&layout, &[(">=", "id", int(1000))]).unwrap();
    selection.rows_max = Some(10);
    let mut walk = MemoryWalk::new(&layout, 0, &tuples);
    let found = find(&mut walk, &layout, &selection, &[BucketRange::new(1, BUCKETS)], false).unwrap();
    assert_eq!(shown(&found.tuples), (1000..1010).map(|id| format!("{id} 'a' 1")).collect::<Vec<_>>());
    assert!(walk.steps < 30 * 12, "{} steps", walk.steps);
}

#[test]
fn a_whole_sharding_key_names_one_bucket() {
    let layout = users();
    let writer = RowWriter::new(&layout, BUCKETS);
    let bucket = |conditions: &[Sent]| selection(&layout, conditions).unwrap().single_bucket(&writer).unwrap();
    let expected = sharding::bucket_of(sharding::hash_values([&int(7)]).unwrap(), BUCKETS);
    assert_eq!(bucket(&[("=", "id", int(7))]), Some(expected));
    assert_eq!(bucket(&[("=", "age", int(1)), ("==", "id", int(7))]), Some(expected));
    assert_eq!(bucket(&[(">=", "id", int(7))]), None);
    assert_eq!(bucket(&[(">=", "id", int(7)), ("<", "id", int(7))]), None);
}

#[test]
fn rows_can_be_continued_behind_an_object() {
    let layout = users();
    let writer = RowWriter::new(&layout, BUCKETS);
    let mut by_row = selection(&layout, &[(">", "age", int(0))]).unwrap();
    let mut by_object = by_row.clone();
    by_row.set_after(&writer, &mut Reader::new(&pack(&[int(5), text("a"), int(3)]))).unwrap();
    let mut object = vec![0x82];
    for (name, value) in [("age", int(3)), ("id", int(5))] {
        msgpack::write_str(&mut object, name);
        value.write_stored(&mut object);
    }
    by_object.set_after(&writer, &mut Reader::new(&object)).unwrap();
    let values = |selection: &Selection| -> Vec<Value> {
        selection.after.iter().flatten().map(|value| Reader::new(value).value().unwrap()).collect()
    };
    assert_eq!(values(&by_object), values(&by_row));
    let mut partial = vec![0x81];
    msgpack::write_str(&mut partial, "id");
    partial.push(5);
    let error = by_object.set_after(&writer, &mut Reader::new(&partial)).unwrap_err();
    assert_eq!(error.message, "`after` lacks column \"age\", by which the rows are ordered");
}

#[test]
fn bad_conditions_say_what_is_wrong() {
    let layout = users();
    let refuse = |condition: Sent| selection(&layout, &[condition]).unwrap_err();
    assert_eq!(refuse(("~", "id", int(1))).code, Code::Argument);
    assert_eq!(refuse(("=", "id", text("x"))).code, Code::WrongType);
    assert_eq!(refuse(("=", "id", Value::Array(vec![int(1), int(2)]))).code, Code::Argument);
    let error = refuse(("=", "nam", int(1)));
    assert_eq!((error.code, error.hint.as_deref()), (Code::NoSuchColumn, Some("did you mean \"name\"?")));
    assert_eq!(refuse(("=", "by_agee", int(1))).hint.as_deref(), Some("did you mean \"by_age\"?"));
    let mut many = Vec::new();
    msgpack::write_array_len(&mut many, 257);
    many.extend([0x93; 257]);
    assert_eq!(Selection::read(&layout, &mut Reader::new(&many)).unwrap_err().code, Code::LimitExceeded);
}
