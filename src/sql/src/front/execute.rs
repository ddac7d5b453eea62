//! One statement from its text to its answer, on a worker thread.
//!
//! In: text, parameters, a deadline. Out: rows or a count. The point path of the tx thread does not come through here;
//! a point statement that does (because its text was too long to parse there, or its parameters were for the engine) is
//! carried out like any other.

use super::cache::StatementCache;
use super::change::{ChangeLimits, Changed, Changer, InsertRows};
use super::explain;
use super::numbers;
use super::params::{substitute, wrong_count};
use super::parse::{Parsed, parse_with};
use super::point::recognise;
use super::queries::{QueryEngine, QueryRequest, ResultColumn};
use super::scan::TextLimits;
use super::schema_change;
use super::statement::{Insert, SchemaAction, SchemaStatement, Statement};
use super::transaction;
use super::views;
use crate::cluster::{Cluster, Schema};
use crate::stop::Stop;
use model::{Code, Error, Result, Value, View, msgpack};
use sqlparser::ast::Query;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Bounds on statements and their answers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub text: TextLimits,
    pub change: ChangeLimits,
    /// Rows of a result.
    pub result_rows_max: usize,
    /// Bytes of a result, as MessagePack.
    pub result_bytes_max: usize,
    /// Parsed statements that are kept, and the bytes of their texts.
    pub cache_entries_max: usize,
    pub cache_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            text: TextLimits::default(),
            change: ChangeLimits::default(),
            result_rows_max: 1_000_000,
            result_bytes_max: 256 << 20,
            cache_entries_max: 1_000,
            cache_bytes_max: 4 << 20,
        }
    }
}

/// What one call allows its statement, within what the limits and settings allow all of them.
#[derive(Clone, Debug)]
pub struct Within {
    /// The answer has to be there by then.
    pub deadline: Instant,
    /// Rows of the result.
    pub rows_max: usize,
    /// Memory of each of its queries on each instance.
    pub memory_bytes_max: usize,
    /// Set when it begins to write: from then on, whoever stops waiting does not know what was done.
    pub began_writing: Arc<AtomicBool>,
    /// Ends its queries.
    pub stop: Stop,
}

impl Within {
    /// No other bound than a deadline.
    pub fn until(deadline: Instant) -> Self {
        Self {
            deadline,
            rows_max: usize::MAX,
            memory_bytes_max: usize::MAX,
            began_writing: Arc::default(),
            stop: Stop::default(),
        }
    }
}

/// What a statement came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Rows(RowSet),
    /// Rows changed; 0 for a schema change.
    Count(u64),
    /// What the statements of a transaction came to.
    Transaction(Vec<Answer>),
}

/// A whole result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowSet {
    pub columns: Vec<ResultColumn>,
    /// Arrays of MessagePack, one a row, one after the other.
    pub rows: Vec<u8>,
    pub count: usize,
}

impl Answer {
    /// Rows changed.
    fn changed(&self) -> u64 {
        match self {
            Answer::Rows(_) => 0,
            Answer::Count(count) => *count,
            Answer::Transaction(answers) => answers.iter().map(Answer::changed).sum(),
        }
    }

    /// Appends `{metadata=[{name=, type=}, ...], rows=[...]}`, `{row_count=n}`, or for a transaction
    /// `{row_count=n, results=[...]}` with one of these for each statement.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Answer::Transaction(answers) => {
                msgpack::write_map_len(out, 2);
                msgpack::write_str(out, "row_count");
                msgpack::write_uint(out, self.changed());
                msgpack::write_str(out, "results");
                msgpack::write_array_len(out, answers.len());
                answers.iter().for_each(|answer| answer.write(out));
            }
            Answer::Count(count) => {
                msgpack::write_map_len(out, 1);
                msgpack::write_str(out, "row_count");
                msgpack::write_uint(out, *count);
            }
            Answer::Rows(set) => {
                msgpack::write_map_len(out, 2);
                msgpack::write_str(out, "metadata");
                msgpack::write_array_len(out, set.columns.len());
                for column in &set.columns {
                    msgpack::write_map_len(out, 2);
                    msgpack::write_str(out, "name");
                    msgpack::write_str(out, &column.name);
                    msgpack::write_str(out, "type");
                    msgpack::write_str(out, &column.ty);
                }
                msgpack::write_str(out, "rows");
                msgpack::write_array_len(out, set.count);
                out.extend_from_slice(&set.rows);
            }
        }
    }
}

/// Carries out statements. One serves all worker threads of an instance.
pub struct Executor {
    engine: Arc<dyn QueryEngine>,
    limits: Limits,
    /// A tree depends on its text alone, so the catalog version is left at 0.
    cache: Mutex<StatementCache<Parsed>>,
}

