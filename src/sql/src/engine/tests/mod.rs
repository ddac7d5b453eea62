//! The engine over clusters in memory: the same tables on one, two and three replicasets, and once more as global tables,
//! where the query engine works alone. All four have to agree.

mod answers;
mod bounds;
mod faults;
mod functions;
mod plans;
mod random;
mod speed;

use super::{Engine, Limits, QueryInput, QueryOutput, runtime};
use crate::cluster::{Cluster, Frames};
use crate::stop::Stop;
use crate::testing::{MemoryCluster, TableBuilder};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::FutureExt;
use model::{ColumnType, Distribution, Result, Table, Value};
use sqlparser::ast::{Query, Statement};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// One pool of deep threads for all tests.
pub fn threads() -> &'static Runtime {
    static THREADS: OnceLock<Runtime> = OnceLock::new();
    THREADS.get_or_init(|| runtime(2).unwrap())
}

/// A cluster in memory with an engine that answers its fragments.
pub struct Fixture {
    pub cluster: MemoryCluster,
    pub engine: Arc<Engine>,
}

impl Fixture {
    pub fn new(replicasets: usize) -> Self {
        let engine = Arc::new(Engine::new(256 << 20));
        let storage = engine.clone();
        let runner = move |cluster: Arc<dyn Cluster>, request: Vec<u8>| {
            let engine = storage.clone();
            async move { Ok(Box::new(engine.run_fragment(cluster, request, Stop::default()).await?) as Box<dyn Frames>) }.boxed()
        };
        Self { cluster: MemoryCluster::new(replicasets).with_runner(Arc::new(runner)), engine }
    }

    /// With the tables of `tables`.
    pub fn filled(replicasets: usize) -> Self {
        let fixture = Self::new(replicasets);
        tables().into_iter().for_each(|(table, rows)| fixture.cluster.create(table, rows));
        fixture
    }

    /// With the same tables, all global: the oracle.
    pub fn oracle() -> Self {
        let fixture = Self::new(1);
        for (mut table, rows) in tables() {
            table.distribution = Distribution::Global;
            fixture.cluster.create(table, rows);
        }
        fixture
    }

    pub fn run_at(&self, node: usize, input: QueryInput) -> Result<QueryOutput> {
        let (engine, cluster) = (self.engine.clone(), self.cluster.node(node));
        threads().block_on(async { threads().spawn(async move { engine.query(cluster, input).await }).await.unwrap() })
    }

    pub fn run(&self, sql: &str) -> Result<QueryOutput> {
        self.run_at(0, input(sql))
    }

    pub fn explain(&self, sql: &str) -> Vec<String> {
        let (engine, cluster, input) = (self.engine.clone(), self.cluster.node(0), input(sql));
        let explain = async move { engine.explain(cluster, input).await };
        threads().block_on(async { threads().spawn(explain).await.unwrap() }).unwrap()
    }
}

pub fn parse(sql: &str) -> Query {
    let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap();
    match statements.pop() {
        Some(Statement::Query(query)) => *query,
        other => panic!("not a query: {other:?}"),
    }
}

pub fn limits() -> Limits {
    Limits { rows_max: 100_000, memory_bytes_max: 128 << 20, deadline: Instant::now() + Duration::from_secs(60) }
}

pub fn input(sql: &str) -> QueryInput {
    QueryInput { query: parse(sql), params: Vec::new(), limits: limits(), stop: Stop::default() }
}

pub fn shown(output: &QueryOutput) -> Vec<Vec<String>> {
    let options = FormatOptions::new().with_null("NULL");
    let mut rows = Vec::new();
    for batch in &output.batches {
        let columns: Vec<ArrayFormatter<'_>> =
            batch.columns().iter().map(|array| ArrayFormatter::try_new(array, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            rows.push(columns.iter().map(|column| column.value(row).to_string()).collect());
        }
    }
    rows
}

/// A cheap hash, so that test data needs no seed of the system.
fn scramble(n: i64) -> i64 {
    (n.wrapping_mul(2_654_435_761) >> 7).rem_euclid(1009)
}

/// Test data: items and orders sharded by their ids, lines and shipments with their order, tags elsewhere, kinds and
/// rates global, one table empty. NULLs wherever a column may have them.
pub fn tables() -> Vec<(Table, Vec<Vec<Value>>)> {
    use ColumnType as T;
    let int = Value::Integer;
    let text = |s: String| Value::Text(s);
    let null_every = |n: i64, every: i64, value: Value| if n % every == 0 { Value::Null } else { value };
    let item = TableBuilder::new("item")
        .key("id", T::BigInt)
        .column("kind", T::Integer)
        .column("price", T::Decimal { precision: 12, scale: 2 })
        .column("name", T::Text)
        .column("weight", T::Double)
        .index("item_kind", &["kind"], false)
        .sharded(&["id"])
        .build();
    let items = (1..=240).map(|n| {
        vec![
            int(n),
            null_every(n, 11, int(scramble(n) % 7)),
            null_every(n, 13, Value::Decimal(model::Decimal::new(i128::from(scramble(n) * 25), 2))),
            null_every(n, 17, text(format!("item {} of a longer name", scramble(n) % 50))),
            null_every(n, 19, Value::Double(scramble(n) as f64 / 8.0)),
        ]
    });
    let line = TableBuilder::new("line")
        .key("order_id", T::BigInt)
        .key("no", T::Integer)
        .column("item_id", T::BigInt)
        .column("quantity", T::Integer)
        .sharded(&["order_id"])
        .build();
    let lines = (1..=120).flat_map(|order| {
        (1..=1 + order % 4).map(move |no| {
            let n = order * 10 + no;
            vec![int(order), int(no), null_every(n, 9, int(scramble(n) % 260)), int(scramble(n) % 20)]
        })
    });
    let shipment = TableBuilder::new("shipment")
        .key("order_id", T::Integer)
        .column("day", T::Date)
        .column("sent_at", T::Timestamp)
        .sharded(&["order_id"])
        .build();
    let shipments = (1..=150).filter(|n| n % 3 > 0).map(|n| {
        let day = null_every(n, 10, Value::Date(15_706 + n));
        vec![int(n), day, Value::Timestamp(1_357_000_000_000_000 + n * 3_600_000_000)]
    });
    let tag = TableBuilder::new("tag")
        .key("word", T::Varchar { length: 20 })
        .column("kind", T::SmallInt)
        .column("code", T::Uuid)
        .column("good", T::Boolean)
        .sharded(&["word"])
        .build();
    let tags = (0..40).map(|n| {
        let code = Value::Uuid([n as u8; 16]);
        vec![text(format!("w{n:02}")), null_every(n, 8, int(n % 9)), code, null_every(n, 5, Value::Boolean(n % 2 == 0))]
    });
    let kind = TableBuilder::new("kind").key("id", T::Integer).column("label", T::Text).build();
    let kinds = (0..6).map(|n| vec![int(n), null_every(n, 4, text(format!("kind {n}")))]);
    let nothing = TableBuilder::new("nothing").key("id", T::BigInt).column("x", T::Integer).sharded(&["id"]).build();
    vec![
        (item, items.collect()),
        (line, lines.collect()),
        (shipment, shipments.collect()),
        (tag, tags.collect()),
        (kind, kinds.collect()),
        (nothing, Vec::new()),
    ]
}
