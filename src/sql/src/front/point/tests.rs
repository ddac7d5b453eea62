//! Which statements take the point path, and what they are bound to.

use super::*;
use crate::cluster::{OwnedRange, Schema};
use crate::front::parse;
use crud::RowWriter;
use crud::wire::Op;
use model::msgpack::Reader;
use model::{Code, InstanceName, ReplicasetName, Table, TableId, TierName, Value};

#[derive(Debug)]
struct Tables(Vec<Arc<Table>>);

impl Schema for Tables {
    fn version(&self) -> u64 {
        1
    }
    fn table(&self, name: &str) -> Option<Arc<Table>> {
        self.0.iter().find(|table| table.name == name).cloned()
    }
    fn table_names(&self) -> Vec<String> {
        self.0.iter().map(|table| table.name.clone()).collect()
    }
    fn bucket_count(&self, _: &TierName) -> Option<u32> {
        Some(3000)
    }
    fn placement(&self, _: &TierName) -> Vec<OwnedRange> {
        Vec::new()
    }
    fn local_replicaset(&self) -> Option<ReplicasetName> {
        None
    }
    fn local_instance(&self) -> InstanceName {
        "i1".into()
    }
    fn row_count(&self, _: TableId) -> Option<u64> {
        None
    }
}

fn schema() -> Tables {
    let table = |text: &str, id| {
        let crate::front::Statement::Schema(schema) = parse(text).unwrap().statement else { panic!() };
        let crate::front::statement::SchemaAction::CreateTable { mut table, .. } = schema.action else { panic!() };
        table.id = id;
        Arc::new(table)
    };
    Tables(vec![
        table(
            "CREATE TABLE t (id BIGINT PRIMARY KEY, name VARCHAR(5) NOT NULL DEFAULT 'x', n INT NOT NULL DEFAULT 0, d DATE, m INT)",
            600,
        ),
        table("CREATE TABLE p (a INT, b TEXT, c INT, PRIMARY KEY (b, a)) DISTRIBUTED BY (a)", 601),
        table("CREATE TABLE g (id INT PRIMARY KEY, v TEXT) DISTRIBUTED GLOBALLY", 602),
    ])
}

fn plan(text: &str) -> Option<PointPlan> {
    recognise(&parse(text).unwrap(), &schema())
}

/// Binds and prints: each item, as box takes it, without the bucket; update operations behind it.
fn bound(text: &str, params: &[Value]) -> Result<String, Code> {
    let plan = plan(text).unwrap_or_else(|| panic!("{text} is no point statement"));
    let (mut raw, mut bound) = (Vec::new(), BoundPlan::default());
    Value::Array(params.to_vec()).write_shown(&mut raw);
    let outcome = plan.bind(&raw, &RowWriter::new(&plan.layout, 3000), &mut bound).map_err(|error| error.code)?;
    if outcome == Outcome::Engine {
        return Ok("engine".into());
    }
    let show = |at| {
        let mut operation = Vec::new();
        plan.write_operation(&bound, at, &mut operation);
        let mut payload = Op::read(&mut Reader::new(&operation)).unwrap().payload;
        let (Value::Array(item), bucket) = (payload.value().unwrap(), bound.item(at).1) else { panic!() };
        let operations = (!payload.is_empty()).then(|| payload.value().unwrap());
        let item = if bucket > 0 {
            assert_eq!(item[0], Value::Integer(bucket.into()));
            &item[1..]
        } else {
            &item[..]
        };
        format!("{}{}", Value::Array(item.to_vec()), operations.map_or(String::new(), |ops| format!(" {ops}")))
    };
    Ok((0..bound.len()).map(show).collect::<Vec<_>>().join(" "))
}

