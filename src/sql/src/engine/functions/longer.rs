//! Functions on texts whose results may be far longer than what they are made of.

use super::{Function, each_row, is_text, text, wrong_types};
use datafusion::arrow::array::{ArrayRef, AsArray, StringViewArray};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{ScalarFunctionArgs, ScalarUDF};
use std::sync::Arc;

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Function::new("repeat", |types| coerce(types, "repeat", &[Kind::Text, Kind::Number], 2), text, repeat).udf(),
        Function::new("replace", |types| coerce(types, "replace", &[Kind::Text; 3], 3), text, replace).udf(),
        Function::new("lpad", |types| coerce(types, "lpad", &PAD, 2), text, |args, _| pad(args, Side::Left)).udf(),
        Function::new("rpad", |types| coerce(types, "rpad", &PAD, 2), text, |args, _| pad(args, Side::Right)).udf(),
    ]
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
}

#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
}

const PAD: [Kind; 3] = [Kind::Text, Kind::Number, Kind::Text];

/// At least `required` of the arguments.
fn coerce(types: &[DataType], name: &str, kinds: &[Kind], required: usize) -> DfResult<Vec<DataType>> {
    let is_taken = |(ty, kind): (&DataType, &Kind)| match kind {
        Kind::Text => is_text(ty),
        Kind::Number => ty.is_integer() || *ty == DataType::Null,
    };
    if types.len() < required || types.len() > kinds.len() || !types.iter().zip(kinds).all(is_taken) {
        return wrong_types(name);
    }
    let wanted = |kind: &Kind| match kind {
        Kind::Text => DataType::Utf8View,
        Kind::Number => DataType::Int64,
    };
    Ok(kinds[..types.len()].iter().map(wanted).collect())
}

/// A count of characters or of copies: below 0 is none.
fn count(arg: &ArrayRef, row: usize) -> usize {
    usize::try_from(arg.as_primitive::<Int64Type>().value(row)).unwrap_or(0)
}

fn repeat(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    let repeated = args[0].as_string_view();
    each_row(args, |row, texts| {
        let (text, times) = (repeated.value(row), count(&args[1], row));
        if text.is_empty() {
            texts.made.append_value("");
            return Ok(());
        }
        texts.reserve(text.len().saturating_mul(times))?;
        texts.made.append_value(text.repeat(times));
        Ok(())
    })
}

fn replace(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    let [whole, from, to] = [0, 1, 2].map(|at| args[at].as_string_view());
    each_row(args, |row, texts| {
        let (text, from, to) = (whole.value(row), from.value(row), to.value(row));
        if from.is_empty() {
            texts.made.append_value(text);
            return Ok(());
        }
        let grown = to.len().saturating_sub(from.len());
        let found = if grown == 0 { 0 } else { text.matches(from).count() };
        texts.reserve(text.len().saturating_add(found.saturating_mul(grown)))?;
        texts.made.append_value(text.replace(from, to));
        Ok(())
    })
}

/// Texts of exactly so many characters: cut at their end, or filled at one side.
fn pad(args: &[ArrayRef], side: Side) -> DfResult<ArrayRef> {
    let (padded, fills) = (args[0].as_string_view(), args.get(2).map(|fills| fills.as_string_view()));
    each_row(args, |row, texts| {
        let (text, wanted) = (padded.value(row), count(&args[1], row));
        let fill = fills.map_or(" ", |fills: &StringViewArray| fills.value(row));
        let mut cut = text.char_indices().skip(wanted);
        if let Some((end, _)) = cut.next() {
            texts.reserve(end)?;
            texts.made.append_value(&text[..end]);
            return Ok(());
        }
        let missing = if fill.is_empty() { 0 } else { wanted - text.chars().count() };
        // A fill of one byte a character fills one; others are counted at their longest.
        let widest = fill.chars().map(char::len_utf8).max().unwrap_or(0);
        texts.reserve(text.len().saturating_add(missing.saturating_mul(widest)))?;
        let filling = fill.chars().cycle().take(missing);
        let made: String = match side {
            Side::Left => filling.chain(text.chars()).collect(),
            Side::Right => text.chars().chain(filling).collect(),
        };
        texts.made.append_value(made);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::bounds::BYTES_MAX;
    use datafusion::arrow::array::Int64Array;

    fn texts(values: &[&str]) -> ArrayRef {
        Arc::new(values.iter().map(Some).collect::<StringViewArray>())
    }

    fn padded(text: &str, wanted: i64, fill: &str, side: Side) -> DfResult<String> {
        let args = [texts(&[text]), Arc::new(Int64Array::from(vec![wanted])) as ArrayRef, texts(&[fill])];
        pad(&args, side).map(|made| made.as_string_view().value(0).to_owned())
    }

    #[test]
    fn texts_are_padded_and_cut_by_characters() {
        assert_eq!(padded("é", 4, "xy", Side::Left).unwrap(), "xyxé");
        assert_eq!(padded("é", 4, "xÿ", Side::Right).unwrap(), "éxÿx");
        assert_eq!(padded("añb", 2, "x", Side::Left).unwrap(), "añ");
        assert_eq!(padded("ab", 5, "", Side::Right).unwrap(), "ab");
        assert_eq!(padded("ab", 0, "x", Side::Right).unwrap(), "");
        assert_eq!(padded("ab", i64::MIN, "x", Side::Right).unwrap(), "");
    }

    #[test]
    fn a_batch_of_results_has_a_bound() {
        let half = i64::try_from(BYTES_MAX / 2).unwrap();
        assert!(padded("a", half, "x", Side::Left).is_ok());
        for wanted in [half * 2 + 1, i64::MAX] {
            assert!(padded("a", wanted, "x", Side::Left).is_err());
            assert!(padded("a", wanted, "é", Side::Right).is_err());
        }
    }
}
