//! `picodata.sql` and what other instances ask for it.
//!
//! A statement that touches a key or a few is compiled once and runs on the fiber it came in (`point`). Everything else
//! crosses to the worker threads, which reach the cluster through `cluster`, `scans` and `fragments`.

mod arguments;
mod cluster;
mod estimates;
mod fragments;
mod moments;
mod point;
mod running;
mod scans;
pub mod schema;

use crate::bridge;
use crate::host::{Call, Deadline, door};
use crate::node::{self, Node};
use crate::router;
use arguments::Arguments;
use catalog::{Setting, State};
use cluster::ModuleCluster;
use model::msgpack::Reader;
use model::{Code, Error, Result, Value};
use running::{Running, outcome_of_unfinished};
use sql::cluster::Cluster;
use sql::engine::Engine;
use sql::front::bridge::{EngineQueries, QueryBounds};
use sql::front::{Executor, Limits, PointPlan, StatementCache, Within, is_simple, parse};
use sql::stop::Stop;
use std::cell::RefCell;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

/// Statements whose compiled form is kept on the tx thread, and the bytes of their texts.
const STATEMENTS_MAX: usize = 4_096;
const STATEMENT_BYTES_MAX: usize = 8 << 20;
/// Memory of all queries of this instance together.
const POOL_BYTES: usize = 2 << 30;

/// What worker threads run statements with. One an instance.
pub struct Sql {
    pub engine: Arc<Engine>,
    pub executor: Executor,
    bounds: Arc<QueryBounds>,
}

static SQL: OnceLock<Sql> = OnceLock::new();

impl Sql {
    /// Errors: `NotReady` before this instance is a member.
    pub fn get() -> Result<&'static Sql> {
        let node = node::get()?;
        Ok(SQL.get_or_init(|| {
            let engine = Arc::new(Engine::new(POOL_BYTES));
            let bounds = Arc::new(QueryBounds::new(0, 0, 0));
            take_over_limits(&bounds, &node.state());
            let queries = EngineQueries { engine: Arc::clone(&engine), bounds: Arc::clone(&bounds) };
            // The settings bound results; what the executor would bound them to is above all settings.
            let limits = Limits { result_rows_max: usize::MAX, ..Limits::default() };
            let executor = Executor::new(Arc::new(queries), limits);
            Sql { engine, executor, bounds }
        }))
    }
}

thread_local! {
    /// By text and version of the tables: how to run the statement here, or None when it is the engine's.
    static STATEMENTS: RefCell<StatementCache<Option<PointPlan>>> =
        RefCell::new(StatementCache::new(STATEMENTS_MAX, STATEMENT_BYTES_MAX));
}

/// Opens the doors.
pub fn open() {
    door::register("picodata.sql", serve);
    door::register("picodata.queries", running::serve_list);
    door::register("picodata.cancel", running::serve_cancel);
    door::register(running::LIST_DOOR, running::serve_peer_list);
    door::register(running::CANCEL_DOOR, running::serve_peer_cancel);
    door::register(fragments::DOOR, fragments::serve);
    door::register(fragments::NEXT_DOOR, fragments::serve_next);
    door::register(fragments::CANCEL_DOOR, fragments::serve_cancel);
    door::register(estimates::DOOR, estimates::serve);
    door::register(moments::END_DOOR, moments::serve_end);
}

/// The catalog changed. Called on the tx thread.
pub fn on_change(node: &Node, state: &Arc<State>) {
    schema::publish(state, &node.me.name);
    if let Some(sql) = SQL.get() {
        take_over_limits(&sql.bounds, state);
    }
}

fn take_over_limits(bounds: &QueryBounds, state: &State) {
    let settings = &state.settings;
    bounds.rows_max.store(settings.count(Setting::SqlRowsMax), Ordering::Relaxed);
    bounds.memory_bytes_max.store(settings.count(Setting::SqlMemoryMaxMb) << 20, Ordering::Relaxed);
    bounds.places.resize(settings.count(Setting::SqlConcurrentMax));
}

/// `picodata.sql(text[, params[, opts]])`.
pub fn serve(call: &mut Call<'_>) -> Result<()> {
    let bytes = call.copy();
    let arguments = Arguments::read(&bytes)?;
    let sql = Sql::get()?;
    let deadline = Deadline::after(arguments.timeout);
    let mut out = Vec::new();
    if !run_as_point(&arguments, deadline, &mut out)? {
        out.clear();
        out = run_on_threads(sql, &arguments, deadline)?;
    }
    call.reply(&out)
}

/// Runs the statement here if it is one on a key or a few; false when it is not.
fn run_as_point(arguments: &Arguments<'_>, deadline: Deadline, out: &mut Vec<u8>) -> Result<bool> {
    let snapshot = router::get()?.snapshot();
    let Some(statement) = point_plan(arguments.text, snapshot.schema_version) else { return Ok(false) };
    match &*statement {
        Some(plan) => point::execute(plan, &snapshot, arguments.params, deadline, out),
        None => Ok(false),
    }
}

/// The compiled form of a text; None when it is too nested to be looked at on this stack.
fn point_plan(text: &str, version: u64) -> Option<Arc<Option<PointPlan>>> {
    if let Some(known) = STATEMENTS.with_borrow_mut(|statements| statements.get(text, version).cloned()) {
        return Some(known);
    }
    if !is_simple(text) {
        return None;
    }
    let schema = schema::current().filter(|schema| schema.state.schema.version == version)?;
    // What is wrong with the text is said by the worker thread.
    let plan = parse(text).ok().and_then(|parsed| sql::front::point::recognise(&parsed, &*schema));
    let plan = Arc::new(plan);
    STATEMENTS.with_borrow_mut(|statements| statements.insert(text, version, Arc::clone(&plan)));
    Some(plan)
}

fn run_on_threads(sql: &'static Sql, arguments: &Arguments<'_>, deadline: Deadline) -> Result<Vec<u8>> {
    estimates::refresh(deadline)?;
    let params = match arguments.params {
        [] => Vec::new(),
        bytes => match Reader::new(bytes).value()? {
            Value::Array(values) => values,
            _ => return Err(Error::new(Code::Argument, "the parameters of picodata.sql are an array")),
        },
    };
    let (text, params): (Arc<str>, Arc<[Value]>) = (arguments.text.into(), params.into());
    let within = Within {
        deadline: deadline.instant(),
        rows_max: arguments.rows_max,
        memory_bytes_max: arguments.memory_bytes_max,
        began_writing: Arc::default(),
        stop: Stop::default(),
    };
    let stop = within.stop.clone();
    let began_writing = Arc::clone(&within.began_writing);
    let cluster = ModuleCluster::default();
    let has_read = cluster.has_read();
    let cluster: Arc<dyn Cluster> = Arc::new(cluster);
    let (_running, work) = Running::of(arguments.text, within.deadline, stop, async move {
        let answer = sql.executor.execute(&cluster, &text, &params, &within).await?;
        let mut out = Vec::new();
        answer.write(&mut out);
        Ok(out)
    });
    let answer = bridge::run(deadline, work).and_then(|answer| has_read.settle().map(|()| answer));
    answer.map_err(|error| outcome_of_unfinished(error, &began_writing))
}