#[test]
fn point_statements_are_recognised() {
    for text in [
        "SELECT * FROM t WHERE id = 1",
        "SELECT name, t.n AS x FROM t WHERE $1 = t.id",
        "SELECT id FROM t AS u WHERE (u.id = ?) LIMIT 1",
        "SELECT * FROM t WHERE id IN (1, ?, 3)",
        "SELECT c FROM p WHERE a = 1 AND b = 'x' AND c >= 5",
        "SELECT v FROM g WHERE id = 1",
        "INSERT INTO t VALUES (1, 'a', 2, '2013-01-01', NULL)",
        "INSERT INTO t (n, id) VALUES (?, ?), (1, 2) ON CONFLICT DO NOTHING",
        "INSERT INTO p (a, b) VALUES (1, 'x') ON CONFLICT (a, b) DO REPLACE",
        "UPDATE t SET n = n + 1, name = ? WHERE id = ?",
        "DELETE FROM t WHERE id = 1",
        "DELETE FROM t WHERE id IN (1, 2)",
    ] {
        assert!(plan(text).is_some(), "{text}");
    }
}

#[test]
fn all_others_are_the_engines() {
    for text in [
        "SELECT * FROM t",
        "SELECT * FROM t WHERE n = 1",
        "SELECT count(*) FROM t WHERE id = 1",
        "SELECT n + 1 FROM t WHERE id = 1",
        "SELECT * FROM p WHERE a = 1",
        "SELECT * FROM t WHERE id = 1 OR id = 2",
        "SELECT * FROM t WHERE id = n",
        "SELECT * FROM t WHERE id > 1",
        "SELECT * FROM t WHERE id = 1 LIMIT 0",
        "SELECT * FROM t WHERE id IN (1, 2) LIMIT 1",
        "SELECT * FROM t WHERE id = 1 ORDER BY n",
        "SELECT DISTINCT id FROM t WHERE id = 1",
        "SELECT id FROM t, p WHERE id = 1",
        "SELECT * FROM t WHERE id = '1'",
        "SELECT * FROM t WHERE id = 1 + 1",
        "SELECT x.id FROM t WHERE id = 1",
        "SELECT id FROM t WHERE id NOT IN (1)",
        "SELECT * FROM t WHERE id = 1 AND m < 1.5",
        "SELECT * FROM t WHERE id = 1 AND m IS NULL",
        "SELECT * FROM u WHERE id = 1",
        "SELECT zz FROM t WHERE id = 1",
        "SELECT id FROM t WHERE id = 1 FOR UPDATE",
        "INSERT INTO t (id) SELECT 1",
        "INSERT INTO t (id, n) VALUES (1, 1 + 1)",
        "INSERT INTO t (name) VALUES ('a')",
        "INSERT INTO t (id, id) VALUES (1, 1)",
        "INSERT INTO t (id, n) VALUES (1)",
        "INSERT INTO t (id, n) VALUES (1, 'a')",
        "INSERT INTO t (id) VALUES (1) ON CONFLICT (n) DO NOTHING",
        "INSERT INTO g VALUES (1, 'x')",
        "UPDATE t SET n = m + 1 WHERE id = 1",
        "UPDATE t SET m = m + 1 WHERE id = 1",
        "UPDATE t SET id = 2 WHERE id = 1",
        "UPDATE t SET n = 1 WHERE id = 1 AND m = 2",
        "UPDATE t SET n = 1, n = 2 WHERE id = 1",
        "UPDATE t SET n = 1",
        "UPDATE t SET n = 1 WHERE id IN (1)",
        "DELETE FROM t",
        "DELETE FROM t WHERE id = 1 AND n = 1",
        "EXPLAIN SELECT * FROM t WHERE id = 1",
    ] {
        assert!(plan(text).is_none(), "{text}");
    }
}

#[test]
fn keys_are_bound_exactly() {
    let get = "SELECT * FROM t WHERE id = ?";
    assert_eq!(bound(get, &[Value::Integer(7)]).unwrap(), "[7]");
    assert_eq!(bound(get, &[Value::Integer(-700_000)]).unwrap(), "[-700000]");
    assert_eq!(bound(get, &[Value::Double(7.0)]).unwrap(), "[7]");
    assert_eq!(bound(get, &[Value::Double(7.5)]).unwrap(), "");
    assert_eq!(bound(get, &[Value::Null]).unwrap(), "");
    assert_eq!(bound(get, &[Value::Text("7".into())]).unwrap(), "engine");
    assert_eq!(bound(get, &[]), Err(Code::Argument));
    assert_eq!(bound(get, &[Value::Null, Value::Null]), Err(Code::Argument));
    assert_eq!(bound("SELECT * FROM t WHERE id = 1.5", &[]).unwrap(), "");
    assert_eq!(bound("SELECT * FROM t WHERE id IN (3, ?, 3.0, NULL, 2)", &[Value::Integer(3)]).unwrap(), "[3] [2]");
    assert_eq!(
        bound("SELECT * FROM p WHERE a = ? AND b = ?", &[Value::Integer(1), Value::Text("k".into())]).unwrap(),
        "['k', 1]"
    );
    assert_eq!(bound("SELECT * FROM g WHERE id = 5", &[]).unwrap(), "[5]");
}

