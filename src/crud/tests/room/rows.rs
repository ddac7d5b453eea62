//! Rows, objects and keys become tuples that box takes, or a sentence that says why not.

use crate::memory::{BUCKETS, colors, int, pack, show, text, user, user_key, users};
use crud::row::bucket_of_stored;
use crud::{Layout, RowWriter};
use model::msgpack::{self, Reader};
use model::{BucketId, Code, Result, Value};
use proptest::prelude::*;

fn row(layout: &Layout, values: &[Value]) -> Result<(BucketId, Vec<u8>)> {
    let mut out = Vec::new();
    let bucket = RowWriter::new(layout, BUCKETS).row(&mut Reader::new(&pack(values)), &mut out)?;
    Ok((bucket, out))
}

fn object(layout: &Layout, entries: &[(&str, Value)]) -> Result<Vec<u8>> {
    let (mut sent, mut out) = (Vec::new(), Vec::new());
    msgpack::write_map_len(&mut sent, entries.len());
    for (name, value) in entries {
        msgpack::write_str(&mut sent, name);
        value.write_stored(&mut sent);
    }
    RowWriter::new(layout, BUCKETS).object(&mut Reader::new(&sent), &mut out)?;
    Ok(out)
}

proptest! {
    #[test]
    fn a_row_and_its_key_meet_in_one_bucket(id in any::<i64>(), bucket_count in prop_oneof![Just(1u32), Just(3000), Just(65_536), Just(1 << 24)]) {
        let layout = users();
        let writer = RowWriter::new(&layout, bucket_count);
        let (mut tuple, mut key) = (b"head".to_vec(), Vec::new());
        let bucket = writer.row(&mut Reader::new(&pack(&[int(id), text("a"), int(1)])), &mut tuple).unwrap();
        prop_assert_eq!(writer.key(&mut Reader::new(&pack(&[int(id)])), &mut key).unwrap(), bucket);
        prop_assert_eq!(bucket_of_stored(&tuple[4..]).unwrap(), bucket);
        prop_assert_eq!(bucket_of_stored(&key).unwrap(), bucket);
        prop_assert_eq!(bucket, sharding::bucket_of(sharding::hash_values([&int(id)]).unwrap(), bucket_count));
        let mut by_values = Vec::new();
        writer.row_of_values(&[int(id), text("a"), int(1)], &mut by_values).unwrap();
        prop_assert_eq!(&by_values, &tuple[4..]);
    }

    #[test]
    fn any_bytes_are_written_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let layout = users();
        let writer = RowWriter::new(&layout, BUCKETS);
        let _ = writer.row(&mut Reader::new(&bytes), &mut Vec::new());
        let _ = writer.object(&mut Reader::new(&bytes), &mut Vec::new());
        let _ = writer.key(&mut Reader::new(&bytes), &mut Vec::new());
    }
}

#[test]
fn a_number_is_one_key_however_written() {
    let layout = users();
    let decimal = Value::Decimal("7.00".parse().unwrap());
    let forms = [int(7), Value::Double(7.0), decimal];
    let buckets: Vec<_> = forms.map(|form| row(&layout, &[form, text("a")]).unwrap().0).to_vec();
    assert!(buckets.iter().all(|bucket| *bucket == buckets[0]));
}

#[test]
fn a_key_of_one_column_needs_no_array() {
    let layout = users();
    let mut key = Vec::new();
    RowWriter::new(&layout, BUCKETS).key(&mut Reader::new(&[7]), &mut key).unwrap();
    assert_eq!(key, user_key(7));
}

#[test]
fn columns_left_out_are_null() {
    let layout = users();
    assert_eq!(row(&layout, &[int(1)]).unwrap().1, user_null(1));
    assert_eq!(object(&layout, &[("id", int(1))]).unwrap(), user_null(1));
    assert_eq!(object(&layout, &[("age", int(5)), ("name", text("b")), ("id", int(1))]).unwrap(), user(1, "b", int(5)));
}

fn user_null(id: i64) -> Vec<u8> {
    let layout = users();
    row(&layout, &[int(id), Value::Null, Value::Null]).unwrap().1
}

#[test]
fn a_global_row_is_stored_as_it_is() {
    let layout = colors();
    let values = [text("r"), text("red")];
    assert_eq!(row(&layout, &values).unwrap(), (0, pack(&values)));
}

#[test]
fn bad_rows_say_what_is_wrong() {
    let layout = users();
    let refuse = |values: &[Value]| {
        let error = row(&layout, values).unwrap_err();
        (error.code, error.message)
    };
    let says = |code, message: &str| (code, message.to_owned());
    assert_eq!(refuse(&[]), says(Code::Argument, "table \"users\" has 3 columns, the row has 0 values"));
    assert_eq!(
        refuse(&[int(1), text("a"), int(1), int(1)]),
        says(Code::Argument, "table \"users\" has 3 columns, the row has 4 values")
    );
    assert_eq!(refuse(&[Value::Null]), says(Code::NullViolation, "column \"id\" of table \"users\" can not be null"));
    assert_eq!(
        refuse(&[int(1), text("much too long")]),
        says(Code::ValueOutOfRange, "column \"name\": a value of 13 characters is too long for varchar(8)")
    );
    assert_eq!(refuse(&[int(1), text("a"), int(40_000)]).0, Code::ValueOutOfRange);
    assert_eq!(refuse(&[text("x")]).0, Code::WrongType);
}

#[test]
fn bad_objects_and_keys_say_what_is_wrong() {
    let layout = users();
    let error = object(&layout, &[("id", int(1)), ("nam", text("a"))]).unwrap_err();
    assert_eq!((error.code, error.hint.as_deref()), (Code::NoSuchColumn, Some("did you mean \"name\"?")));
    assert_eq!(object(&layout, &[("id", int(1)), ("id", int(1))]).unwrap_err().code, Code::Argument);
    assert_eq!(object(&layout, &[("name", text("a"))]).unwrap_err().code, Code::NullViolation);
    let writer = RowWriter::new(&layout, BUCKETS);
    let key = |bytes: &[u8]| writer.key(&mut Reader::new(bytes), &mut Vec::new()).unwrap_err();
    let error = key(&[0x92, 1, 2]);
    assert_eq!(
        error.to_string(),
        "the primary key of table \"users\" has 1 columns, the key has 2 values (hint: a key is {id})"
    );
    assert_eq!(key(&[0xc0]).code, Code::NullViolation);
    assert_eq!(key(&[]).code, Code::Argument);
    assert_eq!(show(&user(1, "a", int(2))), "1 'a' 2");
}
