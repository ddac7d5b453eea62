//! What reading costs: a million stored tuples from memory, decoded and aggregated on one thread. Run with
//! `cargo test --release -p picodata-sql speed -- --ignored --nocapture`.

use super::{Fixture, input, threads};
use crate::cluster::{Cluster, Frames, Moment, RowChange, Scan, ScanRequest, Schema, TupleBatch};
use crate::testing::{MemoryCluster, TIER, TableBuilder, encode_tuple};
use async_trait::async_trait;
use model::{ColumnType, Decimal, ReplicasetName, Result, SchemaChange, Table, TierName, Value};

use std::sync::Arc;
use std::time::Instant;

const ROWS: i64 = 1_000_000;
const SLICE_ROWS: usize = 4096;

/// One storage whose only table is slices in memory; a scan copies them, as the host does.
struct Prepared {
    schema: Arc<dyn Schema>,
    slices: Arc<Vec<TupleBatch>>,
}

struct Slices {
    slices: Arc<Vec<TupleBatch>>,
    at: usize,
}

#[async_trait]
impl Scan for Slices {
    async fn next(&mut self) -> Result<Option<TupleBatch>> {
        self.at += 1;
        Ok(self.slices.get(self.at - 1).cloned())
    }
}

#[async_trait]
impl Cluster for Prepared {
    fn schema(&self) -> Arc<dyn Schema> {
        self.schema.clone()
    }

    fn is_master_of(&self, _: &ReplicasetName) -> bool {
        true
    }

    async fn scan(&self, _: ScanRequest, _: Arc<Moment>) -> Result<Box<dyn Scan>> {
        Ok(Box::new(Slices { slices: self.slices.clone(), at: 0 }))
    }

    async fn fragment(&self, _: &ReplicasetName, _: Vec<u8>, _: Instant) -> Result<Box<dyn Frames>> {
        unreachable!("the only replicaset is here")
    }

    async fn write(&self, _: &Arc<Table>, _: Vec<RowChange>, _: Instant) -> Result<u64> {
        unreachable!("nothing is written")
    }

    async fn change_schema(&self, _: SchemaChange, _: Instant) -> Result<()> {
        unreachable!("nothing is changed")
    }

    async fn wait_for_change(&self, _: u32, _: Instant) -> Result<()> {
        Ok(())
    }

    async fn catch_up(&self, _: Instant) -> Result<()> {
        Ok(())
    }
}

fn prepared() -> Prepared {
    let table = TableBuilder::new("t")
        .key("id", ColumnType::BigInt)
        .column("k", ColumnType::Integer)
        .column("price", ColumnType::Decimal { precision: 12, scale: 2 })
        .column("name", ColumnType::Text)
        .column("weight", ColumnType::Double)
        .sharded(&["id"])
        .build();
    let cluster = MemoryCluster::new(1);
    cluster.create(table.clone(), Vec::new());
    let mut slices = vec![TupleBatch::default()];
    for n in 0..ROWS {
        let row = [
            Value::Integer(n),
            Value::Integer(n * 7 % 5000),
            Value::Decimal(Decimal::new(i128::from(n % 100_000), 2)),
            Value::Text(format!("product {}", n % 1000)),
            Value::Double(n as f64 / 3.0),
        ];
        if slices.last().is_some_and(|slice| slice.ends.len() == SLICE_ROWS) {
            slices.push(TupleBatch::default());
        }
        let slice = slices.last_mut().unwrap();
        slice.bytes.extend(encode_tuple(&table, 1 + (n % 60) as u32, &row));
        slice.ends.push(slice.bytes.len() as u32);
    }
    let schema = cluster.node(0).schema();
    assert_eq!(schema.placement(&TierName::from(TIER)).len(), 1);
    Prepared { schema, slices: Arc::new(slices) }
}

#[test]
#[ignore = "a measurement"]
fn speed_of_a_million_tuples() {
    let cluster: Arc<dyn Cluster> = Arc::new(prepared());
    let engine = Fixture::new(1).engine;
    for sql in [
        "SELECT k % 100, count(*), sum(price), avg(price) FROM t GROUP BY k % 100",
        "SELECT k % 100, count(*), sum(weight), avg(weight) FROM t GROUP BY k % 100",
        "SELECT count(*) FROM t",
        "SELECT sum(k) FROM t",
        "SELECT sum(price) FROM t",
        "SELECT count(name) FROM t",
        "SELECT count(*) FROM t WHERE name LIKE '%9%'",
        "SELECT name, count(*) FROM t GROUP BY name",
        "SELECT id, price FROM t ORDER BY price DESC, id LIMIT 10",
    ] {
        let run = || {
            let (engine, cluster) = (engine.clone(), cluster.clone());
            let input = input(sql);
            let began = Instant::now();
            let run = async move { engine.query(cluster, input).await };
            threads().block_on(async { threads().spawn(run).await.unwrap() }).unwrap();
            began.elapsed()
        };
        let best = (0..7).map(|_| run()).min().unwrap();
        println!("{:8.1} ms  {sql}", best.as_secs_f64() * 1000.0);
    }
}

#[test]
#[ignore = "a measurement"]
fn speed_of_planning() {
    let fixture = Fixture::filled(3);
    for sql in [
        "SELECT price FROM item WHERE id = 17",
        "SELECT kind, count(*) FROM item GROUP BY kind",
        "SELECT k.label, sum(l.quantity) FROM line l JOIN item i ON l.item_id = i.id JOIN kind k ON k.id = i.kind GROUP BY k.label",
    ] {
        let time = |run: &dyn Fn()| {
            (0..50)
                .map(|_| {
                    let began = Instant::now();
                    run();
                    began.elapsed()
                })
                .min()
                .unwrap()
        };
        let explain = time(&|| drop(fixture.explain(sql)));
        let whole = time(&|| drop(fixture.run(sql).unwrap()));
        println!("plan {explain:?}, whole {whole:?}  {sql}");
    }
}
