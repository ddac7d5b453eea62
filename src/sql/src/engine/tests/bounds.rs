//! Statements that are too much: an answer or a clear error, and never more stack than the threads have.

use super::{Fixture, input, shown, threads};
use crate::front::statement::Statement;
use crate::front::{TextLimits, parse_with};
use model::{Code, Result};
use std::time::{Duration, Instant};

impl Fixture {
    /// Parses as the front does, with its limits, and runs; all of it on a deep thread. Answers the number of rows.
    fn run_text(&self, sql: String) -> Result<usize> {
        let (engine, cluster) = (self.engine.clone(), self.cluster.node(0));
        let run = async move {
            let mut input = input("SELECT 1");
            match parse_with(&sql, &TextLimits::default())?.statement {
                Statement::Query(query) => input.query = *query,
                other => panic!("not a query: {other:?}"),
            }
            engine.query(cluster, input).await.map(|output| output.row_count())
        };
        threads().block_on(async { threads().spawn(run).await.unwrap() })
    }
}

impl Fixture {
    /// Tasks end a moment after their query.
    fn assert_over(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.engine.memory_bytes() > 0 {
            assert!(Instant::now() < deadline, "memory is not given back");
            std::thread::yield_now();
        }
    }
}

/// An answer or a clear error.
#[track_caller]
fn assert_bounded(result: Result<usize>, rows: usize) {
    match result {
        Ok(answer) => assert_eq!(answer, rows),
        Err(error) => assert!(matches!(error.code, Code::LimitExceeded | Code::Syntax), "{error}"),
    }
}

#[test]
fn ten_thousand_ors_are_answered() {
    let fixture = Fixture::filled(2);
    let ors: Vec<String> = (1..=10_000).map(|n| format!("id = {n}")).collect();
    assert_eq!(fixture.run_text(format!("SELECT id FROM item WHERE {}", ors.join(" OR "))).unwrap(), 240);
}

#[test]
fn ors_of_different_columns_are_answered() {
    let fixture = Fixture::filled(2);
    let ors: Vec<String> = (1..=2000).map(|n| format!("(id = {n} AND price < {})", 1000 - n)).collect();
    assert!(fixture.run_text(format!("SELECT id FROM item WHERE {}", ors.join(" OR "))).unwrap() > 0);
}

#[test]
fn long_lists_of_values_are_answered() {
    let fixture = Fixture::filled(2);
    let list: Vec<String> = (1..=50_000).map(|n| n.to_string()).collect();
    assert_eq!(fixture.run_text(format!("SELECT id FROM item WHERE id IN ({})", list.join(", "))).unwrap(), 240);
}

#[test]
fn five_hundred_parentheses_are_answered_or_refused() {
    let fixture = Fixture::filled(2);
    for depth in [20, 40, 120, 500] {
        let sql = format!("SELECT id FROM item WHERE {}id = 7{}", "(".repeat(depth), ")".repeat(depth));
        assert_bounded(fixture.run_text(sql), 1);
    }
}

#[test]
fn deep_arithmetic_is_answered() {
    let fixture = Fixture::filled(2);
    for length in [500, 1000, 2000, 4000] {
        let began = Instant::now();
        assert_bounded(
            fixture.run_text(format!("SELECT {} FROM item WHERE id = 1", vec!["id"; length].join(" + "))),
            1,
        );
        println!("{length} operands: {:?}", began.elapsed());
    }
}

#[test]
fn nested_queries_and_long_unions_are_answered() {
    let fixture = Fixture::filled(2);
    for depth in [5, 12, 18] {
        let nested = |sql: String, _| format!("SELECT id FROM ({sql}) s WHERE id > 0");
        assert_bounded(fixture.run_text((0..depth).fold("SELECT id FROM item".to_owned(), nested)), 240);
    }
    for length in [50, 200, 500] {
        assert_bounded(fixture.run_text(vec!["SELECT id FROM item WHERE id = 1"; length].join(" UNION ALL ")), length);
    }
    for length in [5, 12, 20] {
        let joins: Vec<String> = (1..length).map(|n| format!("JOIN item i{n} ON i{n}.id = i0.id")).collect();
        assert_bounded(fixture.run_text(format!("SELECT i0.id FROM item i0 {}", joins.join(" "))), 240);
    }
}

#[test]
fn results_and_memory_are_bounded() {
    let fixture = Fixture::filled(2);
    let mut few = input("SELECT a.id FROM item a, item b");
    few.limits.rows_max = 1000;
    assert_eq!(fixture.run_at(0, few).unwrap_err().code, Code::LimitExceeded);
    let mut little = input("SELECT a.id, array_agg(b.name) FROM item a, item b, kind c GROUP BY a.id");
    little.limits.memory_bytes_max = 1 << 20;
    let error = fixture.run_at(0, little).unwrap_err();
    assert_eq!(error.code, Code::LimitExceeded, "{error}");
    // What is collected counts as well.
    let mut wide = input("SELECT a.name || b.name || c.label || a.name || b.name FROM item a, item b, kind c");
    wide.limits.memory_bytes_max = 1 << 20;
    wide.limits.rows_max = usize::MAX;
    let error = fixture.run_at(0, wide).unwrap_err();
    assert_eq!(error.code, Code::LimitExceeded, "{error}");
    fixture.assert_over();
}

