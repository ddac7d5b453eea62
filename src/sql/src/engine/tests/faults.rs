//! Storages that are silent, break off, answer nonsense or fail; readers that go away.

use super::{Fixture, input, threads};
use crate::cluster::{Cluster, Frames, Moment, RowChange, Scan, ScanRequest, Schema};
use crate::stop::Stop;
use async_trait::async_trait;
use model::{Code, Error, ReplicasetName, Result, SchemaChange, Table};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// What the other replicaset does with fragments.
#[derive(Clone, Copy)]
enum Fault {
    Silent,
    BreaksOff,
    Nonsense,
    Refuses,
    BreaksOffLate,
}

/// A node of a good cluster, whose connections are not.
struct Faulty {
    inner: Arc<dyn Cluster>,
    fault: Fault,
    open: Arc<AtomicUsize>,
    waiting: Arc<Notify>,
}

/// Frames that count themselves.
struct FaultyFrames {
    inner: Option<Box<dyn Frames>>,
    fault: Fault,
    open: Arc<AtomicUsize>,
    waiting: Arc<Notify>,
    taken: usize,
}

impl Drop for FaultyFrames {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
        self.waiting.notify_one();
    }
}

#[async_trait]
impl Frames for FaultyFrames {
    async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        self.taken += 1;
        match (self.fault, &mut self.inner) {
            (Fault::Silent, _) => {
                self.waiting.notify_one();
                std::future::pending().await
            }
            (Fault::BreaksOff, _) => Ok(None),
            (Fault::Nonsense, _) => Ok(Some(vec![1; 40])),
            (Fault::BreaksOffLate, Some(inner)) if self.taken == 1 => inner.next().await,
            (Fault::BreaksOffLate, _) => Ok(None),
            (Fault::Refuses, _) => Err(Error::new(Code::WrongBucket, "the bucket moved")),
        }
    }
}

#[async_trait]
impl Cluster for Faulty {
    fn schema(&self) -> Arc<dyn Schema> {
        self.inner.schema()
    }

    fn is_master_of(&self, replicaset: &ReplicasetName) -> bool {
        self.inner.is_master_of(replicaset)
    }

    async fn scan(&self, request: ScanRequest, moment: Arc<Moment>) -> Result<Box<dyn Scan>> {
        self.inner.scan(request, moment).await
    }

    async fn fragment(&self, to: &ReplicasetName, request: Vec<u8>, deadline: Instant) -> Result<Box<dyn Frames>> {
        let inner = match self.fault {
            Fault::BreaksOffLate => Some(self.inner.fragment(to, request, deadline).await?),
            _ => None,
        };
        self.open.fetch_add(1, Ordering::SeqCst);
        let (open, waiting) = (self.open.clone(), self.waiting.clone());
        Ok(Box::new(FaultyFrames { inner, fault: self.fault, open, waiting, taken: 0 }))
    }

    async fn write(&self, table: &Arc<Table>, changes: Vec<RowChange>, deadline: Instant) -> Result<u64> {
        self.inner.write(table, changes, deadline).await
    }

    async fn change_schema(&self, change: SchemaChange, deadline: Instant) -> Result<()> {
        self.inner.change_schema(change, deadline).await
    }

    async fn catch_up(&self, deadline: Instant) -> Result<()> {
        self.inner.catch_up(deadline).await
    }

    async fn wait_for_change(&self, attempt: u32, deadline: Instant) -> Result<()> {
        self.inner.wait_for_change(attempt, deadline).await
    }
}

struct Scene {
    fixture: Fixture,
    cluster: Arc<dyn Cluster>,
    open: Arc<AtomicUsize>,
    waiting: Arc<Notify>,
}

fn scene(fault: Fault) -> Scene {
    let fixture = Fixture::filled(2);
    let (open, waiting) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let inner = fixture.cluster.node(0);
    let cluster = Arc::new(Faulty { inner, fault, open: open.clone(), waiting: waiting.clone() });
    Scene { fixture, cluster, open, waiting }
}

impl Scene {
    fn run(&self, sql: &str, time: Duration) -> Result<usize> {
        let mut input = input(sql);
        input.limits.deadline = Instant::now() + time;
        let (engine, cluster) = (self.fixture.engine.clone(), self.cluster.clone());
        let run = async move { engine.query(cluster, input).await.map(|output| output.row_count()) };
        threads().block_on(async { threads().spawn(run).await.unwrap() })
    }

