//! What the executor asks of the engine and of the cluster, with an engine that answers from a script.

use super::execute::{Answer, Executor, Limits, Within};
use super::queries::{QueryEngine, QueryRequest, ResultColumn, RowStream};
use crate::cluster::Cluster;
use crate::testing::MemoryCluster;
use async_trait::async_trait;
use futures::executor::block_on;
use model::{Code, Error, Result, Value};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

type Rows = Vec<Vec<Value>>;

/// Keeps the queries that it is asked and answers them in turn.
#[derive(Default)]
struct Script {
    asked: Mutex<Vec<String>>,
    answers: Mutex<VecDeque<Result<Rows>>>,
}

struct Canned {
    columns: Vec<ResultColumn>,
    rows: Option<Rows>,
}

#[async_trait]
impl RowStream for Canned {
    fn columns(&self) -> &[ResultColumn] {
        &self.columns
    }

    async fn next_encoded(&mut self, out: &mut Vec<u8>) -> Result<Option<usize>> {
        Ok(self.rows.take().map(|rows| {
            rows.iter().for_each(|row| Value::Array(row.clone()).write_shown(out));
            rows.len()
        }))
    }

    async fn next_values(&mut self) -> Result<Option<Rows>> {
        Ok(self.rows.take())
    }
}

#[async_trait]
impl QueryEngine for Script {
    async fn query(&self, _: &Arc<dyn Cluster>, input: QueryRequest) -> Result<Box<dyn RowStream>> {
        self.asked.lock().unwrap().push(input.query.to_string());
        let rows = self.answers.lock().unwrap().pop_front().unwrap_or(Ok(Vec::new()))?;
        let width = rows.first().map_or(1, Vec::len);
        let column = |at| ResultColumn { name: format!("c{at}"), ty: "bigint".into() };
        Ok(Box::new(Canned { columns: (0..width).map(column).collect(), rows: Some(rows) }))
    }

    async fn explain(&self, _: &Arc<dyn Cluster>, input: QueryRequest, _: bool) -> Result<Vec<String>> {
        Ok(vec![format!("plan of {}", input.query)])
    }
}

struct Session {
    script: Arc<Script>,
    cluster: Arc<dyn Cluster>,
    executor: Executor,
}

impl Session {
    fn new() -> Session {
        Session::with(Limits::default())
    }

    fn with(limits: Limits) -> Session {
        let script = Arc::new(Script::default());
        let executor = Executor::new(script.clone(), limits);
        let session = Session { script, cluster: MemoryCluster::new(2).node(0), executor };
        session.ok("CREATE TABLE t (id BIGINT PRIMARY KEY, name VARCHAR(5) NOT NULL DEFAULT 'x', n INT)");
        session
    }

    fn answer(&self, rows: Rows) {
        self.script.answers.lock().unwrap().push_back(Ok(rows));
    }

    fn fail(&self, code: Code) {
        self.script.answers.lock().unwrap().push_back(Err(Error::new(code, "on purpose")));
    }

    fn run(&self, text: &str, params: &[Value]) -> Result<Answer> {
        block_on(self.executor.execute(
            &self.cluster,
            text,
            params,
            &Within::until(Instant::now() + Duration::from_secs(60)),
        ))
    }

    fn ok(&self, text: &str) -> Answer {
        self.run(text, &[]).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn fails(&self, text: &str) -> Error {
        self.run(text, &[]).expect_err(text)
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.script.asked.lock().unwrap())
    }
}

fn integers(values: &[i64]) -> Vec<Value> {
    values.iter().map(|i| Value::Integer(*i)).collect()
}

#[test]
fn constant_rows_go_straight_to_the_cluster() {
    let session = Session::new();
    let inserted = session.run("INSERT INTO t (n, id) VALUES (?, ?), (3, 4)", &integers(&[1, 2])).unwrap();
    assert_eq!(inserted, Answer::Count(2));
    assert_eq!(session.asked(), Vec::<String>::new());
    assert_eq!(session.fails("INSERT INTO t VALUES (4, 'a', 1)").code, Code::DuplicateKey);
    assert_eq!(session.ok("INSERT INTO t VALUES (4, 'a', 1) ON CONFLICT DO NOTHING"), Answer::Count(0));
    assert_eq!(session.ok("INSERT INTO t VALUES (4, 'a', 1) ON CONFLICT (id) DO REPLACE"), Answer::Count(1));
}