/// Some 10^9 pairs of which none is wanted, or each row once, looked for at the router, at the storages and among rows of one key.
/// LIMIT keeps joins apart.
const ENDLESS: [&str; 4] = [
    "SELECT count(*) FROM (SELECT a.id FROM item a, item b LIMIT 57000) l
     JOIN (SELECT c.id FROM item c, item d LIMIT 57000) r ON l.id > r.id + 100000",
    "SELECT i.id FROM item i JOIN (SELECT a.id + b.id + c.id + d.id + e.id + f.id + g.id + h.id AS n
     FROM kind a, kind b, kind c, kind d, kind e, kind f, kind g, kind h) k
     ON i.id > k.n + 100000",
    "SELECT count(*) FROM (SELECT a.id % 1 AS one, a.id FROM item a, item b LIMIT 57000) l
     JOIN (SELECT c.id % 1 AS one, c.id FROM item c, item d LIMIT 57000) r ON l.one = r.one AND l.id > r.id + 100000",
    "SELECT count(*) FROM (SELECT a.id % 1 AS one FROM item a, item b LIMIT 57000) l
     WHERE one IN (SELECT c.id % 1 FROM item c, item d LIMIT 57000)",
];

#[test]
fn a_join_that_finds_nothing_ends_at_its_deadline() {
    for replicasets in [1, 2] {
        let fixture = Fixture::filled(replicasets);
        for sql in ENDLESS {
            let mut endless = input(sql);
            endless.limits.deadline = Instant::now() + Duration::from_millis(100);
            let error = fixture.run_at(0, endless).map(|output| shown(&output)).expect_err(sql);
            assert_eq!(error.code, Code::Timeout, "{sql}: {error}");
            fixture.assert_over();
        }
    }
}

#[test]
fn a_join_that_finds_nothing_can_be_stopped() {
    let fixture = Fixture::filled(2);
    let endless = input(ENDLESS[0]);
    let (engine, cluster, stop) = (fixture.engine.clone(), fixture.cluster.node(0), endless.stop.clone());
    let query = threads().spawn(async move { engine.query(cluster, endless).await });
    while fixture.engine.memory_bytes() == 0 {
        std::thread::yield_now();
    }
    stop.set();
    assert_eq!(threads().block_on(query).unwrap().unwrap_err().code, Code::Cancelled);
    fixture.assert_over();
}

#[test]
fn errors_have_codes_and_hints() {
    let fixture = Fixture::filled(2);
    let error = |sql: &str| fixture.run(sql).map(|output| shown(&output)).unwrap_err();
    let mut wrong = Vec::new();
    for (sql, code) in [
        ("SELECT * FROM itm", Code::NoSuchTable),
        ("SELECT pirce FROM item", Code::NoSuchColumn),
        ("SELECT i.pirce FROM item i", Code::NoSuchColumn),
        ("SELECT nosuch(id) FROM item", Code::NoSuchFunction),
        ("SELECT id / 0 FROM item", Code::DivisionByZero),
        ("SELECT 1 / 0", Code::DivisionByZero),
        ("SELECT price % 0 FROM item", Code::DivisionByZero),
        ("SELECT id FROM item JOIN line ON id = id2", Code::NoSuchColumn),
        ("SELECT order_id FROM line JOIN shipment ON line.order_id = shipment.order_id", Code::InvalidStatement),
        ("SELECT sum(name) FROM item", Code::WrongType),
        ("SELECT name, count(*) FROM item", Code::InvalidStatement),
        ("SELECT CAST(name AS INT) FROM item", Code::WrongType),
        ("SELECT (SELECT id FROM item)", Code::InvalidStatement),
        ("SELECT id + 9223372036854775807 FROM item", Code::ValueOutOfRange),
        ("SELECT id * 9223372036854775807 FROM item", Code::ValueOutOfRange),
        ("SELECT -id - 9223372036854775807 FROM item", Code::ValueOutOfRange),
        ("SELECT CAST(id * 100000 AS SMALLINT) FROM item", Code::ValueOutOfRange),
    ] {
        match fixture.run(sql) {
            Err(error) if error.code == code && !error.message.contains("DataFusion") => {}
            Err(error) => wrong.push(format!("{sql}: {:?} {error}", error.code)),
            Ok(output) => wrong.push(format!("{sql}: {:?}", shown(&output).first())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(error("SELECT * FROM itm").hint.unwrap(), "did you mean \"item\"?");
    assert_eq!(error("SELECT pirce FROM item").hint.unwrap(), "did you mean \"price\"?");
}
