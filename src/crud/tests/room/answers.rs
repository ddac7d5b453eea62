//! Stored tuples become what users read.

use crate::memory::{BUCKETS, column, int, pack, show, table, text, user, users};
use crud::answer::write_result;
use crud::request::Args;
use crud::{Layout, RowWriter};
use model::msgpack::{self, Reader};
use model::{Code, ColumnType, Value};
use std::sync::Arc;

/// A result as text: metadata and rows, each without the array's brackets.
fn shown(layout: &Layout, fields: Option<&[&str]>, tuples: &[Vec<u8>]) -> model::Result<String> {
    let mut sent = vec![0x91, 0x81];
    msgpack::write_str(&mut sent, "fields");
    match fields {
        Some(fields) => sent.extend(pack(&fields.iter().map(|name| text(name)).collect::<Vec<_>>())),
        None => msgpack::write_nil(&mut sent),
    }
    let projection = Args::new("f", &sent)?.options()?.projection(layout)?;
    let mut out = Vec::new();
    write_result(layout, projection.as_ref(), tuples.iter().map(Vec::as_slice), &mut out)?;
    let mut reader = Reader::new(&out);
    assert_eq!((reader.map_len(), reader.str()), (Ok(2), Ok("metadata")));
    let mut metadata = Vec::new();
    for _ in 0..reader.array_len()? {
        assert_eq!(reader.map_len(), Ok(2));
        assert_eq!(reader.str(), Ok("name"));
        let name = reader.str()?.to_owned();
        assert_eq!(reader.str(), Ok("type"));
        metadata.push(format!("{name} {}", reader.str()?));
    }
    assert_eq!(reader.str(), Ok("rows"));
    let rows = reader.value()?;
    assert!(reader.is_empty());
    Ok(format!("{} {rows}", metadata.join(", ")))
}

#[test]
fn rows_come_without_the_bucket() {
    let tuples = [user(1, "ann", int(30)), user(2, "bob", Value::Null)];
    assert_eq!(
        shown(&users(), None, &tuples).unwrap(),
        "id bigint, name varchar(8), age smallint [[1, 'ann', 30], [2, 'bob', NULL]]"
    );
    assert_eq!(shown(&users(), Some(&["age", "id"]), &tuples).unwrap(), "age smallint, id bigint [[30, 1], [NULL, 2]]");
    assert_eq!(shown(&users(), Some(&["aeg"]), &tuples).unwrap_err().code, Code::NoSuchColumn);
    assert_eq!(shown(&users(), Some(&[]), &[]).unwrap(), " []");
}

#[test]
fn dates_and_times_are_kept_as_numbers_and_read_as_text() {
    let columns = vec![column("day", ColumnType::Date, false), column("at", ColumnType::TimestampTz, true)];
    let layout = Layout::new(Arc::new(table(columns)));
    let mut tuple = Vec::new();
    let row = pack(&[text("2013-01-31"), text("2013-01-31 05:00:00+02")]);
    RowWriter::new(&layout, BUCKETS).row(&mut Reader::new(&row), &mut tuple).unwrap();
    assert_eq!(show(&tuple), "15736 1359601200000000");
    let expected = "day date, at timestamptz [['2013-01-31', '2013-01-31 03:00:00+00']]";
    assert_eq!(shown(&layout, None, std::slice::from_ref(&tuple)).unwrap(), expected);
    assert_eq!(shown(&layout, Some(&["day"]), &[tuple]).unwrap(), "day date [['2013-01-31']]");
}