#[test]
fn rows_that_do_not_fit_are_refused_before_anything_is_written() {
    let session = Session::new();
    for (text, code) in [
        ("INSERT INTO t DEFAULT VALUES", Code::NullViolation),
        ("INSERT INTO t (id, name) VALUES (1, NULL)", Code::NullViolation),
        ("INSERT INTO t (id, name) VALUES (1, 'too long')", Code::ValueOutOfRange),
        ("INSERT INTO t (id, n) VALUES (1, 'x')", Code::WrongType),
        ("INSERT INTO t (id, n) VALUES (1)", Code::InvalidStatement),
        ("INSERT INTO t (id, id) VALUES (1, 2)", Code::InvalidStatement),
        ("INSERT INTO t (id, nn) VALUES (1, 2)", Code::NoSuchColumn),
        ("INSERT INTO tt VALUES (1)", Code::NoSuchTable),
        ("INSERT INTO t VALUES (1, 'a', 1) ON CONFLICT (n) DO NOTHING", Code::InvalidStatement),
        ("UPDATE t SET id = 2", Code::Unsupported),
        ("UPDATE t SET n = 1, n = 2", Code::InvalidStatement),
        ("INSERT INTO t VALUES (1, 'a', 1), (2, NULL, 1)", Code::NullViolation),
    ] {
        assert_eq!(session.fails(text).code, code, "{text}");
    }
    session.ok("CREATE TABLE j (id INT PRIMARY KEY, doc JSON)");
    assert_eq!(session.fails("INSERT INTO j VALUES (1, '{\"a\": ')").code, Code::WrongType);
    session.ok("INSERT INTO j VALUES (1, '{\"a\": 1}'), (2, NULL)");
    assert_eq!(session.fails("INSERT INTO tt VALUES (1)").hint.as_deref(), Some("did you mean \"t\"?"));
    assert_eq!(session.fails("SELECT ?").code, Code::Argument);
    assert_eq!(session.ok("INSERT INTO t VALUES (1, 'a', 1)"), Answer::Count(1), "nothing was left behind");
}

