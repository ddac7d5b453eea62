//! What a statement that writes to several replicasets did on each of them, in words for its error.

use model::{Code, Error, ReplicasetName, Result};
use std::collections::BTreeMap;

/// What became of the parts of a statement, each on its replicaset.
#[derive(Default)]
pub struct Report {
    done: BTreeMap<ReplicasetName, u64>,
    failures: Vec<(ReplicasetName, Error)>,
    /// Changes that were not made because another part had failed.
    not_tried: usize,
}

impl Report {
    /// A part that was done.
    pub fn done(&mut self, replicaset: &ReplicasetName, changed: u64) {
        *self.done.entry(replicaset.clone()).or_default() += changed;
    }

    /// A part that was refused, or was not answered.
    pub fn failed(&mut self, replicaset: &ReplicasetName, error: Error) {
        self.failures.push((replicaset.clone(), error));
    }

    /// So many changes were not made because another part had failed.
    pub fn not_tried(&mut self, count: usize) {
        self.not_tried = count;
    }

    /// Whether a part has failed.
    pub fn has_failed(&self) -> bool {
        !self.failures.is_empty()
    }

    /// How many rows changed, or the error: the first part's that failed, with what was done where. `late` is why the
    /// rest was given up. An error with a part of the statement done must not look as if running it again were harmless.
    pub fn into_result(self, late: Option<Error>) -> Result<u64> {
        let changed = self.done.values().sum();
        let first = self.failures.first().map(|(_, error)| error.clone()).or(late);
        let Some(mut error) = first else { return Ok(changed) };
        let is_alone = self.done.is_empty() && self.failures.len() < 2;
        if is_alone || error.code == Code::Conflict && changed == 0 {
            // A conflict is the statement's to solve; where it happened says nothing to it.
            if let ([(replicaset, _)], true) = (&self.failures[..], error.code != Code::Conflict) {
                error.message = format!("{} (replicaset {replicaset})", error.message);
            }
            return Err(error);
        }
        let done = self.done.iter().map(|(replicaset, count)| format!("{replicaset}: {count} rows changed"));
        let failed = self.failures.iter().map(|(replicaset, error)| match error.code {
            Code::Unknown => format!("{replicaset}: not known, {}", error.message),
            _ => format!("{replicaset}: nothing changed, {}", error.message),
        });
        let mut parts: Vec<String> = done.chain(failed).collect();
        if self.not_tried > 0 {
            parts.push(format!("{} changes were not tried", self.not_tried));
        }
        error.message = format!("the statement was done in part. {}", parts.join("; "));
        if changed > 0 && error.code.is_retryable() {
            error.code = Code::Unknown;
        }
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(done: &[(&str, u64)], failures: &[(&str, Code)]) -> Report {
        let mut report = Report::default();
        done.iter().for_each(|(name, count)| report.done(&(*name).into(), *count));
        failures.iter().for_each(|(name, code)| report.failed(&(*name).into(), Error::new(*code, "it failed")));
        report
    }

    #[test]
    fn a_part_that_was_done_is_named() {
        assert_eq!(report(&[("r1", 2), ("r2", 3)], &[]).into_result(None), Ok(5));
        let error = report(&[("r1", 2)], &[("r2", Code::DuplicateKey)]).into_result(None).unwrap_err();
        assert_eq!(error.code, Code::DuplicateKey);
        assert!(error.message.contains("r1: 2 rows changed; r2: nothing changed, it failed"), "{error}");
        let error = report(&[("r1", 2)], &[("r2", Code::NoMaster)]).into_result(None).unwrap_err();
        assert_eq!(error.code, Code::Unknown, "it can not be sent again as it is");
        let error = report(&[], &[("r2", Code::Unknown)]).into_result(None).unwrap_err();
        assert_eq!(error.message, "it failed (replicaset r2)");
    }

    #[test]
    fn a_conflict_with_nothing_done_stays_one() {
        let error = report(&[("r1", 0)], &[("r2", Code::Conflict)]).into_result(None).unwrap_err();
        assert_eq!(error.code, Code::Conflict);
        let error = report(&[("r1", 1)], &[("r2", Code::Conflict)]).into_result(None).unwrap_err();
        assert_eq!(error.code, Code::Unknown);
    }
}
