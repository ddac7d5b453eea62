//! Fragments between instances: a router sends the bytes of a plan to a replicaset's master and pulls the frames of the
//! answer, as many a call as fit.
//!
//! A storage keeps a running fragment until it is read to its end, cancelled, or past its deadline.

use super::cluster::{HasRead, ModuleCluster};
use super::{Sql, moments, schema};
use crate::bridge;
use crate::host::{Call, Deadline, fiber, inbox};
use crate::net::CallError;
use crate::node;
use async_trait::async_trait;
use boot::Address;
use futures::future::{AbortHandle, AbortRegistration, Abortable};
use model::msgpack::{Reader, write_array_len, write_bin, write_bool, write_double, write_str, write_uint};
use model::{Code, Error, ReplicasetName, Result};
use sql::cluster::{Frames, QueryKey};
use sql::stop::Stop;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub const DOOR: &str = "picodata.peer.fragment";
pub const NEXT_DOOR: &str = "picodata.peer.fragment_next";
pub const CANCEL_DOOR: &str = "picodata.peer.fragment_cancel";

/// Frames of one answer go on until they have so many bytes together.
const ANSWER_BYTES: usize = 1 << 20;
/// How long a storage may take to hear that a fragment is not wanted any more.
const CANCEL_TIMEOUT_MS: u64 = 1_000;

/// Names a fragment at the storages: the instance that asked, and a number that it gives once.
type Key = QueryKey;

/// A fragment that is not read to its end yet.
struct Fragment {
    state: State,
    /// Ends it at its deadline.
    expiry: tokio::task::AbortHandle,
    has_read: HasRead,
    stop: Stop,
}

enum State {
    /// A worker thread collects an answer.
    Working(AbortHandle),
    /// The rest waits to be asked for.
    Waiting(Box<dyn Frames>),
}

impl Drop for Fragment {
    fn drop(&mut self) {
        self.expiry.abort();
        self.stop.set();
        if let State::Working(abort) = &self.state {
            abort.abort();
        }
    }
}

static FRAGMENTS: Mutex<Option<HashMap<Key, Fragment>>> = Mutex::new(None);

fn fragments<T>(f: impl FnOnce(&mut HashMap<Key, Fragment>) -> T) -> T {
    f(FRAGMENTS.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

/// How many fragments of other instances' queries are not over here.
pub fn count() -> usize {
    fragments(|fragments| fragments.len())
}

/// Whether the fragment was neither read to its end nor cancelled, and its time is not over.
pub fn is_known(key: &Key) -> bool {
    fragments(|fragments| fragments.contains_key(key))
}

/// Ends a fragment in whatever state it is.
fn end(key: &Key) {
    // Dropped after the lock is given back: its scans have things to do.
    drop(fragments(|fragments| fragments.remove(key)));
}

/// Starts a fragment at the master of a replicaset. Called on a worker thread.
pub async fn start(to: &ReplicasetName, request: Vec<u8>, deadline: Instant) -> Result<Box<dyn Frames>> {
    let to = to.clone();
    let address = bridge::on_tx(move || master_of(&to)).await?;
    let router = schema::current().map_or_else(|| "".into(), |schema| schema.me.clone());
    let key = Key { router, number: moments::next_query() };
    // From here on, whoever loses interest tells the storage, also while it works on the first answer.
    let mut frames = RemoteFrames { address: address.clone(), deadline, key, is_over: false, ready: VecDeque::new() };
    let mut args = Vec::with_capacity(request.len() + 64);
    write_array_len(&mut args, 4);
    write_key(&mut args, &frames.key);
    write_bin(&mut args, &request);
    // The host's own clock is not for worker threads.
    write_double(&mut args, deadline.saturating_duration_since(Instant::now()).as_secs_f64());
    frames.ask(DOOR, args).await?;
    Ok(Box::new(frames))
}

fn write_key(out: &mut Vec<u8>, key: &Key) {
    write_str(out, key.router.as_str());
    write_uint(out, key.number);
}

fn read_key(reader: &mut Reader<'_>) -> Result<Key> {
    Ok(Key { router: reader.str()?.into(), number: reader.uint()? })
}

fn only_key(key: &Key) -> Vec<u8> {
    let mut args = Vec::with_capacity(64);
    write_array_len(&mut args, 2);
    write_key(&mut args, key);
    args
}

pub(super) fn master_of(replicaset: &ReplicasetName) -> Result<Address> {
    let state = node::get()?.state();
    let record = state.topology.replicaset(replicaset)?;
    let master = record
        .master
        .as_ref()
        .ok_or_else(|| Error::new(Code::NoMaster, format!("replicaset \"{replicaset}\" has no master just now")))?;
    state.topology.instance(master)?.address.parse()
}

/// The frames of a fragment that runs elsewhere.
struct RemoteFrames {
    address: Address,
    deadline: Instant,
    key: Key,
    /// The storage keeps nothing of it any more.
    is_over: bool,
    ready: VecDeque<Vec<u8>>,
}

impl RemoteFrames {
    /// Asks for an answer and takes its frames. After an error the storage is told to end the fragment.
    async fn ask(&mut self, door: &'static str, args: Vec<u8>) -> Result<()> {
        let (address, deadline) = (self.address.clone(), self.deadline);
        let answer = bridge::on_tx_fiber(move || {
            let answer = node::get()?.call(&address, door, &args, Deadline::at(deadline));
            answer.map_err(|error| not_answered(&address, error))
        })
        .await?;
        let mut reader = Reader::new(&answer);
        reader.array_len()?;
        self.is_over = reader.bool()?;
        for _ in 0..reader.array_len()? {
            self.ready.push_back(reader.bin()?.to_vec());
        }
        Ok(())
    }
}

/// Who asked is ready: a storage that is not, because it has just come up, is one that can not be reached yet.
fn not_answered(address: &Address, error: CallError) -> Error {
    let error = error.for_read();
    match error.code {
        Code::NotReady => Error::new(Code::Unreachable, format!("{address} is starting: {}", error.message)),
        _ => error,
    }
}

#[async_trait]
impl Frames for RemoteFrames {
    async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        while self.ready.is_empty() && !self.is_over {
            self.ask(NEXT_DOOR, only_key(&self.key)).await?;
        }
        Ok(self.ready.pop_front())
    }
}

impl Drop for RemoteFrames {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let (address, args) = (self.address.clone(), only_key(&self.key));
        inbox::post(move || {
            let cancel = move || {
                let deadline = Deadline::after_ms(CANCEL_TIMEOUT_MS);
                // A storage that does not hear it ends the fragment at its deadline.
                let _ = node::get().map(|node| node.call(&address, CANCEL_DOOR, &args, deadline));
            };
            let _ = fiber::spawn("pico_cancel", cancel);
        });
    }
}

