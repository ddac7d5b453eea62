//! A client of a cluster in memory: each statement is asked of the next node, as the module would run it.

use super::{FragmentRunner, MemoryCluster, point};
use crate::cluster::{Cluster, Frames};
use crate::engine::Engine;
use crate::front::bridge::{EngineQueries, QueryBounds};
use crate::front::{Answer, Executor, Limits, Within};
use crate::stop::Stop;
use model::{Result, Value};
use std::sync::Arc;
use std::time::{Duration, Instant};

const MEMORY_BYTES_MAX: usize = 512 << 20;
const QUERIES_MAX: usize = 16;
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

pub struct Session {
    pub cluster: MemoryCluster,
    nodes: Vec<Arc<dyn Cluster>>,
    executor: Executor,
    point_path: bool,
}

impl Session {
    /// A new cluster without tables. Without `point_path` the engine runs everything.
    pub fn new(replicasets: usize, point_path: bool) -> Session {
        let engine = Arc::new(Engine::new(MEMORY_BYTES_MAX));
        let runner: FragmentRunner = {
            let engine = engine.clone();
            Arc::new(move |cluster, request| {
                let engine = engine.clone();
                Box::pin(async move {
                    let frames: Box<dyn Frames> =
                        Box::new(engine.run_fragment(cluster, request, Stop::default()).await?);
                    Ok(frames)
                })
            })
        };
        let cluster = MemoryCluster::new(replicasets).with_runner(runner);
        let bounds = QueryBounds::new(usize::MAX, MEMORY_BYTES_MAX, QUERIES_MAX);
        let queries = EngineQueries { engine, bounds: Arc::new(bounds) };
        let nodes = (0..replicasets).map(|at| cluster.node(at)).collect();
        Session { nodes, cluster, executor: Executor::new(Arc::new(queries), Limits::default()), point_path }
    }

    /// Runs a statement; `number` says on which node. On a worker thread: planning needs a deep stack.
    ///
    /// Errors: the statement's.
    pub async fn run(&self, number: usize, text: &str) -> Result<Answer> {
        let deadline = Instant::now() + STATEMENT_TIMEOUT;
        let params: [Value; 0] = [];
        if self.point_path
            && let Some(answer) = point::run(&self.cluster, text, &params, deadline).await?
        {
            return Ok(answer);
        }
        let within = Within::until(deadline);
        self.executor.execute(&self.nodes[number % self.nodes.len()], text, &params, &within).await
    }
}
