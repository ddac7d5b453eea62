//! Files of statements and the answers they should have, in sqllogictest's format.
//!
//! The cluster tests read the same files with `test/cluster/slt.py`; both take the same subset of the format. (The
//! crate `sqllogictest` would switch features of the query engine's dependencies on and have all of it built twice.)

use crate::front::{Answer, RowSet};
use model::msgpack::Reader;
use model::{Result, Value};

/// One statement of a file and what should come of it.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where its statement begins, from 1.
    pub line: usize,
    pub sql: String,
    pub expected: Expected,
}

#[derive(Clone, Debug)]
pub enum Expected {
    Ok,
    /// An error whose message or code's name contains this.
    Error(String),
    Count(u64),
    Rows {
        lines: Vec<String>,
        sort: Sort,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    None,
    Rows,
    Values,
}

/// The records of a file. Panics, with the line, on what is not of the format: the file is part of the test.
pub fn records(text: &str) -> Vec<Record> {
    let lines: Vec<&str> = text.lines().collect();
    let (mut records, mut at, mut is_skipped) = (Vec::new(), 0, false);
    while at < lines.len() {
        let words: Vec<&str> = lines[at].split_whitespace().collect();
        at += 1;
        match words[..] {
            [] => continue,
            [first, ..] if first.starts_with('#') => continue,
            ["halt", ..] if is_skipped => is_skipped = false,
            ["halt", ..] => break,
            ["skipif", engine] => is_skipped |= engine == "picodata",
            ["onlyif", engine] => is_skipped |= engine != "picodata",
            ["statement" | "query", ..] => {
                let block: Vec<&str> = lines[at..].iter().copied().take_while(|line| !line.trim().is_empty()).collect();
                let record = Record { line: at + 1, ..record(lines[at - 1], &words, &block) };
                at += block.len();
                if !std::mem::take(&mut is_skipped) {
                    records.push(record);
                }
            }
            _ => panic!("line {at}: {:?} is not a record", lines[at - 1]),
        }
    }
    records
}

fn record(head: &str, words: &[&str], block: &[&str]) -> Record {
    let cut = block.iter().position(|line| *line == "----");
    let (sql, rows) = block.split_at(cut.unwrap_or(block.len()));
    let lines: Vec<String> = rows.iter().skip(1).map(|line| (*line).to_owned()).collect();
    let expected = match words {
        ["statement", "ok"] => Expected::Ok,
        ["statement", "count", count] => Expected::Count(count.parse().unwrap_or_else(|_| panic!("{head:?}"))),
        ["statement", "error", ..] => {
            Expected::Error(head.split_once("error").map_or("", |(_, pattern)| pattern.trim()).to_owned())
        }
        ["query", _, modifiers @ ..] => {
            let sort = match modifiers {
                modifiers if modifiers.contains(&"rowsort") => Sort::Rows,
                modifiers if modifiers.contains(&"valuesort") => Sort::Values,
                _ => Sort::None,
            };
            Expected::Rows { lines, sort }
        }
        _ => panic!("{head:?} is not a record"),
    };
    Record { line: 0, sql: sql.join("\n"), expected }
}

/// What is wrong with an answer, if anything.
pub fn difference(record: &Record, answer: &Result<Answer>) -> Option<String> {
    match (&record.expected, answer) {
        (Expected::Error(pattern), Err(error)) => {
            let is_meant = error.message.contains(pattern.as_str()) || error.code.name() == pattern;
            (!is_meant).then(|| format!("the error is {}: {error}", error.code.name()))
        }
        (Expected::Error(_), Ok(_)) => Some("no error was raised".into()),
        (_, Err(error)) => Some(format!("{}: {error}", error.code.name())),
        (Expected::Ok, Ok(_)) => None,
        (Expected::Count(wanted), Ok(Answer::Count(found))) => {
            (wanted != found).then(|| format!("{found} rows were changed, not {wanted}"))
        }
        (Expected::Rows { lines, sort }, Ok(Answer::Rows(set))) => compare(lines, *sort, set),
        (expected, Ok(answer)) => Some(format!("{answer:?} is no answer of the kind {expected:?}")),
    }
}

fn compare(lines: &[String], sort: Sort, set: &RowSet) -> Option<String> {
    let mut reader = Reader::new(&set.rows);
    let mut found: Vec<Vec<String>> = Vec::new();
    for _ in 0..set.count {
        match reader.value() {
            Ok(Value::Array(row)) => found.push(row.iter().map(show).collect()),
            other => return Some(format!("{other:?} is no row")),
        }
    }
    if sort == Sort::Values {
        let mut cells: Vec<String> = found.into_iter().flatten().collect();
        cells.sort();
        found = cells.into_iter().map(|cell| vec![cell]).collect();
    }
    let mut wanted: Vec<String> =
        lines.iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    if sort == Sort::Rows {
        found.sort_by_key(|row| row.join(" "));
        wanted.sort();
    }
    let is_equal = found.len() == wanted.len() && found.iter().zip(&wanted).all(|(row, line)| row_equals(row, line));
    let shown: Vec<String> = found.iter().map(|row| row.join(" ")).collect();
    (!is_equal).then(|| format!("found:\n{}\nexpected:\n{}", shown.join("\n"), wanted.join("\n")))
}

fn row_equals(row: &[String], line: &str) -> bool {
    let cells: Vec<&str> = line.split(' ').collect();
    let nearly = |(found, wanted): (&String, &&str)| {
        found == wanted
            || match (found.parse::<f64>(), wanted.parse::<f64>()) {
                // Sums of doubles depend on their order; whole numbers and decimals are compared as text above.
                (Ok(a), Ok(b)) => found.contains(['.', 'e']) && (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
                _ => false,
            }
    };
    let words: Vec<&str> = row.iter().flat_map(|cell| cell.split_whitespace()).collect();
    words.join(" ") == line || (row.len() == cells.len() && row.iter().zip(&cells).all(nearly))
}

/// A cell as the files write it.
fn show(value: &Value) -> String {
    match value {
        Value::Text(text) if text.is_empty() => "(empty)".into(),
        Value::Text(text) => text.clone(),
        Value::Double(d) if d.fract() == 0.0 && d.abs() < 1e15 => format!("{d:.1}"),
        Value::Array(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Code, Error};

    const FILE: &str = "# comment\nstatement ok\nCREATE TABLE t\n  (a)\n\nskipif picodata\nstatement ok\nNO\n\n\
        query IT rowsort\nSELECT 1\n----\n2 b\n1   (empty)\n\nstatement count 3\nDELETE\n\nstatement error no such thing\nX\n\nhalt\nY";

    #[test]
    fn files_are_read_and_answers_compared() {
        let records = records(FILE);
        assert_eq!(records.iter().map(|r| r.line).collect::<Vec<_>>(), [3, 11, 17, 20]);
        assert_eq!(records[0].sql, "CREATE TABLE t\n  (a)");
        let mut rows = Vec::new();
        Value::Array(vec![Value::Integer(1), Value::Text(String::new())]).write_shown(&mut rows);
        Value::Array(vec![Value::Integer(2), Value::Text("b".into())]).write_shown(&mut rows);
        let answer = Ok(Answer::Rows(RowSet { columns: Vec::new(), rows, count: 2 }));
        assert_eq!(difference(&records[1], &answer), None);
        assert!(difference(&records[0], &Err(Error::internal("x"))).is_some());
        assert_eq!(difference(&records[2], &Ok(Answer::Count(3))), None);
        assert!(difference(&records[2], &Ok(Answer::Count(2))).is_some());
        assert_eq!(difference(&records[3], &Err(Error::new(Code::Internal, "no such thing here"))), None);
        assert!(difference(&records[3], &Ok(Answer::Count(2))).is_some());
    }
}