/// `picodata.peer.fragment(router, number, request, seconds)`: answers `[is over, [frame, ...]]`.
pub fn serve(call: &mut Call<'_>) -> Result<()> {
    let mut reader = Reader::new(call.args());
    reader.array_len()?;
    let key = read_key(&mut reader)?;
    let request = reader.bin()?.to_vec();
    let deadline = Deadline::after(Duration::from_secs_f64(reader.number()?.clamp(0.0, 86_400.0)));
    let sql = Sql::get()?;
    let (ending, until) = (key.clone(), deadline.instant());
    let expiry = bridge::spawn(async move {
        tokio::time::sleep_until(until.into()).await;
        end(&ending);
    })?;
    let cluster = ModuleCluster::for_fragment(key.clone());
    let has_read = cluster.has_read();
    let stop = Stop::default();
    let stops = stop.clone();
    let first = async move {
        let frames = sql.engine.run_fragment(Arc::new(cluster), request, stops).await?;
        Ok(Box::new(frames) as Box<dyn Frames>)
    };
    let (abort, registration) = AbortHandle::new_pair();
    fragments(|fragments| {
        let state = State::Working(abort);
        fragments.insert(key.clone(), Fragment { state, expiry, has_read: has_read.clone(), stop })
    });
    answer(call, key, registration, has_read, first)
}

/// `picodata.peer.fragment_next(router, number)`: the next frames, in the same form.
pub fn serve_next(call: &mut Call<'_>) -> Result<()> {
    let key = argument(call)?;
    let (abort, registration) = AbortHandle::new_pair();
    let frames = fragments(|fragments| {
        let fragment = fragments.get_mut(&key)?;
        match std::mem::replace(&mut fragment.state, State::Working(abort)) {
            State::Waiting(frames) => Some((frames, fragment.has_read.clone())),
            // Asked for twice: what works goes on, and its answer is the other call's.
            working => {
                fragment.state = working;
                None
            }
        }
    });
    let (frames, has_read) = frames.ok_or_else(|| {
        Error::new(Code::Cancelled, "the fragment is not running any more")
            .with_hint("its time was over, or the storage restarted")
    })?;
    answer(call, key, registration, has_read, async move { Ok(frames) })
}

/// `picodata.peer.fragment_cancel(router, number)`.
pub fn serve_cancel(call: &mut Call<'_>) -> Result<()> {
    end(&argument(call)?);
    Ok(())
}

fn argument(call: &Call<'_>) -> Result<Key> {
    let mut reader = Reader::new(call.args());
    reader.array_len()?;
    read_key(&mut reader)
}

/// Collects an answer of the fragment on a worker thread and gives it; what is left waits under the key.
fn answer(
    call: &mut Call<'_>,
    key: Key,
    registration: AbortRegistration,
    has_read: HasRead,
    frames: impl Future<Output = Result<Box<dyn Frames>>> + Send + 'static,
) -> Result<()> {
    let under = key.clone();
    let work = Abortable::new(async move { collect(frames.await?, &under).await }, registration);
    let done = bridge::run(Deadline::NEVER, async move {
        let cancelled = |_| Err(Error::new(Code::Cancelled, "the fragment was cancelled, or its time was over"));
        work.await.unwrap_or_else(cancelled)
    });
    if done.as_ref().map_or(true, |(_, is_over)| *is_over) {
        end(&key);
    }
    let (answer, _) = done?;
    has_read.settle()?;
    call.reply(&answer)
}

/// Reads frames until they fill an answer, or all are read, which is the second part of what comes out.
async fn collect(mut frames: Box<dyn Frames>, key: &Key) -> Result<(Vec<u8>, bool)> {
    let (mut batch, mut bytes, mut is_over) = (Vec::new(), 0, false);
    while bytes < ANSWER_BYTES {
        match frames.next().await? {
            Some(frame) => {
                bytes += frame.len();
                batch.push(frame);
            }
            None => {
                is_over = true;
                break;
            }
        }
    }
    let mut answer = Vec::with_capacity(bytes + batch.len() * 5 + 16);
    write_array_len(&mut answer, 2);
    write_bool(&mut answer, is_over);
    write_array_len(&mut answer, batch.len());
    batch.iter().for_each(|frame| write_bin(&mut answer, frame));
    if !is_over {
        // Its place is gone when it was cancelled meanwhile.
        fragments(|fragments| {
            if let Some(fragment) = fragments.get_mut(key) {
                fragment.state = State::Waiting(frames);
            }
        });
    }
    Ok((answer, is_over))
}