    /// Waits until all fragments and scans are closed: tasks end a moment after their query.
    fn assert_closed(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.open.load(Ordering::SeqCst) + self.fixture.cluster.scans_open() > 0 {
            assert!(Instant::now() < deadline, "something stays open");
            std::thread::yield_now();
        }
    }
}

const ALL: &str = "SELECT id FROM item";
const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_silent_storage_ends_in_a_timeout() {
    let scene = scene(Fault::Silent);
    for sql in [
        ALL,
        "SELECT count(*) FROM item",
        "SELECT id FROM item ORDER BY id",
        "SELECT * FROM item i JOIN tag t ON i.kind = t.kind",
    ] {
        let error = scene.run(sql, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.code, Code::Timeout, "{error}");
        scene.assert_closed();
    }
}

#[test]
fn a_query_that_nobody_waits_for_is_cancelled() {
    let scene = scene(Fault::Silent);
    let (engine, cluster) = (scene.fixture.engine.clone(), scene.cluster.clone());
    threads().block_on(async {
        let query = threads().spawn(async move { engine.query(cluster, input("SELECT id FROM item")).await });
        scene.waiting.notified().await;
        query.abort();
        assert!(query.await.unwrap_err().is_cancelled());
    });
    scene.assert_closed();
}

#[test]
fn what_breaks_is_an_error_not_fewer_rows() {
    for (fault, code) in [
        (Fault::BreaksOff, Code::Unreachable),
        (Fault::BreaksOffLate, Code::Unreachable),
        (Fault::Nonsense, Code::Argument),
        (Fault::Refuses, Code::WrongBucket),
    ] {
        let scene = scene(fault);
        for sql in [ALL, "SELECT id FROM item ORDER BY id", "SELECT kind, count(*) FROM item GROUP BY kind"] {
            let error = scene.run(sql, LONG).unwrap_err();
            assert_eq!(error.code, code, "{sql}: {error}");
            scene.assert_closed();
        }
    }
}

#[test]
fn a_fragment_of_another_schema_is_refused() {
    let fixture = Fixture::filled(2);
    let other = Fixture::new(2);
    let mut tables = super::tables();
    tables.reverse();
    tables.into_iter().for_each(|(table, rows)| other.cluster.create(table, rows));
    // The router's catalog is one, the storage's another.
    struct Crossed(Arc<dyn Cluster>, Arc<dyn Cluster>);
    #[async_trait]
    impl Cluster for Crossed {
        fn schema(&self) -> Arc<dyn Schema> {
            self.0.schema()
        }
        fn is_master_of(&self, _: &ReplicasetName) -> bool {
            false
        }
        async fn scan(&self, request: ScanRequest, moment: Arc<Moment>) -> Result<Box<dyn Scan>> {
            self.0.scan(request, moment).await
        }
        async fn fragment(&self, to: &ReplicasetName, request: Vec<u8>, by: Instant) -> Result<Box<dyn Frames>> {
            self.1.fragment(to, request, by).await
        }
        async fn write(&self, _: &Arc<Table>, _: Vec<RowChange>, _: Instant) -> Result<u64> {
            Ok(0)
        }
        async fn change_schema(&self, _: SchemaChange, _: Instant) -> Result<()> {
            Ok(())
        }
        async fn catch_up(&self, _: Instant) -> Result<()> {
            Ok(())
        }
        async fn wait_for_change(&self, _: u32, _: Instant) -> Result<()> {
            Ok(())
        }
    }
    let crossed = Arc::new(Crossed(fixture.cluster.node(0), other.cluster.node(0)));
    let engine = fixture.engine.clone();
    let run = async move { engine.query(crossed, input(ALL)).await };
    let error = threads().block_on(async { threads().spawn(run).await.unwrap() }).unwrap_err();
    assert_eq!(error.code, Code::SchemaChanged, "{error}");
}

#[test]
fn any_bytes_as_a_request_are_an_error() {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};
    let fixture = Fixture::filled(1);
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    runner
        .run(&proptest::collection::vec(any::<u8>(), 0..200), |bytes| {
            let (engine, cluster) = (fixture.engine.clone(), fixture.cluster.node(0));
            let run = async move { engine.run_fragment(cluster, bytes, Stop::default()).await.map(|_| ()) };
            prop_assert!(threads().block_on(run).is_err());
            Ok(())
        })
        .unwrap();
}
