//! `picodata.peer.batch`: operations that routers sent to the master of their buckets, run as one transaction.

use super::{BoxStore, Storage};
use crate::host::Call;
use crate::side_by_side::{self, Task};
use crud::batch::{Answers, Batch};
use model::msgpack::{self, Reader};
use model::{Code, Error, Result};

pub const DOOR: &str = "picodata.peer.batch";
/// Operations in one call.
pub const OPERATIONS_MAX: usize = 16_384;
/// Operations on tables that yield, run at the same time for one call.
const SIDE_BY_SIDE_MAX: usize = 16;

/// Takes one argument, an array of operations, and answers an array of their answers, in the same order.
pub fn serve(call: &mut Call<'_>) -> Result<()> {
    let mut reader = Reader::new(call.args());
    if reader.array_len()? != 1 {
        return Err(Error::new(Code::Argument, "a batch has one argument"));
    }
    let len = reader.array_len()?;
    if len > OPERATIONS_MAX {
        return Err(Error::new(
            Code::LimitExceeded,
            format!("{len} operations in one call, at most {OPERATIONS_MAX} are taken"),
        ));
    }
    let mut operations = Vec::with_capacity(len);
    for _ in 0..len {
        operations.push(reader.raw()?);
    }
    let storage = super::get()?;
    let answers = storage.run(&operations);
    let mut reply = Vec::with_capacity(answers.bytes.len() + 5);
    msgpack::write_array_len(&mut reply, answers.ends.len());
    write_answers(storage, answers, &mut reply)?;
    call.reply(&reply)
}

/// Appends all answers in order, running what was deferred.
fn write_answers(storage: &'static Storage, mut answers: Answers, out: &mut Vec<u8>) -> Result<()> {
    if answers.deferred.is_empty() {
        out.append(&mut answers.bytes);
        return Ok(());
    }
    let deferred = std::mem::take(&mut answers.deferred);
    let (places, operations): (Vec<usize>, Vec<Vec<u8>>) = deferred.into_iter().unzip();
    let alone = storage.run_side_by_side(operations)?;
    let mut alone = places.into_iter().zip(alone).peekable();
    for at in 0..answers.ends.len() {
        match alone.next_if(|(place, _)| *place == at) {
            Some((_, answer)) => out.extend(answer),
            None => out.extend_from_slice(answers.get(at)),
        }
    }
    Ok(())
}

impl Storage {
    /// Runs operations as one transaction, except those that have to wait, which are handed back.
    pub fn run(&'static self, operations: &[&[u8]]) -> Answers {
        self.look_at_lease();
        let tables = self.served();
        let answers = Batch::new(BoxStore::default(), &*tables, &self.guard).run(operations);
        self.quiet.notify_all();
        answers
    }

    /// Runs one operation in a transaction of its own and answers it.
    pub fn run_one(&'static self, operation: &[u8]) -> Vec<u8> {
        self.look_at_lease();
        let tables = self.served();
        let mut answer = Vec::new();
        Batch::new(BoxStore::default(), &*tables, &self.guard).run_alone(operation, &mut answer);
        self.quiet.notify_all();
        answer
    }

    /// Runs operations each in a transaction of its own, several at a time.
    ///
    /// Errors: `Cancelled`, with some operations done.
    fn run_side_by_side(&'static self, operations: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        let task = |operation: Vec<u8>| -> Task<Vec<u8>> { Box::new(move || self.run_one(&operation)) };
        side_by_side::run("pico_batch", SIDE_BY_SIDE_MAX, operations.into_iter().map(task).collect())
    }
}
