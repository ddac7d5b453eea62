//! One operation on its way to the master of its bucket, tried until it is answered or its time is over.

use super::{Master, Router, TableRoute, Target, peer};
use crate::host::Deadline;
use crate::storage::{self, procedure};
use crud::retry::{self, Failure, Next};
use crud::wire::{self, Answer, Done};
use model::msgpack::Reader;
use model::{BucketId, Code, Durability, Error, Result, TableId};
use std::rc::Rc;

/// The first pause before another attempt, where nothing says that it can be made at once; each is twice the last.
const PAUSE_FIRST_MS: u64 = 2;
const PAUSE_MAX_MS: u64 = 200;

/// An operation in its wire form.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The table as of when the request was made; a further attempt looks it up anew.
    pub route: &'a TableRoute,
    pub bucket: BucketId,
    pub is_write: bool,
    pub operation: &'a [u8],
    pub deadline: Deadline,
}

/// A good answer's bytes.
#[derive(Debug)]
pub struct Reply {
    bytes: Vec<u8>,
}

impl Reply {
    pub fn done(&self) -> Result<Done<'_>> {
        match wire::read_answer(&mut Reader::new(&self.bytes))? {
            Answer::Done(done) => Ok(done),
            Answer::Refused(error, _) => Err(error),
        }
    }
}

impl Router {
    /// Runs an operation where its bucket lives.
    ///
    /// Errors: what the storage refuses for good; `Timeout` when time ran out with nothing done; `Unknown` when a write
    /// was sent and not answered.
    pub fn execute(&self, request: &Request<'_>) -> Result<Reply> {
        let mut known = request.route.tier.as_ref().and_then(|tier| tier.target(request.bucket)).map(Rc::clone);
        self.patiently(request.deadline, request.is_write, || match known.take() {
            Some(target) => self.attempt(request, &target),
            None => {
                let target = self.target(request.route.layout.table.id, request.bucket).map_err(Failure::NotSent)?;
                self.attempt(request, &target)
            }
        })
    }

    /// Repeats an attempt for as long as its failures are of the kind that passes.
    pub(super) fn patiently<T>(
        &self,
        deadline: Deadline,
        is_write: bool,
        mut attempt: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T> {
        let mut pause_ms = PAUSE_FIRST_MS;
        loop {
            let failure = match attempt() {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            let (Failure::Refused(last, _) | Failure::NotSent(last) | Failure::NoAnswer(last)) = failure.clone();
            match retry::next(failure, is_write) {
                Next::Fail(error) => return Err(error),
                Next::Wait { version } => {
                    if !self.wait_for_change(version, pause_ms, deadline) {
                        return Err(retry::out_of_time(&last));
                    }
                    pause_ms = (pause_ms * 2).min(PAUSE_MAX_MS);
                }
            }
        }
    }

    fn attempt(&self, request: &Request<'_>, target: &Target) -> Result<Reply, Failure> {
        let durability = request.route.layout.table.durability;
        let bytes = operate_at(target, request.operation, durability, request.deadline)?;
        match wire::read_answer(&mut Reader::new(&bytes)) {
            Ok(Answer::Done(_)) => Ok(Reply { bytes }),
            Ok(Answer::Refused(error, version)) => Err(Failure::Refused(error, version)),
            Err(error) => Err(Failure::NoAnswer(error)),
        }
    }

    /// Who owns a bucket of a table now.
    ///
    /// Errors: `SchemaChanged` when the table is gone, `WrongBucket` when the map does not have the bucket.
    pub(super) fn target(&self, table: TableId, bucket: BucketId) -> Result<Rc<Target>> {
        let snapshot = self.snapshot();
        let tier = snapshot.table_by_id(table)?.tier.as_ref();
        let target = tier.and_then(|tier| tier.target(bucket)).map(Rc::clone);
        target.ok_or_else(|| Error::new(Code::Internal, format!("bucket {bucket} is not one of the table's tier")))
    }
}

/// Runs an operation, in its wire form, at the master of a replicaset. Its answer may be a refusal.
///
/// Errors: that there is no master, and what the network says.
pub(super) fn operate_at(
    target: &Target,
    operation: &[u8],
    durability: Durability,
    deadline: Deadline,
) -> Result<Vec<u8>, Failure> {
    match &target.master {
        None => Err(no_master(target)),
        Some(Master::Here) => Ok(storage::get().map_err(Failure::NotSent)?.run_one(operation)),
        Some(Master::At(peer)) => peer::operate(peer, operation, durability, deadline),
    }
}

/// The failure of an attempt that finds no master.
pub(super) fn no_master(target: &Target) -> Failure {
    let message = format!("replicaset {} has no master just now", target.replicaset);
    Failure::Refused(Error::new(Code::NoMaster, message), 0)
}

impl Router {
    /// Runs a procedure where its bucket lives; `args` are those of `storage::procedure::serve`.
    ///
    /// Errors: as `execute`, and those of the procedure.
    pub fn run_procedure(
        &self,
        table: TableId,
        bucket: BucketId,
        is_write: bool,
        args: &[u8],
        deadline: Deadline,
    ) -> Result<Vec<u8>> {
        self.patiently(deadline, is_write, || {
            let target = self.target(table, bucket).map_err(Failure::NotSent)?;
            match &target.master {
                None => Err(no_master(&target)),
                Some(Master::Here) => procedure::answer(args).map_err(|error| Failure::Refused(error, 0)),
                Some(Master::At(peer)) => peer::call(peer, procedure::DOOR, args, deadline),
            }
        })
    }
}