#[test]
fn rows_are_complete_and_checked() {
    let insert = "INSERT INTO t (n, id, d) VALUES (?, ?, '1970-01-03'), (1, 2, NULL)";
    assert_eq!(
        bound(insert, &[Value::Integer(9), Value::Integer(1)]).unwrap(),
        "[1, 'x', 9, 2, NULL] [2, 'x', 1, NULL, NULL]"
    );
    assert_eq!(bound(insert, &[Value::Null, Value::Integer(1)]), Err(Code::NullViolation));
    assert_eq!(bound(insert, &[Value::Text("a".into()), Value::Integer(1)]), Err(Code::WrongType));
    assert_eq!(bound(insert, &[Value::Integer(1 << 40), Value::Integer(1)]), Err(Code::ValueOutOfRange));
}

#[test]
fn updates_are_the_hosts_operations() {
    let update = "UPDATE t SET n = n - ?, name = 'ab' WHERE id = ?";
    // Field 1 is the bucket, so column 0 is field 2.
    assert_eq!(bound(update, &[Value::Integer(2), Value::Integer(1)]).unwrap(), "[1] [['-', 4, 2], ['=', 3, 'ab']]");
    assert_eq!(bound(update, &[Value::Null, Value::Integer(1)]).unwrap(), "engine");
    assert_eq!(
        bound("UPDATE t SET name = ? WHERE id = 1", &[Value::Text("too long".into())]),
        Err(Code::ValueOutOfRange)
    );
    assert_eq!(bound("UPDATE t SET name = ? WHERE id = 1", &[Value::Null]), Err(Code::NullViolation));
}

#[test]
fn rows_are_filtered_and_shown() {
    let plan = plan("SELECT d AS day, id FROM t WHERE id = 1 AND m > ? AND name = 'ab'").unwrap();
    let (mut raw, mut bound) = (Vec::new(), BoundPlan::default());
    Value::Array(vec![Value::Integer(5)]).write_shown(&mut raw);
    assert_eq!(plan.bind(&raw, &RowWriter::new(&plan.layout, 3000), &mut bound).unwrap(), Outcome::Ready);
    let row = |m: Value, name: &str| {
        let tuple =
            [Value::Integer(17), Value::Integer(1), Value::Text(name.into()), Value::Integer(0), Value::Date(0), m];
        let (mut stored, mut out) = (Vec::new(), Vec::new());
        Value::Array(tuple.to_vec()).write_stored(&mut stored);
        plan.write_row(&bound, &stored, &mut out).unwrap().then(|| Reader::new(&out).value().unwrap().to_string())
    };
    assert_eq!(row(Value::Integer(6), "ab").as_deref(), Some("['1970-01-01', 1]"));
    assert_eq!(row(Value::Integer(5), "ab"), None);
    assert_eq!(row(Value::Null, "ab"), None);
    assert_eq!(row(Value::Integer(6), "b"), None);
    let Value::Array(metadata) = ({
        // Maps are no values: read the names by hand.
        let mut reader = Reader::new(plan.metadata().unwrap());
        let columns = (0..reader.array_len().unwrap()).map(|_| {
            reader.map_len().unwrap();
            let texts: Vec<&str> = (0..4).map(|_| reader.str().unwrap()).collect();
            Value::Text(format!("{} {}", texts[1], texts[3]))
        });
        Value::Array(columns.collect())
    }) else {
        panic!()
    };
    assert_eq!(metadata, [Value::Text("day date".into()), Value::Text("id bigint".into())]);
}
