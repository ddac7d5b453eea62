//! Doors that let a test script use the connections.

use crate::host::{Call, Deadline, door, fiber};
use crate::net::{CallError, LinkEvent, MiniServer, Pool, Priority, SERVICE_USER};
use model::msgpack::{self, Reader};
use model::{Code, Durability, Error, Result};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

const SECRET: &str = "s3cret";
const NIL: &[u8] = &[0xc0];
const STOP_TIMEOUT_MS: u64 = 5_000;

thread_local! {
    static POOL: RefCell<Option<Rc<Pool>>> = const { RefCell::new(None) };
    static SERVER: RefCell<Option<MiniServer>> = const { RefCell::new(None) };
    /// Up, down, failed.
    static EVENTS: Cell<[u64; 3]> = const { Cell::new([0; 3]) };
    static BATCHES: Cell<u64> = const { Cell::new(0) };
}

pub fn register() {
    door::register("floor.call", |call| {
        ask(call, |pool, address, what, argument, deadline| {
            let args = [&[0x91], argument].concat();
            pool.peer(address).map_err(CallError::not_sent)?.call(what, &args, Priority::Normal, deadline)
        })
    });
    door::register("floor.operate", |call| {
        ask(call, |pool, address, _, argument, deadline| {
            pool.peer(address).map_err(CallError::not_sent)?.operate(argument, Durability::Replicated, deadline)
        })
    });
    door::register("floor.send", |call| {
        ask(call, |pool, address, what, argument, _| {
            let args = [&[0x91], argument].concat();
            pool.peer(address).map_err(CallError::not_sent)?.send(what, &args).map(|()| NIL.to_vec())
        })
    });
    door::register("floor.events", |call| reply_numbers(call, &EVENTS.get()));
    door::register("floor.batches", |call| reply_numbers(call, &[BATCHES.get()]));
    door::register("floor.serve", serve);
    door::register("floor.stop", stop);
    door::register("picodata.peer.batch", batch);
}

fn pool() -> Result<Rc<Pool>> {
    if let Some(pool) = POOL.with_borrow(Clone::clone) {
        return Ok(pool);
    }
    let pool = Pool::new(SERVICE_USER, SECRET)?;
    pool.subscribe(|_, event| {
        let mut events = EVENTS.get();
        events[match event {
            LinkEvent::Up => 0,
            LinkEvent::Down => 1,
            LinkEvent::Failed => 2,
        }] += 1;
        EVENTS.set(events);
    });
    POOL.set(Some(Rc::clone(&pool)));
    Ok(pool)
}

fn reply_numbers(call: &mut Call<'_>, numbers: &[u64]) -> Result<()> {
    let mut out = Vec::new();
    msgpack::write_array_len(&mut out, numbers.len());
    numbers.iter().for_each(|number| msgpack::write_uint(&mut out, *number));
    call.reply(&out)
}

/// `(address, procedure, argument, timeout in ms)` -> `[fate, code, value]`; the fate of an answer is "Ok".
fn ask(
    call: &mut Call<'_>,
    question: impl FnOnce(&Pool, &str, &str, &[u8], Deadline) -> Result<Vec<u8>, CallError>,
) -> Result<()> {
    let args = call.copy();
    let mut reader = Reader::new(&args);
    reader.array_len()?;
    let (address, what, argument) = (reader.str()?, reader.str()?, reader.raw()?);
    let deadline = Deadline::after_ms(reader.uint()?);
    let answer = question(&*pool()?, address, what, argument, deadline);
    let mut out = vec![0x93];
    match answer {
        Ok(value) => {
            msgpack::write_str(&mut out, "Ok");
            msgpack::write_uint(&mut out, 0);
            out.extend_from_slice(&value);
        }
        Err(CallError { error, fate }) => {
            msgpack::write_str(&mut out, &format!("{fate:?}"));
            msgpack::write_uint(&mut out, error.number().into());
            msgpack::write_str(&mut out, &error.to_string());
        }
    }
    call.reply(&out)
}

/// Answers each operation with itself.
fn batch(call: &mut Call<'_>) -> Result<()> {
    BATCHES.set(BATCHES.get() + 1);
    let operations = wire::batch::operations(call.args())?;
    let mut out = Vec::new();
    wire::batch::write_answers_head(&mut out, operations.len());
    operations.iter().for_each(|operation| out.extend_from_slice(operation));
    call.reply(&out)
}

/// Starts the server for the time before `box.cfg` at `(address)`.
fn serve(call: &mut Call<'_>) -> Result<()> {
    let args = call.copy();
    let mut reader = Reader::new(&args);
    reader.array_len()?;
    let server = MiniServer::start(reader.str()?, SECRET, |function, args| match function {
        "echo" => Ok(args.to_vec()),
        "slow" => {
            fiber::sleep(0.2);
            Ok(NIL.to_vec())
        }
        "panic" => panic!("on purpose"),
        _ => Err(Error::new(Code::ForeignCluster, "another cluster")),
    })?;
    SERVER.set(Some(server));
    call.reply(NIL)
}

fn stop(call: &mut Call<'_>) -> Result<()> {
    if let Some(server) = SERVER.take() {
        server.stop(Deadline::after_ms(STOP_TIMEOUT_MS))?;
    }
    call.reply(NIL)
}