impl Executor {
    pub fn new(engine: Arc<dyn QueryEngine>, limits: Limits) -> Self {
        let cache = StatementCache::new(limits.cache_entries_max, limits.cache_bytes_max);
        Self { engine, limits, cache: Mutex::new(cache) }
    }

    /// Carries out one statement. This is the one place where statements are tried again: when a name is not known here,
    /// once, after this instance has caught up with the cluster; when buckets, masters, connections or tables changed under
    /// it, so that nothing of it was done, until its deadline.
    ///
    /// Errors: everything that a statement can meet; see docs/sql.md.
    pub async fn execute(
        &self,
        cluster: &Arc<dyn Cluster>,
        text: &str,
        params: &[Value],
        within: &Within,
    ) -> Result<Answer> {
        let deadline = within.deadline;
        let parsed = self.parsed(text)?;
        if parsed.params_count != params.len() {
            return Err(wrong_count(parsed.params_count, params.len()));
        }
        let run = Execution { executor: self, cluster, text, params, within, deadline };
        let (mut attempt, mut has_caught_up) = (0, false);
        loop {
            match run.statement(&parsed.statement).await {
                Err(error) if may_pass(error.code) && Instant::now() < deadline => {
                    attempt += 1;
                    cluster.wait_for_change(attempt, deadline).await?;
                }
                Err(error)
                    if is_about_names(error.code)
                        && !has_caught_up
                        && !within.began_writing.load(Ordering::Relaxed) =>
                {
                    has_caught_up = true;
                    cluster.catch_up(deadline).await?;
                }
                result => return result,
            }
        }
    }

    fn parsed(&self, text: &str) -> Result<Arc<Parsed>> {
        // The cache holds plain data: whoever panicked with the lock left it whole.
        if let Some(known) = self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(text, 0) {
            return Ok(known.clone());
        }
        let parsed = Arc::new(parse_with(text, &self.limits.text)?);
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).insert(text, 0, parsed.clone());
        Ok(parsed)
    }
}

/// Whether a statement that failed so did nothing and may find things different in a moment.
fn may_pass(code: Code) -> bool {
    matches!(code, Code::WrongBucket | Code::BucketLocked | Code::NoMaster | Code::Unreachable | Code::SchemaChanged)
}

fn is_about_names(code: Code) -> bool {
    matches!(code, Code::NoSuchTable | Code::NoSuchColumn | Code::NoSuchIndex)
}

/// One execution.
struct Execution<'a> {
    executor: &'a Executor,
    cluster: &'a Arc<dyn Cluster>,
    text: &'a str,
    params: &'a [Value],
    within: &'a Within,
    deadline: Instant,
}

