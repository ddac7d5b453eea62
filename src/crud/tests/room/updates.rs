//! Update operations on columns become the host's on fields.

use crate::memory::{colors, int, text, user, users};
use crud::Layout;
use crud::update::{check_tuple, translate};
use model::msgpack::{self, Reader};
use model::{Code, Result, Value};
use proptest::prelude::*;

fn operations(list: &[&[Value]]) -> Vec<u8> {
    let mut out = Vec::new();
    msgpack::write_array_len(&mut out, list.len());
    for operation in list {
        msgpack::write_array_len(&mut out, operation.len());
        operation.iter().for_each(|value| value.write_stored(&mut out));
    }
    out
}

fn translated(layout: &Layout, list: &[&[Value]]) -> Result<(String, bool)> {
    let mut out = Vec::new();
    let check = translate(layout, &mut Reader::new(&operations(list)), &mut out)?;
    Ok((Reader::new(&out).value()?.to_string(), check))
}

#[test]
fn fields_count_from_one_behind_the_bucket() {
    let layout = users();
    let done = translated(&layout, &[&[text("="), text("name"), text("b")], &[text("+"), int(3), int(1)]]).unwrap();
    assert_eq!(done, ("[['=', 3, 'b'], ['+', 4, 1]]".into(), true));
    let done = translated(&layout, &[&[text("="), int(-1), Value::Null]]).unwrap();
    assert_eq!(done, ("[['=', 4, NULL]]".into(), false));
    let done = translated(&colors(), &[&[text("="), text("name"), text("b")]]).unwrap();
    assert_eq!(done, ("[['=', 2, 'b']]".into(), false));
}

#[test]
fn what_does_not_apply_is_refused() {
    let layout = users();
    let code = |operation: &[Value]| translated(&layout, &[operation]).unwrap_err().code;
    assert_eq!(code(&[text("="), text("id"), int(1)]), Code::Argument);
    assert_eq!(code(&[text("="), text("nam"), int(1)]), Code::NoSuchColumn);
    assert_eq!(code(&[text("="), int(4), int(1)]), Code::NoSuchColumn);
    assert_eq!(code(&[text("="), int(0), int(1)]), Code::NoSuchColumn);
    assert_eq!(code(&[text("="), text("age"), int(40_000)]), Code::ValueOutOfRange);
    assert_eq!(code(&[text("+"), text("name"), int(1)]), Code::WrongType);
    assert_eq!(code(&[text("+"), text("age"), Value::Null]), Code::WrongType);
    assert_eq!(code(&[text("|"), text("age"), int(-1)]), Code::WrongType);
    assert_eq!(code(&[text("#"), text("age"), int(1)]), Code::Unsupported);
    assert_eq!(code(&[text("?"), text("age"), int(1)]), Code::Argument);
    assert_eq!(code(&[text("="), text("age")]), Code::Argument);
    assert_eq!(code(&[]), Code::Argument);
    assert_eq!(translate(&layout, &mut Reader::new(&[1]), &mut Vec::new()).unwrap_err().code, Code::Argument);
}

#[test]
fn a_row_that_the_host_computed_is_held_to_its_columns() {
    let layout = users();
    assert_eq!(check_tuple(&layout, &user(1, "a", int(5))), Ok(()));
    let mut grown = user(1, "a", Value::Null);
    assert_eq!(grown.pop(), Some(0xc0));
    msgpack::write_int(&mut grown, 32_768);
    let error = check_tuple(&layout, &grown).unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (Code::ValueOutOfRange, "column \"age\": 32768 does not fit smallint")
    );
}

proptest! {
    #[test]
    fn any_bytes_are_translated_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let _ = translate(&users(), &mut Reader::new(&bytes), &mut Vec::new());
        let _ = check_tuple(&users(), &bytes);
    }
}