#[test]
fn changes_read_what_they_check() {
    let session = Session::new();
    session.ok("INSERT INTO t VALUES (1, 'a', 10)");
    session.answer(vec![vec![Value::Integer(1), Value::Integer(10), Value::Integer(11), Value::Text("x".into())]]);
    let updated = session.run("UPDATE t AS u SET n = u.n + ?, name = DEFAULT WHERE u.id < 5", &integers(&[1])).unwrap();
    assert_eq!(updated, Answer::Count(1));
    assert_eq!(
        session.asked(),
        [r#"SELECT "u"."id" AS "c0", "u"."n" AS "c1", u.n + 1 AS "c2", 'x' AS "c3" FROM "t" AS "u" WHERE u.id < 5"#]
    );
    session.answer(vec![vec![Value::Integer(1), Value::Integer(11)]]);
    assert_eq!(session.ok("DELETE FROM t WHERE n IN (SELECT 11)"), Answer::Count(1));
    assert_eq!(session.asked(), [r#"SELECT "t"."id" AS "c0", "t"."n" AS "c1" FROM "t" WHERE n IN (SELECT 11)"#]);
}

#[test]
fn a_row_that_changed_meanwhile_makes_the_statement_look_again() {
    let session = Session::new();
    session.ok("INSERT INTO t VALUES (1, 'a', 10)");
    // The first answer is of the past.
    session.answer(vec![integers(&[1, 9, 10])]);
    session.answer(vec![integers(&[1, 10, 11])]);
    assert_eq!(session.ok("UPDATE t SET n = n + 1"), Answer::Count(1));
    assert_eq!(session.asked().len(), 2);
    for _ in 0..20 {
        session.answer(vec![integers(&[1, 9, 10])]);
    }
    assert_eq!(session.fails("UPDATE t SET n = n + 1").code, Code::Conflict);
    assert_eq!(session.asked().len(), 11, "it gives up in the end");
}

#[test]
fn large_changes_are_written_in_batches_and_say_how_far_they_came() {
    let mut limits = Limits::default();
    limits.change.batch_rows_max = 2;
    limits.change.rows_max = 6;
    let session = Session::with(limits);
    let rows = |range: std::ops::Range<i64>| range.map(|i| vec![Value::Integer(i)]).collect::<Rows>();
    session.answer(rows(0..5));
    assert_eq!(session.ok("INSERT INTO t (id) SELECT a FROM u"), Answer::Count(5));
    session.answer(rows(10..20));
    assert_eq!(session.fails("INSERT INTO t (id) SELECT a FROM u").code, Code::LimitExceeded);
    session.ok("INSERT INTO t (id) VALUES (33)");
    session.answer(rows(30..34));
    let error = session.fails("INSERT INTO t (id) SELECT a FROM u");
    assert_eq!(error.code, Code::DuplicateKey);
    assert!(error.message.starts_with("2 rows were changed"), "{error}");
}

#[test]
fn results_are_bounded_and_names_are_looked_up_twice() {
    let session = Session::with(Limits { result_rows_max: 2, ..Limits::default() });
    session.answer(vec![integers(&[1]), integers(&[2]), integers(&[3])]);
    assert_eq!(session.fails("SELECT a FROM u").code, Code::LimitExceeded);
    session.asked();
    session.fail(Code::NoSuchTable);
    session.answer(vec![integers(&[1])]);
    let Answer::Rows(set) = session.ok("SELECT a FROM u") else { panic!() };
    assert_eq!((set.count, set.rows), (1, vec![0x91, 1]));
    assert_eq!(session.asked().len(), 2);
}

#[test]
fn what_did_nothing_is_begun_again_until_the_deadline() {
    let session = Session::new();
    for code in [Code::WrongBucket, Code::BucketLocked, Code::NoMaster, Code::Unreachable, Code::SchemaChanged] {
        session.fail(code);
    }
    session.answer(vec![integers(&[1])]);
    assert!(matches!(session.ok("SELECT a FROM u"), Answer::Rows(_)));
    assert_eq!(session.asked().len(), 6);
    for code in [Code::Unknown, Code::Timeout, Code::LimitExceeded, Code::Storage] {
        session.fail(code);
        assert_eq!(session.fails("SELECT a FROM u").code, code);
        assert_eq!(session.asked().len(), 1, "{code:?}");
    }
    session.fail(Code::NoMaster);
    let late =
        block_on(session.executor.execute(&session.cluster, "SELECT a FROM u", &[], &Within::until(Instant::now())));
    assert_eq!(late.expect_err("no time is left").code, Code::NoMaster);
    assert_eq!(session.asked().len(), 1);
}

#[test]
fn schema_statements_heed_if_exists() {
    let session = Session::new();
    assert_eq!(session.fails("CREATE TABLE t (a INT PRIMARY KEY)").code, Code::AlreadyExists);
    session.ok("CREATE TABLE IF NOT EXISTS t (a INT PRIMARY KEY)");
    session.ok("CREATE INDEX by_n ON t (n)");
    assert_eq!(session.fails("CREATE INDEX by_n ON t (n)").code, Code::AlreadyExists);
    session.ok("CREATE INDEX IF NOT EXISTS by_n ON t (n)");
    assert_eq!(session.fails("CREATE INDEX i ON t (nn)").hint.as_deref(), Some("did you mean \"n\"?"));
    assert_eq!(session.fails("CREATE UNIQUE INDEX i ON t (n)").code, Code::InvalidStatement);
    assert_eq!(session.fails("DROP INDEX by_m").code, Code::NoSuchIndex);
    session.ok("DROP INDEX IF EXISTS by_m");
    session.ok("DROP INDEX by_n");
    session.ok("TRUNCATE t");
    session.ok("DROP TABLE t");
    assert_eq!(session.fails("DROP TABLE t").code, Code::NoSuchTable);
    session.ok("DROP TABLE IF EXISTS t");
    assert_eq!(session.fails("TRUNCATE t").code, Code::NoSuchTable);
    session.ok("TRUNCATE IF EXISTS t");
}

#[test]
fn explain_says_which_way_a_statement_goes() {
    let session = Session::new();
    let lines = |text: &str| {
        let Answer::Rows(set) = session.ok(text) else { panic!() };
        String::from_utf8_lossy(&set.rows).into_owned()
    };
    assert!(lines("EXPLAIN SELECT * FROM t WHERE id = 1").contains("by key"));
    assert!(!lines("EXPLAIN SELECT * FROM t").contains("by key"));
    assert!(lines("EXPLAIN INSERT INTO t VALUES (1, 'a', 2)").contains("1 constant rows"));
    assert!(lines("EXPLAIN UPDATE t SET n = 1 WHERE n = 2").contains("plan of SELECT"));
    assert_eq!(session.fails("EXPLAIN ANALYZE DELETE FROM t").code, Code::Unsupported);
    assert_eq!(session.asked(), Vec::<String>::new());
}

#[test]
fn answers_are_messagepack() {
    let session = Session::new();
    session.answer(vec![integers(&[7])]);
    let mut out = Vec::new();
    session.ok("SELECT 7").write(&mut out);
    assert_eq!(out, b"\x82\xa8metadata\x91\x82\xa4name\xa2c0\xa4type\xa6bigint\xa4rows\x91\x91\x07");
    out.clear();
    Answer::Count(3).write(&mut out);
    assert_eq!(out, b"\x81\xa9row_count\x03");
}

#[test]
fn executions_may_move_between_threads() {
    fn is_send<T: Send>(_: &T) {}
    let session = Session::new();
    is_send(&session.executor.execute(&session.cluster, "SELECT 1", &[], &Within::until(Instant::now())));
}