impl Execution<'_> {
    async fn statement(&self, statement: &Statement) -> Result<Answer> {
        match statement {
            Statement::Query(query) => self.rows(self.bound(query).await?).await,
            Statement::Explain { analyze, statement } => self.explain(statement, *analyze).await,
            Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) => {
                let Changed { count, returned } =
                    self.changer(statement).run(statement, &self.within.began_writing).await?;
                Ok(returned.map_or(Answer::Count(count), Answer::Rows))
            }
            Statement::Schema(schema) => self.schema(schema).await,
            Statement::Transaction(statements) => {
                // Nothing of it can be tried again unseen: names are looked up before anything is sent.
                self.within.began_writing.store(true, Ordering::Relaxed);
                let run = transaction::run(statements, self.params, self.cluster, self.deadline);
                run.await.map(Answer::Transaction)
            }
        }
    }

    /// The query with values in the place of parameters, queries in the place of views, and numbers in that of `nextval`.
    async fn bound(&self, query: &Query) -> Result<Box<Query>> {
        let mut query = Box::new(query.clone());
        substitute(&mut query, self.params);
        let schema = self.cluster.schema();
        views::expand(&mut query, &*schema)?;
        numbers::settle(&mut query, &*schema, self.cluster, self.deadline).await?;
        Ok(query)
    }

    fn input(&self, query: Box<Query>) -> QueryRequest {
        QueryRequest {
            query,
            rows_max: self.executor.limits.result_rows_max.min(self.within.rows_max),
            memory_bytes_max: self.within.memory_bytes_max,
            deadline: self.deadline,
            stop: self.within.stop.clone(),
        }
    }

    fn changer(&self, statement: &Statement) -> Changer<'_> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Changer {
            now_us: i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX),
            overrides: matches!(statement, Statement::Insert(Insert { overriding: true, .. })),
            engine: &*self.executor.engine,
            cluster: self.cluster,
            text: self.text,
            params: self.params,
            limits: self.executor.limits.change,
            memory_bytes_max: self.within.memory_bytes_max,
            deadline: self.deadline,
            stop: &self.within.stop,
        }
    }

    /// The query as EXPLAIN shows it; it takes no numbers.
    fn explained(&self, query: &Query, schema: &dyn Schema) -> Result<Box<Query>> {
        let mut query = Box::new(query.clone());
        substitute(&mut query, self.params);
        views::expand(&mut query, schema)?;
        Ok(query)
    }

    async fn rows(&self, query: Box<Query>) -> Result<Answer> {
        let limits = &self.executor.limits;
        let mut stream = self.executor.engine.query(self.cluster, self.input(query)).await?;
        let (mut rows, mut count) = (Vec::new(), 0);
        while let Some(more) = stream.next_encoded(&mut rows).await? {
            count += more;
            let too_large = |what: String| {
                let error = Error::new(Code::LimitExceeded, format!("the result has more than {what}"));
                Err(error.with_hint("ask for fewer rows with WHERE or LIMIT"))
            };
            if count > limits.result_rows_max {
                return too_large(format!("{} rows", limits.result_rows_max));
            }
            if rows.len() > limits.result_bytes_max {
                return too_large(format!("{} bytes", limits.result_bytes_max));
            }
        }
        Ok(Answer::Rows(RowSet { columns: stream.columns().to_vec(), rows, count }))
    }

    async fn schema(&self, schema: &SchemaStatement) -> Result<Answer> {
        let deadline = match schema.timeout_ms {
            Some(timeout_ms) => Instant::now() + Duration::from_millis(timeout_ms),
            None => self.deadline,
        };
        let view = self.view(&schema.action).await?;
        self.within.began_writing.store(true, Ordering::Relaxed);
        schema_change::run(&schema.action, view, self.text, self.cluster, deadline).await?;
        Ok(Answer::Count(0))
    }

    /// What CREATE VIEW makes. The engine is asked for the columns: it plans the query and reads nothing.
    async fn view(&self, action: &SchemaAction) -> Result<Option<View>> {
        let SchemaAction::CreateView { name, columns, query, .. } = action else { return Ok(None) };
        if !self.params.is_empty() {
            return Err(Error::new(Code::InvalidStatement, "a view takes no parameters"));
        }
        let mut probe = views::without_rows(query)?;
        views::expand(&mut probe, &*self.cluster.schema())?;
        let stream = self.executor.engine.query(self.cluster, self.input(probe)).await?;
        views::define(name, columns, query, stream.columns()).map(Some)
    }

    /// What a statement does where, a line a row. A change is explained by the query that finds its rows.
    async fn explain(&self, statement: &Statement, analyze: bool) -> Result<Answer> {
        let schema = self.cluster.schema();
        let mut lines = Vec::new();
        let parsed = Parsed { statement: statement.clone(), params_count: self.params.len() };
        if !analyze && recognise(&parsed, &*schema).is_some() {
            lines.push(format!(
                "{} by key: straight to the masters of its buckets, without the plan below",
                statement.kind()
            ));
        }
        let query = match statement {
            Statement::Query(query) => Some(self.explained(query, &*schema)?),
            _ if analyze => {
                let message = format!("EXPLAIN ANALYZE would run the {}: it explains SELECT only", statement.kind());
                return Err(Error::new(Code::Unsupported, message).with_hint("leave ANALYZE out"));
            }
            Statement::Insert(insert) => {
                let inserted = self.changer(statement).inserted(insert, &*schema)?;
                let table = &inserted.table;
                lines.push(format!("INSERT into \"{}\": each row to the master of its bucket", table.name));
                let owners = match &inserted.rows {
                    InsertRows::Constant(rows) => explain::owners_of_rows(table, &inserted.columns, rows, &*schema),
                    InsertRows::Query { .. } => explain::all_owners(table, &*schema),
                };
                lines.push(explain::writes_to(table, &owners));
                match inserted.rows {
                    InsertRows::Constant(rows) => {
                        lines.push(format!("  {} constant rows", rows.len()));
                        None
                    }
                    InsertRows::Query { query, .. } => Some(query),
                }
            }
            other => {
                let selected = self.changer(statement).selected(other, &*schema)?;
                lines.push(format!(
                    "{} of \"{}\": by key, checked against the values read",
                    other.kind(),
                    selected.table.name
                ));
                let owners = explain::owners_of_condition(
                    &selected.table,
                    &selected.qualifier,
                    selected.selection.as_ref(),
                    &*schema,
                );
                lines.push(explain::writes_to(&selected.table, &owners));
                Some(selected.query)
            }
        };
        if let Some(mut query) = query {
            views::expand(&mut query, &*schema)?;
            lines.extend(self.executor.engine.explain(self.cluster, self.input(query), analyze).await?);
        }
        let mut rows = Vec::new();
        for line in &lines {
            msgpack::write_array_len(&mut rows, 1);
            msgpack::write_str(&mut rows, line);
        }
        let columns = vec![ResultColumn { name: "plan".into(), ty: "text".into() }];
        Ok(Answer::Rows(RowSet { columns, rows, count: lines.len() }))
    }
}
