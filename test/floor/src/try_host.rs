//! Doors that try the host room: each asserts what it promises, and a failed assertion arrives as an error.

use crate::host::txn::Bookmark;
use crate::host::{Call, Deadline, Event, IteratorKind, Parked, Space, Transaction, Waiter, door, fiber, inbox};
use model::{Code, Error, Result};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const NIL: &[u8] = &[0xc0];

pub fn register() {
    door::register("picodata.peer.procedure", |call| {
        let args = call.copy();
        fiber::sleep_zero();
        call.reply(&args)
    });
    door::register("picodata.peer.join", |_| {
        Err(Error::new(Code::WrongBucket, "bucket 7 moved").with_hint("ask again"))
    });
    door::register("floor.panic", |_| panic!("on purpose"));
    door::register("floor.spaces", spaces);
    door::register("floor.transactions", transactions);
    door::register("floor.fibers", fibers);
    door::register("floor.waits", waits);
    door::register("floor.inbox", threads_post);
}

/// A tuple `[id, "v"]`; ids below 128.
fn row(id: u8) -> [u8; 4] {
    [0x92, id, 0xa1, b'v']
}

fn code_of<T>(result: Result<T>) -> Option<Code> {
    result.err().map(|error| error.code)
}

/// A space of `unsigned, string`.
const T: Space = Space(600);

/// Expects `T` to be empty.
fn spaces(call: &mut Call<'_>) -> Result<()> {
    let space = T;
    space.insert(&row(1))?;
    assert_eq!(code_of(space.insert(&row(1))), Some(Code::DuplicateKey));
    assert_eq!(code_of(space.insert(&[0x92, 0xa1, b'x', 0xa1, b'v'])), Some(Code::WrongType));
    assert_eq!(code_of(space.insert(&[0x91, 0x02])), Some(Code::NullViolation));
    assert_eq!(code_of(Space(9_999_999).insert(&row(1))), Some(Code::NoSuchTable));
    assert_eq!(space.get(0, &[0x91, 1])?.map(|tuple| tuple.to_vec()), Some(row(1).to_vec()));
    assert!(space.get(0, &[0x91, 2])?.is_none());
    for id in 2..10 {
        space.replace(&row(id))?;
    }
    assert_eq!(space.len(0)?, 9);
    let mut iterator = space.iterate(0, IteratorKind::Gt, &[0x91, 7])?;
    let mut bytes = Vec::new();
    while iterator.copy_next(&mut bytes)? {}
    assert_eq!(bytes, [row(8), row(9)].concat());
    assert!(space.delete(0, &[0x91, 9])?.is_some() && space.delete(0, &[0x91, 9])?.is_none());
    let set_field_1 = [0x91, 0x93, 0xa1, b'=', 0x01, 0xa1, b'w'];
    let updated = space.update(0, &[0x91, 8], &set_field_1, 0)?.map(|tuple| tuple.to_vec());
    assert_eq!(updated, Some(vec![0x92, 8, 0xa1, b'w']));
    space.truncate()?;
    assert_eq!(space.len(0)?, 0);
    call.reply(NIL)
}

/// Expects `T` to be empty.
fn transactions(call: &mut Call<'_>) -> Result<()> {
    let space = T;
    let transaction = Transaction::begin()?;
    assert!(Transaction::begin().is_err());
    space.insert(&row(1))?;
    let bookmark = Bookmark::new()?;
    space.insert(&row(2))?;
    bookmark.rollback()?;
    transaction.commit()?;
    assert!(bookmark.rollback().is_err(), "a bookmark outlived its transaction");
    assert_eq!(space.len(0)?, 1);

    let dropped = Transaction::begin()?;
    space.insert(&row(3))?;
    drop(dropped);
    assert_eq!(space.len(0)?, 1);
    Transaction::begin()?.rollback();

    let yielded = Transaction::begin()?;
    space.insert(&row(4))?;
    fiber::sleep_zero();
    assert!(yielded.commit().is_err(), "a memtx transaction survived a yield");
    assert_eq!(space.len(0)?, 1);
    call.reply(NIL)
}

fn fibers(call: &mut Call<'_>) -> Result<()> {
    let steps = Rc::new(Cell::new(0));
    let seen = Rc::clone(&steps);
    let handle = fiber::spawn("a name longer than the host's thirty-one bytes", move || {
        seen.set(1);
        let waiter = Waiter::new();
        assert_eq!(waiter.park(Deadline::NEVER), Parked::Cancelled);
        seen.set(2);
    })?;
    assert_eq!(steps.get(), 0, "a spawned fiber ran before its spawner went on");
    fiber::sleep_zero();
    handle.wake();
    fiber::sleep_zero();
    assert!(steps.get() == 1 && handle.is_running(), "a spurious wake-up ended a wait");
    handle.cancel();
    fiber::sleep_zero();
    assert!(steps.get() == 2 && !handle.is_running());
    handle.wake();

    let panicking = fiber::spawn("panicking", || panic!("on purpose"))?;
    fiber::sleep_zero();
    assert!(!panicking.is_running());
    call.reply(NIL)
}

fn waits(call: &mut Call<'_>) -> Result<()> {
    let waiter = Waiter::new();
    waiter.wake();
    assert_eq!(waiter.park(Deadline::NEVER), Parked::Woken, "a wake-up before the wait was lost");
    let deadline = Deadline::after_ms(20);
    assert_eq!(Waiter::new().park(deadline), Parked::Late);
    assert!(deadline.has_passed());

    let event = Rc::new(Event::new()?);
    let woken = Rc::new(Cell::new(0));
    for _ in 0..10 {
        let (event, woken) = (Rc::clone(&event), Rc::clone(&woken));
        fiber::spawn("waiting", move || {
            assert_eq!(event.wait(Deadline::NEVER), Parked::Woken);
            woken.set(woken.get() + 1);
        })?;
    }
    fiber::sleep_zero();
    event.notify_one();
    fiber::sleep_zero();
    assert_eq!(woken.get(), 1);
    event.notify_all();
    fiber::sleep_zero();
    assert_eq!(woken.get(), 10);
    let late = event.wait_until(Deadline::after_ms(20), "nothing", || None::<()>);
    assert_eq!(code_of(late), Some(Code::Timeout));
    call.reply(NIL)
}

fn post_count(done: &Arc<AtomicUsize>) -> bool {
    let done = Arc::clone(done);
    inbox::post(move || {
        done.fetch_add(1, Ordering::Relaxed);
    })
}

/// Four threads post 10,000 jobs each, and log.
fn threads_post(call: &mut Call<'_>) -> Result<()> {
    const THREADS: usize = 4;
    const JOBS: usize = 10_000;
    let done = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let done = Arc::clone(&done);
            std::thread::spawn(move || {
                log::warn!("thread {number} logs");
                for _ in 0..JOBS {
                    while !post_count(&done) {
                        std::thread::yield_now();
                    }
                }
            })
        })
        .collect();
    while done.load(Ordering::Relaxed) < THREADS * JOBS {
        fiber::sleep(0.001);
    }
    assert!(threads.into_iter().all(|thread| thread.join().is_ok()));
    call.reply(NIL)
}
