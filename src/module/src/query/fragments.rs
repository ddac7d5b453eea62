//! Fragments between instances: a router sends the bytes of a plan to a replicaset's master and pulls the frames of the
//! answer, as many a call as fit.
//!
//! A storage keeps a running fragment until it is read to its end, cancelled, or past its deadline.

use super::Sql;
use crate::bridge;
use crate::host::{Call, Deadline, fiber, inbox};
use crate::net::CallError;
use crate::node;
use crate::storage;
use async_trait::async_trait;
use boot::Address;
use model::msgpack::{Reader, write_array_len, write_bin, write_double, write_nil, write_uint};
use model::{Code, Error, ReplicasetName, Result};
use sql::cluster::Frames;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub const DOOR: &str = "picodata.peer.fragment";
pub const NEXT_DOOR: &str = "picodata.peer.fragment_next";
pub const CANCEL_DOOR: &str = "picodata.peer.fragment_cancel";

/// Frames of one answer go on until they have so many bytes together.
const ANSWER_BYTES: usize = 1 << 20;
/// How long a storage may take to hear that a fragment is not wanted any more.
const CANCEL_TIMEOUT_MS: u64 = 1_000;

static RUNNING: Mutex<Option<HashMap<u64, Box<dyn Frames>>>> = Mutex::new(None);
static LAST: AtomicU64 = AtomicU64::new(0);

fn running<T>(f: impl FnOnce(&mut HashMap<u64, Box<dyn Frames>>) -> T) -> T {
    f(RUNNING.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

/// Starts a fragment at the master of a replicaset. Called on a worker thread.
pub async fn start(to: &ReplicasetName, request: Vec<u8>, deadline: Instant) -> Result<Box<dyn Frames>> {
    let to = to.clone();
    let (address, answer) = bridge::on_tx_fiber(move || {
        let deadline = Deadline::at(deadline);
        let address = master_of(&to)?;
        let mut args = Vec::with_capacity(request.len() + 24);
        write_array_len(&mut args, 2);
        write_bin(&mut args, &request);
        write_double(&mut args, deadline.left_s());
        let answer = node::get()?.call(&address, DOOR, &args, deadline).map_err(CallError::for_read)?;
        Ok((address, answer))
    })
    .await?;
    let mut frames = RemoteFrames { address, deadline, number: None, ready: VecDeque::new() };
    frames.take(&answer)?;
    Ok(Box::new(frames))
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
    /// Under which the storage keeps the rest; None when there is no rest.
    number: Option<u64>,
    ready: VecDeque<Vec<u8>>,
}

impl RemoteFrames {
    fn take(&mut self, answer: &[u8]) -> Result<()> {
        let mut reader = Reader::new(answer);
        reader.array_len()?;
        self.number = if reader.take_nil() { None } else { Some(reader.uint()?) };
        for _ in 0..reader.array_len()? {
            self.ready.push_back(reader.bin()?.to_vec());
        }
        Ok(())
    }
}

#[async_trait]
impl Frames for RemoteFrames {
    async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        while self.ready.is_empty() {
            let Some(number) = self.number else { return Ok(None) };
            let (address, deadline) = (self.address.clone(), self.deadline);
            let answer = bridge::on_tx_fiber(move || {
                let deadline = Deadline::at(deadline);
                let args = one_number(number);
                node::get()?.call(&address, NEXT_DOOR, &args, deadline).map_err(CallError::for_read)
            })
            .await;
            match answer {
                Ok(answer) => self.take(&answer)?,
                Err(error) => {
                    self.number = None;
                    return Err(error);
                }
            }
        }
        Ok(self.ready.pop_front())
    }
}

impl Drop for RemoteFrames {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let address = self.address.clone();
        inbox::post(move || {
            let cancel = move || {
                let deadline = Deadline::after_ms(CANCEL_TIMEOUT_MS);
                // A storage that does not hear it ends the fragment at its deadline.
                let _ = node::get().map(|node| node.call(&address, CANCEL_DOOR, &one_number(number), deadline));
            };
            let _ = fiber::spawn("pico_cancel", cancel);
        });
    }
}

fn one_number(number: u64) -> Vec<u8> {
    let mut args = Vec::with_capacity(10);
    write_array_len(&mut args, 1);
    write_uint(&mut args, number);
    args
}

/// `picodata.peer.fragment(request, seconds)`: answers `[number or nil, [frame, ...]]`.
pub fn serve(call: &mut Call<'_>) -> Result<()> {
    let mut reader = Reader::new(call.args());
    reader.array_len()?;
    let request = reader.bin()?.to_vec();
    let deadline = Deadline::after(Duration::from_secs_f64(reader.number()?.clamp(0.0, 86_400.0)));
    let sql = Sql::get()?;
    let until = deadline.instant();
    let answer = bridge::run(deadline, async move {
        let frames = sql.engine.run_fragment(Arc::clone(&sql.cluster), request).await?;
        let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let answer = collect(Box::new(frames), number).await?;
        if running(|fragments| fragments.contains_key(&number)) {
            tokio::spawn(async move {
                tokio::time::sleep_until(until.into()).await;
                running(|fragments| drop(fragments.remove(&number)));
            });
        }
        Ok(answer)
    })?;
    storage::get()?.settle_all()?;
    call.reply(&answer)
}

/// `picodata.peer.fragment_next(number)`: the next frames, in the same form.
pub fn serve_next(call: &mut Call<'_>) -> Result<()> {
    let number = argument(call)?;
    let frames = running(|fragments| fragments.remove(&number)).ok_or_else(|| {
        Error::new(Code::Cancelled, "the fragment is not running any more")
            .with_hint("its time was over, or the storage restarted")
    })?;
    let answer = bridge::run(Deadline::NEVER, collect(frames, number))?;
    storage::get()?.settle_all()?;
    call.reply(&answer)
}

/// `picodata.peer.fragment_cancel(number)`.
pub fn serve_cancel(call: &mut Call<'_>) -> Result<()> {
    let number = argument(call)?;
    running(|fragments| drop(fragments.remove(&number)));
    Ok(())
}

fn argument(call: &Call<'_>) -> Result<u64> {
    let mut reader = Reader::new(call.args());
    reader.array_len()?;
    reader.uint()
}

/// Reads frames until they fill an answer; what is left is kept under `number`.
async fn collect(mut frames: Box<dyn Frames>, number: u64) -> Result<Vec<u8>> {
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
    if is_over {
        write_nil(&mut answer);
    } else {
        write_uint(&mut answer, number);
        running(|fragments| fragments.insert(number, frames));
    }
    write_array_len(&mut answer, batch.len());
    batch.iter().for_each(|frame| write_bin(&mut answer, frame));
    Ok(answer)
}
