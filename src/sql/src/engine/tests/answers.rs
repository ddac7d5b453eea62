//! The same answer from any number of replicasets, from any node, and from the query engine alone.

use super::{Fixture, input, shown};
use model::{Code, Value};

/// One statement a line; those with an ORDER BY that fixes the order are compared in order.
const QUERIES: &str = include_str!("queries.sql");

fn is_ordered(sql: &str) -> bool {
    sql.contains("-- ordered")
}

#[test]
fn every_query_has_one_answer() {
    let oracle = Fixture::oracle();
    let clusters: Vec<Fixture> = (1..=3).map(Fixture::filled).collect();
    let mut failures = Vec::new();
    for sql in QUERIES.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("--")) {
        let sorted = |result: model::Result<super::QueryOutput>| {
            result.map(|output| {
                let mut rows = shown(&output);
                if !is_ordered(sql) {
                    rows.sort();
                }
                rows
            })
        };
        let expected = sorted(oracle.run(sql));
        if let Err(error) = &expected {
            failures.push(format!("{sql}\n  the oracle fails: {error}"));
            continue;
        }
        for (at, cluster) in clusters.iter().enumerate() {
            for node in [0, at] {
                let got = sorted(cluster.run_at(node, input(sql)));
                if got != expected {
                    let plan = cluster.explain(sql).join("\n    ");
                    let (got, expected) = (brief(&got), brief(&expected));
                    failures.push(format!(
                        "{sql}\n  replicasets: {}, node {node}\n  got      {got}\n  expected {expected}\n    {plan}",
                        at + 1
                    ));
                    break;
                }
            }
            assert_eq!(cluster.cluster.scans_open(), 0, "a scan is open after {sql}");
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n\n"));
}

fn brief(rows: &model::Result<Vec<Vec<String>>>) -> String {
    match rows {
        Ok(rows) => format!("{} rows: {:?}", rows.len(), rows.iter().take(6).collect::<Vec<_>>()),
        Err(error) => format!("{:?}: {error}", error.code),
    }
}

#[test]
fn rows_that_are_too_many_to_send_along_come_to_the_router() {
    let sql = "SELECT count(*), max(length(i.big)) FROM line l \
               JOIN (SELECT id, repeat(name, 10000) AS big FROM item) i ON l.item_id = i.id";
    let cluster = Fixture::filled(2);
    assert!(cluster.explain(sql).iter().any(|line| line.contains("Rows sent along")));
    assert_eq!(shown(&cluster.run(sql).unwrap()), shown(&Fixture::oracle().run(sql).unwrap()));
}

#[test]
fn parameters_stand_for_values() {
    let cluster = Fixture::filled(2);
    let mut query = input("SELECT name FROM item WHERE id = $1 AND price > $2");
    query.params = vec![Value::Integer(5), Value::Decimal(model::Decimal::new(-1, 0))];
    assert_eq!(shown(&cluster.run_at(0, query).unwrap()).len(), 1);
    let error = cluster.run_at(0, input("SELECT name FROM item WHERE id = $1")).unwrap_err();
    assert_eq!(error.code, Code::Argument, "{error}");
    // A series is made of its arguments before the others are looked at.
    let mut series = input("SELECT g + $3 FROM generate_series($1, $2 * 2) g");
    let error = cluster.run_at(0, series.clone()).unwrap_err();
    assert_eq!(error.code, Code::Argument, "{error}");
    series.params = [7, 4, 1].map(Value::Integer).to_vec();
    assert_eq!(shown(&cluster.run_at(0, series).unwrap()).concat(), ["8", "9"]);
}

#[test]
fn columns_have_the_names_and_types_that_users_expect() {
    let cluster = Fixture::filled(2);
    let columns = |sql: &str| {
        let shown = |(name, ty): (String, String)| format!("{name} {ty}");
        cluster.run(sql).unwrap().columns.into_iter().map(shown).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(columns("SELECT * FROM tag"), "word text, kind smallint, code uuid, good boolean");
    assert_eq!(columns("SELECT t.word, kind AS k FROM tag t"), "word text, k smallint");
    assert_eq!(
        columns("SELECT count(*), max(price), id % 10 FROM item GROUP BY id % 10"),
        "count bigint, max decimal, id % 10 bigint"
    );
    assert_eq!(columns("SELECT id + 1, *, 1 + 1 FROM kind"), "id + 1 integer, id integer, label text, 1 + 1 integer");
    assert_eq!(
        columns("SELECT day, sent_at FROM shipment UNION ALL SELECT day, sent_at FROM shipment"),
        "day date, sent_at timestamp"
    );
}

#[test]
fn rows_become_messagepack() {
    use model::msgpack::Reader;
    let cluster = Fixture::filled(2);
    let output =
        cluster.run("SELECT code, good, kind FROM tag WHERE word = 'w00' OR word = 'w09' ORDER BY word").unwrap();
    let bytes = super::super::encode::rows_to_msgpack(&output).unwrap();
    let rows = Value::read(&mut Reader::new(&bytes)).unwrap();
    let row = |n: u8, good: Value, kind: Value| Value::Array(vec![Value::Uuid([n; 16]), good, kind]);
    let expected = vec![row(0, Value::Null, Value::Null), row(9, Value::Boolean(false), Value::Integer(0))];
    assert_eq!(rows, Value::Array(expected));
    let output =
        cluster.run("SELECT price, day, sent_at FROM item JOIN shipment ON id = order_id WHERE id = 1").unwrap();
    let bytes = super::super::encode::rows_to_msgpack(&output).unwrap();
    let rows = Value::read(&mut Reader::new(&bytes)).unwrap();
    let Value::Array(rows) = rows else { panic!("no rows") };
    let Value::Array(row) = &rows[0] else { panic!("no row") };
    assert_eq!(row[1], Value::Text("2013-01-02".into()));
    assert_eq!(row[2], Value::Text("2013-01-01 01:26:40".into()));
    assert!(matches!(row[0], Value::Decimal(d) if d.scale == 2));
}
