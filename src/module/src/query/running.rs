//! The statements that this instance's worker threads carry out: what `picodata.queries` lists and `picodata.cancel` ends.
//!
//! A statement is named by its instance and a number, as `i1-17`. Statements on keys are not among them: they are over in
//! less time than it takes to name them.

use super::{Sql, fragments, moments, scans};
use crate::host::{Call, Deadline};
use crate::net::CallError;
use crate::node::{self, Node};
use crate::side_by_side::{self, Task};
use crate::storage::columns;
use boot::Address;
use catalog::{InstanceState, State};
use futures::future::{AbortHandle, Abortable};
use model::msgpack::{Reader, write_array_len, write_bool, write_double, write_map_len, write_str, write_uint};
use model::{Code, Error, Result};
use sql::stop::Stop;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

pub const LIST_DOOR: &str = "picodata.peer.queries";
pub const CANCEL_DOOR: &str = "picodata.peer.query_cancel";

/// How much of a statement's text is shown.
const SHOWN_CHARS_MAX: usize = 1_000;
/// How long another instance may take to say what it runs.
const LIST_TIMEOUT_MS: u64 = 1_000;
const CANCEL_TIMEOUT_MS: u64 = 5_000;
/// Instances that are asked at the same time.
const FIBERS_MAX: usize = 16;

static RUNNING: Mutex<BTreeMap<u64, Entry>> = Mutex::new(BTreeMap::new());
static LAST: AtomicU64 = AtomicU64::new(0);

struct Entry {
    text: String,
    began: Instant,
    deadline: Instant,
    abort: AbortHandle,
    /// For a step that goes on for long.
    stop: Stop,
}

fn running() -> MutexGuard<'static, BTreeMap<u64, Entry>> {
    // Entries are put in and taken out whole.
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A statement that can be cancelled, until this is dropped.
pub struct Running(u64);

