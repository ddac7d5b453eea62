//! Doors that try the bridge.

use crate::bridge;
use crate::host::{Call, Deadline, door, fiber};
use model::{Code, Result};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

const NIL: &[u8] = &[0xc0];

pub fn register() {
    door::register("floor.bridge_run", run);
    door::register("floor.bridge_tx", on_tx);
    door::register("floor.bridge_crowd", crowd);
    door::register("floor.bridge_shut_down", shut_down);
}

fn code_of<T>(result: Result<T>) -> Option<Code> {
    result.err().map(|error| error.code)
}

fn run(call: &mut Call<'_>) -> Result<()> {
    assert_eq!(bridge::run(Deadline::NEVER, async { Ok(5) })?, 5);
    let panicked = bridge::run(Deadline::NEVER, async { if true { panic!("on purpose") } else { Ok(()) } });
    assert_eq!(code_of(panicked), Some(Code::Internal));

    let held = Arc::new(());
    let kept = Arc::clone(&held);
    let endless = async move {
        std::future::pending::<()>().await;
        drop(kept);
        Ok(())
    };
    assert_eq!(code_of(bridge::run(Deadline::after_ms(20), endless)), Some(Code::Timeout));
    while Arc::strong_count(&held) > 1 {
        fiber::sleep(0.001);
    }
    call.reply(NIL)
}

fn on_tx(call: &mut Call<'_>) -> Result<()> {
    let here = std::thread::current().id();
    let there = bridge::run(Deadline::NEVER, async { bridge::on_tx(|| Ok(std::thread::current().id())).await })?;
    assert_eq!(there, here);
    let panicked =
        bridge::run(Deadline::NEVER, async { bridge::on_tx(|| -> Result<()> { panic!("on purpose") }).await });
    assert_eq!(code_of(panicked), Some(Code::Internal));
    let yielding = async {
        bridge::on_tx_fiber(|| {
            fiber::sleep(0.005);
            Ok(7)
        })
        .await
    };
    assert_eq!(bridge::run(Deadline::NEVER, yielding)?, 7);
    call.reply(NIL)
}

/// 500 fibers cross 20 times each, and their tasks cross back.
fn crowd(call: &mut Call<'_>) -> Result<()> {
    let left = Rc::new(Cell::new(500));
    for _ in 0..left.get() {
        let left = Rc::clone(&left);
        fiber::spawn("crowd", move || {
            for number in 0..20 {
                let there_and_back = async move { bridge::on_tx_fiber(move || Ok(number)).await };
                assert_eq!(bridge::run(Deadline::NEVER, there_and_back), Ok(number));
            }
            left.set(left.get() - 1);
        })?;
    }
    while left.get() > 0 {
        fiber::sleep(0.001);
    }
    call.reply(NIL)
}

/// Shuts down while a fiber waits and workers go on asking.
fn shut_down(call: &mut Call<'_>) -> Result<()> {
    let refused = Rc::new(Cell::new(None));
    let seen = Rc::clone(&refused);
    fiber::spawn("waiting", move || {
        let endless = async {
            std::future::pending::<()>().await;
            Ok(())
        };
        seen.set(code_of(bridge::run(Deadline::NEVER, endless)));
    })?;
    let threads = bridge::threads::handle()?;
    for _ in 0..4 {
        threads.spawn(async { while bridge::on_tx(|| Ok(())).await.is_ok() {} });
    }
    fiber::sleep(0.02);
    bridge::shut_down();
    while refused.get().is_none() {
        fiber::sleep(0.001);
    }
    assert_eq!(refused.get(), Some(Code::NotReady));
    assert_eq!(code_of(bridge::run(Deadline::NEVER, async { Ok(()) })), Some(Code::NotReady));
    call.reply(NIL)
}
