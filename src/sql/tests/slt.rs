//! The files of test/sql, statement by statement, on clusters in memory of one, two and three replicasets, with the
//! point path and without it. The cluster tests run the same files on real instances.

use model::{Result, Value};
use sql::cluster::Cluster;
use sql::engine::{Engine, runtime};
use sql::front::bridge::{EngineQueries, QueryBounds};
use sql::front::{Answer, Executor, Limits};
use sql::testing::{FragmentRunner, MemoryCluster, point, slt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const MEMORY_BYTES_MAX: usize = 256 << 20;

struct Session {
    cluster: MemoryCluster,
    nodes: Vec<Arc<dyn Cluster>>,
    executor: Executor,
    point_path: bool,
}

impl Session {
    fn new(replicasets: usize, point_path: bool) -> Session {
        let engine = Arc::new(Engine::new(MEMORY_BYTES_MAX));
        let runner: FragmentRunner = {
            let engine = engine.clone();
            Arc::new(move |cluster, request| {
                let engine = engine.clone();
                Box::pin(async move {
                    let frames: Box<dyn sql::cluster::Frames> = Box::new(engine.run_fragment(cluster, request).await?);
                    Ok(frames)
                })
            })
        };
        let cluster = MemoryCluster::new(replicasets).with_runner(runner);
        let queries = EngineQueries {
            engine,
            bounds: Arc::new(QueryBounds { rows_max: usize::MAX.into(), memory_bytes_max: MEMORY_BYTES_MAX.into() }),
        };
        let nodes = (0..replicasets).map(|at| cluster.node(at)).collect();
        Session { nodes, cluster, executor: Executor::new(Arc::new(queries), Limits::default()), point_path }
    }

    /// Each statement is asked of another node.
    async fn run(&self, number: usize, text: &str) -> Result<Answer> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let params: [Value; 0] = [];
        if self.point_path
            && let Some(answer) = point::run(&self.cluster, text, &params, deadline).await?
        {
            return Ok(answer);
        }
        self.executor.execute(&self.nodes[number % self.nodes.len()], text, &params, deadline).await
    }
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test/sql");
    let entries = std::fs::read_dir(&folder).expect("the folder test/sql");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "slt"));
    files.sort();
    assert!(!files.is_empty(), "no files in {}", folder.display());
    files
}

/// All files on one kind of cluster; every difference is reported.
fn check(replicasets: usize, point_path: bool) {
    let runtime = runtime(2).expect("threads");
    let mut wrong = Vec::new();
    for path in files() {
        let text = std::fs::read_to_string(&path).expect("a readable file");
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let run = async move {
            let session = Session::new(replicasets, point_path);
            let mut wrong = Vec::new();
            for (number, record) in slt::records(&text).iter().enumerate() {
                let answer = session.run(number, &record.sql).await;
                if let Some(difference) = slt::difference(record, &answer) {
                    wrong.push(format!("{name}:{}\n{}\n{difference}", record.line, record.sql));
                }
            }
            assert_eq!(session.cluster.scans_open(), 0, "{name}: scans were left open");
            wrong
        };
        // On a worker thread: planning needs a deeper stack than a test has.
        wrong.extend(runtime.block_on(runtime.spawn(run)).expect("no panic"));
    }
    assert!(wrong.is_empty(), "{} records differ:\n\n{}", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn one_replicaset() {
    check(1, true);
}

#[test]
fn two_replicasets() {
    check(2, true);
}

#[test]
fn three_replicasets() {
    check(3, true);
}

#[test]
fn one_replicaset_without_the_point_path() {
    check(1, false);
}

#[test]
fn three_replicasets_without_the_point_path() {
    check(3, false);
}