impl Running {
    /// Lets `work` be listed, and ended by `picodata.cancel`.
    pub fn of<T, F: Future<Output = Result<T>>>(
        text: &str,
        deadline: Instant,
        stop: Stop,
        work: F,
    ) -> (Self, impl Future<Output = Result<T>> + use<T, F>) {
        let (abort, registration) = AbortHandle::new_pair();
        let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let shown = text.chars().take(SHOWN_CHARS_MAX).collect();
        running().insert(number, Entry { text: shown, began: Instant::now(), deadline, abort, stop });
        let work = Abortable::new(work, registration);
        (Self(number), async move {
            let cancelled = |_| Err(Error::new(Code::Cancelled, "the statement was cancelled"));
            work.await.unwrap_or_else(cancelled)
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let entry = running().remove(&self.0);
        entry.inspect(|entry| entry.stop.set());
    }
}

/// What is said of a statement that was not waited for to its end: once it has begun to write, nobody knows how far it came.
pub fn outcome_of_unfinished(error: Error, began_writing: &AtomicBool) -> Error {
    let is_about_waiting = matches!(error.code, Code::Timeout | Code::Cancelled);
    if !is_about_waiting || !began_writing.load(Ordering::Relaxed) {
        return error;
    }
    Error::new(Code::Unknown, format!("{}, but it had begun to write", error.message))
        .with_hint("read what became of it before trying again")
}

fn id(node: &Node, number: u64) -> String {
    format!("{}-{number}", node.me.name)
}

/// `picodata.queries()`: `{queries = {{id=, instance=, text=, seconds=, seconds_left=}, ...}, instances = {{name=,
/// fragments=, scans=, moments=, memory_bytes=, columnar_bytes=}, ...}}`, of all instances that are online. One that does not answer has a name
/// and an `error`.
pub fn serve_list(call: &mut Call<'_>) -> Result<()> {
    let node = node::get()?;
    let answers = side_by_side::run("pico_queries", FIBERS_MAX, ask_all(node, &node.state())?)?;
    let (mut queries, mut count) = (Vec::new(), 0);
    let mut instances = Vec::new();
    for (name, answer) in &answers {
        match answer.as_deref().map_err(Error::clone).and_then(|answer| split(answer, &mut queries)) {
            Ok((more, instance)) => {
                count += more;
                instances.extend_from_slice(instance);
            }
            Err(error) => {
                write_map_len(&mut instances, 2);
                write_str(&mut instances, "name");
                write_str(&mut instances, name);
                write_str(&mut instances, "error");
                write_str(&mut instances, &error.message);
            }
        }
    }
    let mut out = Vec::with_capacity(queries.len() + instances.len() + 64);
    write_map_len(&mut out, 2);
    write_str(&mut out, "queries");
    write_array_len(&mut out, count);
    out.extend_from_slice(&queries);
    write_str(&mut out, "instances");
    write_array_len(&mut out, answers.len());
    out.extend_from_slice(&instances);
    call.reply(&out)
}

type Answer = (String, Result<Vec<u8>>);

fn ask_all(node: &'static Node, state: &Arc<State>) -> Result<Vec<Task<Answer>>> {
    let mut tasks: Vec<Task<Answer>> = Vec::new();
    let online = state.topology.instances.values().filter(|instance| instance.state == InstanceState::Online);
    for instance in online {
        let name = instance.name.as_str().to_owned();
        if instance.name == node.me.name {
            tasks.push(Box::new(move || (name, list(node))));
            continue;
        }
        let address: Address = instance.address.parse()?;
        tasks.push(Box::new(move || {
            let deadline = Deadline::after_ms(LIST_TIMEOUT_MS);
            let answer = node.call(&address, LIST_DOOR, &[0x90], deadline).map_err(CallError::for_read);
            (name, answer)
        }));
    }
    Ok(tasks)
}

/// Appends the queries of an instance's answer, and gives their number and what it says of itself.
fn split<'a>(answer: &'a [u8], queries: &mut Vec<u8>) -> Result<(usize, &'a [u8])> {
    let mut reader = Reader::new(answer);
    reader.array_len()?;
    let count = reader.array_len()?;
    for _ in 0..count {
        queries.extend_from_slice(reader.raw()?);
    }
    Ok((count, reader.raw()?))
}

/// `picodata.peer.queries()`: `[[query, ...], instance]`, of this instance.
pub fn serve_peer_list(call: &mut Call<'_>) -> Result<()> {
    let answer = list(node::get()?)?;
    call.reply(&answer)
}

fn list(node: &Node) -> Result<Vec<u8>> {
    let name = node.me.name.as_str();
    let mut out = Vec::new();
    write_array_len(&mut out, 2);
    {
        let running = running();
        write_array_len(&mut out, running.len());
        for (number, entry) in running.iter() {
            write_map_len(&mut out, 5);
            write_str(&mut out, "id");
            write_str(&mut out, &id(node, *number));
            write_str(&mut out, "instance");
            write_str(&mut out, name);
            write_str(&mut out, "text");
            write_str(&mut out, &entry.text);
            write_str(&mut out, "seconds");
            write_double(&mut out, entry.began.elapsed().as_secs_f64());
            write_str(&mut out, "seconds_left");
            write_double(&mut out, entry.deadline.saturating_duration_since(Instant::now()).as_secs_f64());
        }
    }
    write_map_len(&mut out, 6);
    write_str(&mut out, "name");
    write_str(&mut out, name);
    let numbers = [
        ("fragments", fragments::count()),
        ("scans", scans::count()),
        ("moments", moments::count()),
        ("memory_bytes", Sql::get()?.engine.memory_bytes()),
        ("columnar_bytes", columns::bytes()),
    ];
    for (name, number) in numbers {
        write_str(&mut out, name);
        write_uint(&mut out, number as u64);
    }
    Ok(out)
}

/// `picodata.cancel(id)`: true, or false when no such query runs.
pub fn serve_cancel(call: &mut Call<'_>) -> Result<()> {
    let bytes = call.copy();
    let (instance, number) = named(&bytes)?;
    let node = node::get()?;
    let was_running = if instance == node.me.name.as_str() {
        cancel(number)
    } else {
        let address: Address = node.state().topology.instance(&instance.into())?.address.parse()?;
        let mut args = Vec::new();
        write_array_len(&mut args, 1);
        write_uint(&mut args, number);
        let deadline = Deadline::after_ms(CANCEL_TIMEOUT_MS);
        let answer = node.call(&address, CANCEL_DOOR, &args, deadline).map_err(CallError::for_read)?;
        Reader::new(&answer).bool()?
    };
    reply(call, was_running)
}

/// The instance and the number in an id.
fn named(args: &[u8]) -> Result<(&str, u64)> {
    let usage = || {
        Error::new(Code::Argument, "picodata.cancel takes the id of a query, such as \"i1-17\"")
            .with_hint("picodata.queries() lists what runs, with its ids")
    };
    let mut reader = Reader::new(args);
    if reader.array_len()? != 1 {
        return Err(usage());
    }
    let (instance, number) = reader.str().map_err(|_| usage())?.rsplit_once('-').ok_or_else(usage)?;
    Ok((instance, number.parse().map_err(|_| usage())?))
}

/// `picodata.peer.query_cancel(number)`.
pub fn serve_peer_cancel(call: &mut Call<'_>) -> Result<()> {
    let mut reader = Reader::new(call.args());
    reader.array_len()?;
    let was_running = cancel(reader.uint()?);
    reply(call, was_running)
}

fn cancel(number: u64) -> bool {
    let running = running();
    let Some(entry) = running.get(&number) else { return false };
    entry.stop.set();
    entry.abort.abort();
    true
}

fn reply(call: &mut Call<'_>, answer: bool) -> Result<()> {
    let mut out = Vec::with_capacity(1);
    write_bool(&mut out, answer);
    call.reply(&out)
}
