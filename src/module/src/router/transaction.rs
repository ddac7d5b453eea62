//! Transactions of SQL: operations on keys of one replicaset, as one operation for its master.

use super::execute::operate_at;
use super::{Router, Target};
use crate::host::Deadline;
use crud::retry::Failure;
use crud::wire::{self, Answer};
use model::msgpack::Reader;
use model::{Code, Engine, Error, Result};
use sql::cluster::Operation;
use std::rc::Rc;

impl Router {
    /// Runs operations one after the other in one transaction on the replicaset that owns all their buckets, all or
    /// none. Answers an array with the answer of each.
    ///
    /// Errors: `InvalidStatement` when the buckets are of several replicasets, `Unsupported` for vinyl, `SchemaChanged`;
    /// what an operation was refused with; `Unknown` when no answer came.
    pub fn transaction(&'static self, operations: Vec<Operation>, deadline: Deadline) -> Result<Vec<u8>> {
        let mut operation = Vec::with_capacity(operations.iter().map(|op| op.bytes.len()).sum::<usize>() + 32);
        wire::write_transaction_head(&mut operation, operations.len());
        operations.iter().for_each(|op| operation.extend_from_slice(&op.bytes));
        let durability = operations.iter().map(|op| op.table.durability).max().unwrap_or_default();
        self.patiently(deadline, true, || {
            let target = self.only_target(&operations).map_err(Failure::NotSent)?;
            let answer = operate_at(&target, &operation, durability, deadline)?;
            match wire::read_answer(&mut Reader::new(&answer)).map_err(Failure::NoAnswer)? {
                Answer::Done(done) => Ok(done.first.unwrap_or(&[0x90]).to_vec()),
                Answer::Refused(error, version) => Err(Failure::Refused(error, version)),
            }
        })
    }

    /// The replicaset that owns the buckets of all operations.
    fn only_target(&self, operations: &[Operation]) -> Result<Rc<Target>> {
        let mut only: Option<(Rc<Target>, &str)> = None;
        for op in operations {
            let route = self.route_of(&op.table)?;
            if op.table.engine == Engine::Vinyl {
                let message = format!("table \"{}\" is on vinyl, which has no part in transactions yet", op.table.name);
                return Err(Error::new(Code::Unsupported, message));
            }
            if route.tier.is_none() {
                continue;
            }
            let target = self.target(op.table.id, op.bucket)?;
            match &only {
                None => only = Some((target, &op.table.name)),
                Some((known, _)) if known.replicaset == target.replicaset => {}
                Some((known, table)) => {
                    let message = format!(
                        "the transaction's keys lie on several replicasets: one of table \"{table}\" on {}, one of \"{}\" on {}",
                        known.replicaset, op.table.name, target.replicaset
                    );
                    return Err(Error::new(Code::InvalidStatement, message).with_hint(
                        "tables with the same sharding key keep rows that belong together on one replicaset",
                    ));
                }
            }
        }
        let (target, _) = only.ok_or_else(|| {
            Error::new(Code::Unsupported, "a transaction on global tables alone: each of their statements is one")
        })?;
        Ok(target)
    }
}
