//! What texts mean, which are refused and how, and that no text does harm.

use super::statement::{InsertSource, OnConflict, SchemaAction};
use super::*;
use model::{Code, ColumnType, Distribution, Engine, Table, Value};
use proptest::prelude::*;

fn statement(text: &str) -> Statement {
    parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).statement
}

fn refused(text: &str) -> model::Error {
    match parse(text) {
        Ok(parsed) => panic!("{text} was parsed: {parsed:?}"),
        Err(error) => error,
    }
}

fn created(text: &str) -> Table {
    match statement(text) {
        Statement::Schema(schema) => match schema.action {
            SchemaAction::CreateTable { table, .. } => table,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn create_table_has_all_its_clauses() {
    let table = created(
        r#"CREATE TABLE IF NOT EXISTS Flights (
            id BIGINT, "Carrier" CHARACTER VARYING(2) NOT NULL DEFAULT 'AA', price NUMERIC(8, 2) DEFAULT 1.005,
            note TEXT NULL, PRIMARY KEY ("Carrier", id), CONSTRAINT by_price UNIQUE ("Carrier", price)
        ) USING vinyl DISTRIBUTED BY ("Carrier") IN TIER hot WAIT APPLIED GLOBALLY OPTION (TIMEOUT = 1.5);"#,
    );
    assert_eq!(table.name, "flights");
    assert_eq!(table.engine, Engine::Vinyl);
    assert_eq!(table.primary_key, [1, 0]);
    assert_eq!(table.distribution, Distribution::Sharded { key: vec![1], tier: "hot".into() });
    assert_eq!(table.columns[1].name, "Carrier");
    assert_eq!(table.columns[2].default.as_ref().map(Value::to_string).as_deref(), Some("1.01"));
    assert_eq!(table.columns.iter().map(|c| c.nullable).collect::<Vec<_>>(), [false, false, true, true]);
    assert_eq!((table.indexes[0].name.as_str(), &table.indexes[0].columns[..]), ("by_price", &[1, 2][..]));
}

#[test]
fn without_clauses_a_table_is_sharded_by_its_primary_key() {
    let table = created("create table t (a int primary key, b text)");
    assert_eq!(table.distribution, Distribution::Sharded { key: vec![0], tier: "default".into() });
    assert_eq!(table.engine, Engine::Memtx);
    assert_eq!(created("create table t (a int primary key) distributed globally").distribution, Distribution::Global);
}

#[test]
fn a_table_without_a_primary_key_gets_a_hidden_one() {
    let table = created("CREATE TABLE t (a INT, b TEXT) DISTRIBUTED BY (b)");
    assert_eq!((table.primary_key.as_slice(), table.visible().collect::<Vec<_>>()), (&[1, 2][..], vec![0, 1]));
    assert!(!table.columns[1].nullable && table.columns[2].hidden && table.has_hidden_key());
    assert_eq!(table.distribution, Distribution::Sharded { key: vec![1], tier: "default".into() });
}

#[test]
fn checks_are_named_as_postgresql_names_them() {
    let table = created(
        "CREATE TABLE t (a INT PRIMARY KEY CHECK (a > 0) CHECK (a < 9), b INT CONSTRAINT odd CHECK (b % 2 = 1), \
         CHECK (a < b), CHECK (b > a))",
    );
    let names: Vec<&str> = table.checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(names, ["t_a_check", "t_a_check1", "odd", "t_check", "t_check1"]);
}

#[test]
fn transactions_are_taken_apart() {
    let Statement::Transaction(statements) = statement(
        "BEGIN WORK; SELECT 'a;b'; ; DELETE FROM t WHERE a = 1; INSERT INTO t VALUES (1) ON CONFLICT DO REPLACE; END;",
    ) else {
        panic!()
    };
    assert_eq!(statements.iter().map(Statement::kind).collect::<Vec<_>>(), ["SELECT", "DELETE", "INSERT"]);
    for (text, code) in [
        ("BEGIN", Code::Unsupported),
        ("BEGIN; SELECT 1", Code::Unsupported),
        ("BEGIN SELECT 1; COMMIT", Code::Syntax),
        ("BEGIN; COMMIT; SELECT 1", Code::Syntax),
        ("BEGIN; SELECT 1; ROLLBACK", Code::Syntax),
        ("BEGIN; BEGIN; COMMIT; COMMIT", Code::Unsupported),
        ("START TRANSACTION; DROP TABLE t; COMMIT", Code::Unsupported),
    ] {
        assert_eq!(refused(text).code, code, "{text}");
    }
}

#[test]
fn schema_statements_carry_their_timeout() {
    let Statement::Schema(schema) = statement("DROP TABLE IF EXISTS t OPTION (TIMEOUT = 0.25)") else { panic!() };
    assert_eq!(schema.timeout_ms, Some(250));
    assert!(matches!(schema.action, SchemaAction::DropTable { if_exists: true, .. }));
    for (text, kind) in [
        ("CREATE UNIQUE INDEX IF NOT EXISTS i ON t USING tree (a, b ASC)", "CREATE INDEX"),
        ("DROP INDEX i ON t", "DROP INDEX"),
        ("drop index if exists i", "DROP INDEX"),
        ("TRUNCATE t", "TRUNCATE"),
        ("TRUNCATE TABLE IF EXISTS \"T\"", "TRUNCATE"),
    ] {
        assert_eq!(statement(text).kind(), kind);
    }
}

#[test]
fn every_spelling_of_a_type_is_understood() {
    use ColumnType as T;
    let decimal = |precision, scale| T::Decimal { precision, scale };
    for (spelling, ty) in [
        ("BOOL", T::Boolean),
        ("SMALLINT", T::SmallInt),
        ("INT2", T::SmallInt),
        ("INT", T::Integer),
        ("INTEGER", T::Integer),
        ("INT4", T::Integer),
        ("BIGINT", T::BigInt),
        ("INT8", T::BigInt),
        ("UNSIGNED", T::Unsigned),
        ("REAL", T::Real),
        ("FLOAT4", T::Real),
        ("FLOAT(24)", T::Real),
        ("FLOAT(25)", T::Double),
        ("FLOAT", T::Double),
        ("FLOAT8", T::Double),
        ("DOUBLE", T::Double),
        ("DOUBLE PRECISION", T::Double),
        ("NUMERIC", decimal(38, 10)),
        ("NUMERIC(5)", decimal(5, 0)),
        ("DECIMAL(10,2)", decimal(10, 2)),
        ("DEC(4,4)", decimal(4, 4)),
        ("CHAR", T::Char { length: 1 }),
        ("CHARACTER(3)", T::Char { length: 3 }),
        ("CHAR(3)", T::Char { length: 3 }),
        ("VARCHAR", T::Text),
        ("VARCHAR(9)", T::Varchar { length: 9 }),
        ("CHAR VARYING(9)", T::Varchar { length: 9 }),
        ("CHARACTER VARYING(9)", T::Varchar { length: 9 }),
        ("TEXT", T::Text),
        ("STRING", T::Text),
        ("CLOB", T::Text),
        ("BYTEA", T::Varbinary),
        ("VARBINARY", T::Varbinary),
        ("BLOB", T::Varbinary),
        ("UUID", T::Uuid),
        ("DATE", T::Date),
        ("TIME", T::Time),
        ("TIME WITHOUT TIME ZONE", T::Time),
        ("TIMESTAMP", T::Timestamp),
        ("TIMESTAMP(6)", T::Timestamp),
        ("TIMESTAMP WITHOUT TIME ZONE", T::Timestamp),
        ("TIMESTAMPTZ", T::TimestampTz),
        ("TIMESTAMP WITH TIME ZONE", T::TimestampTz),
        ("JSON", T::Json),
        ("JSONB", T::Json),
    ] {
        assert_eq!(
            created(&format!("CREATE TABLE t (k INT PRIMARY KEY, c {spelling})")).columns[1].ty,
            ty,
            "{spelling}"
        );
    }
}

#[test]
fn bad_definitions_are_refused_by_name() {
    let table = |rest: &str| format!("CREATE TABLE t (a INT PRIMARY KEY, {rest}");
    for (text, code, what) in [
        ("CREATE TABLE t (a INT NULL) DISTRIBUTED BY (a)".into(), Code::InvalidStatement, "can not be NULL"),
        ("CREATE TABLE t".into(), Code::Syntax, "columns in parentheses"),
        (
            "CREATE TABLE t (a INT PRIMARY KEY, b INT PRIMARY KEY)".into(),
            Code::InvalidStatement,
            "more than one primary key",
        ),
        ("CREATE TABLE t (a INT NULL PRIMARY KEY)".into(), Code::InvalidStatement, "can not be NULL"),
        (table("a INT)"), Code::InvalidStatement, "named twice"),
        (table("b INTERVAL)"), Code::Unsupported, "INTERVAL"),
        (table("b INT[])"), Code::Unsupported, "INT[]"),
        (table("b strng)"), Code::InvalidStatement, "no type \"strng\""),
        (table("b DECIMAL(39,1))"), Code::InvalidStatement, "from 1 to 38"),
        (table("b DECIMAL(3,4))"), Code::InvalidStatement, "the scale"),
        (table("b VARCHAR(0))"), Code::InvalidStatement, "from 1 to"),
        (table("b FLOAT(54))"), Code::InvalidStatement, "1 to 53"),
        (table("b TIMESTAMP(3))"), Code::Unsupported, "TIMESTAMP(3)"),
        (table("b INT DEFAULT 'x')"), Code::WrongType, "column \"b\""),
        (table("b SMALLINT DEFAULT 70000)"), Code::ValueOutOfRange, "70000"),
        (table("b INT UNIQUE)"), Code::InvalidStatement, "sharding key"),
        (table("b INT REFERENCES u (a))"), Code::Unsupported, "foreign keys"),
        (table("b INT) DISTRIBUTED BY (b)"), Code::InvalidStatement, "not part of the primary key"),
        (table("b INT) DISTRIBUTED BY (aa)"), Code::NoSuchColumn, "no column \"aa\""),
        (table("b INT) DISTRIBUTED"), Code::Syntax, "GLOBALLY"),
        (table("b INT) USING rocksdb"), Code::Syntax, "memtx or vinyl"),
        (table("b INT) USING memtx USING vinyl"), Code::Syntax, "twice"),
        (table("b INT) OPTION (TIMEOUT = 0)"), Code::InvalidStatement, "TIMEOUT"),
        (table("b INT) WITH (x = 1)"), Code::InvalidStatement, "no option \"x\""),
        (table("b INT) WITH (durability = 'sometimes')"), Code::InvalidStatement, "'sometimes' is no durability"),
        (table("b INT) WITH (durability = 'local', x = 1)"), Code::InvalidStatement, "one too many"),
        ("CREATE INDEX i ON t (lower(a))".into(), Code::Unsupported, "lower(a)"),
        ("CREATE INDEX i ON t (a DESC)".into(), Code::Unsupported, "DESC"),
        ("CREATE INDEX i ON t USING hash (a)".into(), Code::Unsupported, "USING TREE"),
        ("DROP TABLE a, b".into(), Code::Unsupported, "several"),
    ] {
        let error = refused(&text);
        assert_eq!(error.code, code, "{text}: {error}");
        assert!(error.to_string().contains(what), "{text}: {error}");
    }
}

#[test]
fn changes_are_taken_over_whole() {
    let Statement::Insert(insert) =
        statement("INSERT INTO T (A, b) VALUES (?, DEFAULT), (1, 2) ON CONFLICT (a) DO REPLACE")
    else {
        panic!()
    };
    assert_eq!(insert.table.text, "t");
    assert_eq!(insert.on_conflict, OnConflict::Replace);
    assert_eq!(insert.conflict_target.unwrap().len(), 1);
    let InsertSource::Values(rows) = insert.source else { panic!() };
    assert!(rows[0][0].is_some() && rows[0][1].is_none());
    let Statement::Insert(insert) = statement("INSERT INTO t SELECT * FROM u ON CONFLICT DO NOTHING") else { panic!() };
    assert_eq!((insert.on_conflict, insert.columns), (OnConflict::Skip, None));
    let Statement::Update(update) = statement("UPDATE t AS x SET a = 1, b = DEFAULT WHERE x.c = 2") else { panic!() };
    assert_eq!(update.alias.unwrap().text, "x");
    assert!(update.assignments[1].1.is_none());
    let Statement::Delete(delete) = statement("DELETE FROM t") else { panic!() };
    assert_eq!(delete.selection, None);
    let Statement::Explain { analyze, statement: inner } = statement("EXPLAIN (ANALYZE) DELETE FROM t") else {
        panic!()
    };
    assert_eq!((analyze, inner.kind()), (true, "DELETE"));
}

#[test]
fn what_we_do_not_have_says_so() {
    for text in [
        "INSERT INTO t VALUES (1) ON CONFLICT ON CONSTRAINT c DO NOTHING",
        "BEGIN",
        "SHOW TABLES",
        "GRANT ALL ON t TO u",
        "SELECT * FROM s.t; SELECT 1",
        "INSERT INTO s.t VALUES (1)",
        "MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE",
    ] {
        let code = refused(text).code;
        let expected = if text.contains(';') { Code::Syntax } else { Code::Unsupported };
        assert_eq!(code, expected, "{text}");
    }
}

#[test]
fn syntax_errors_show_the_place() {
    for (text, place) in [
        ("SELECT * FORM t", "line 1, column 15"),
        ("SELECT *\nFROM t WHERE", "line 2, column 13"),
        ("SELECT 'abc", "line 1, column 8"),
        ("SELEC 1", "line 1, column 1"),
        ("SELECT 1; SELECT 2", "line 1, column 11"),
        ("INSERT INTO t VALUES (1", "line 1, column 24"),
        ("DROP TABLE", "line 1, column 11"),
        ("EXPLAIN EXPLAIN SELECT 1", "line 1, column 9"),
    ] {
        let error = refused(text);
        assert_eq!(error.code, Code::Syntax, "{text}: {error}");
        assert!(error.message.contains(place), "{text}: {error}");
        assert!(error.message.contains('^'), "{text}: {error}");
    }
    assert_eq!(refused("SELEC 1").hint.as_deref(), Some("did you mean SELECT?"));
    for text in ["", "  ", ";", "-- nothing"] {
        assert_eq!(refused(text).code, Code::Syntax);
    }
}

#[test]
fn deep_and_long_texts_end_in_an_answer_or_a_clear_error() {
    let nested = |depth: usize| format!("SELECT {}1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&nested(30)).is_ok());
    assert_eq!(refused(&nested(100)).code, Code::LimitExceeded);
    assert_eq!(refused(&nested(500)).code, Code::LimitExceeded);
    assert!(parse(&format!("SELECT * FROM t WHERE a = 0{}", " OR a = 1".repeat(10_000))).is_ok());
    assert!(parse(&format!("SELECT * FROM t WHERE a = 0{}", " AND a = 1 OR b = 2".repeat(9_000))).is_ok());
    assert!(parse(&format!("SELECT 1{}", " + 1".repeat(4_000))).is_ok());
    assert!(parse(&format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(1_000))).is_ok());
    // A partial tree is dropped when the text ends badly.
    assert_eq!(refused(&format!("SELECT * FROM t WHERE a = 0{} OR", " OR a = 1".repeat(19_000))).code, Code::Syntax);
    // What the parser reads in two ways would take it years; these end at once.
    for text in ["SELECT * FROM (", "SELECT position(", "SELECT interval ", "(SELECT * FROM (("] {
        assert_eq!(refused(&text.repeat(40)).code, Code::LimitExceeded, "{text}");
    }
    for text in ["CASE WHEN a THEN ", "CAST(", "f(", "ARRAY[", "current_date(", "extract(", "NOT "] {
        let code = refused(&format!("SELECT {}", text.repeat(45))).code;
        assert!(matches!(code, Code::Syntax | Code::LimitExceeded), "{text}");
    }
}

#[test]
fn long_chains_become_shallow() {
    let Statement::Query(query) = statement(&format!("SELECT * FROM t WHERE a = 0{}", " OR a = 1".repeat(9_999)))
    else {
        panic!()
    };
    let sqlparser::ast::SetExpr::Select(select) = *query.body else { panic!() };
    fn depth(expr: &sqlparser::ast::Expr) -> usize {
        match expr {
            sqlparser::ast::Expr::BinaryOp { left, right, .. } => 1 + depth(left).max(depth(right)),
            _ => 0,
        }
    }
    assert_eq!(depth(&select.selection.unwrap()), 15);
}

/// Words and signs that statements are made of.
const VOCABULARY: &str = r#"SELECT FROM WHERE INSERT INTO VALUES UPDATE SET DELETE AND OR NOT NULL IN IS BETWEEN LIKE CASE
    WHEN THEN ELSE END UNION ALL EXCEPT JOIN ON LEFT USING GROUP BY ORDER LIMIT WITH AS CREATE TABLE INDEX DROP EXPLAIN
    ANALYZE DISTRIBUTED GLOBALLY PRIMARY KEY INT TEXT DEFAULT CONFLICT DO NOTHING REPLACE EXISTS CAST INTERVAL DATE ARRAY OVER
    PARTITION POSITION t a b "Q" 'x' 1 - 1.5 ? $1 ( ) , . * = < > || :: [ ] + / ; ' " -- /* */ E'\ $$ X' U&' @ #"#;

fn vocabulary() -> impl Strategy<Value = String> {
    let words: Vec<&str> = VOCABULARY.split_whitespace().chain(["\n"]).collect();
    proptest::collection::vec(proptest::sample::select(words), 0..40).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_parsed_or_refused(text in any::<String>()) {
        let _ = parse(&text);
    }

    #[test]
    fn any_words_are_parsed_or_refused(text in vocabulary()) {
        let _ = parse(&text);
    }

    #[test]
    fn mutated_statements_are_parsed_or_refused(at in 0usize..200, insert in vocabulary(), cut in 0usize..20) {
        let text = "INSERT INTO t (a, b) SELECT x.a, CASE WHEN y.b > 1.5 THEN 'p' ELSE NULL END FROM x JOIN y ON x.a = y.a \
                    WHERE x.c IN (1, 2) GROUP BY x.a HAVING count(*) > ? ORDER BY 1 LIMIT 3 ON CONFLICT DO NOTHING";
        let at = at.min(text.len());
        let after = (at + cut).min(text.len());
        let _ = parse(&format!("{}{insert}{}", &text[..at], &text[after..]));
    }

    #[test]
    fn simple_texts_are_what_they_seem(text in vocabulary()) {
        if is_simple(&text) && let Ok(parsed) = parse(&text) {
            prop_assert!(matches!(parsed.statement, Statement::Query(_) | Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_)));
        }
    }
}
