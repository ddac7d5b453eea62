//! What happened, as a digest that two runs can compare and, on demand, as lines to read.

use std::collections::VecDeque;
use xxhash_rust::xxh3::xxh3_64_with_seed;

const LINES_MAX: usize = 400;

#[derive(Debug, Default)]
pub struct Trace {
    digest: u64,
    is_kept: bool,
    lines: VecDeque<String>,
}

impl Trace {
    /// `is_kept`: whether lines are kept, which takes time.
    pub fn new(is_kept: bool) -> Self {
        Self { is_kept, ..Self::default() }
    }

    /// Something happened, at a time, to somebody.
    pub fn note(&mut self, now_us: u64, raft_id: u64, what: &[u8]) {
        self.digest = xxh3_64_with_seed(what, self.digest ^ now_us.rotate_left(20) ^ raft_id);
    }

    /// The same in words, which are made only when somebody reads them.
    pub fn say(&mut self, now_us: u64, text: impl FnOnce() -> String) {
        if self.is_kept {
            if self.lines.len() == LINES_MAX {
                self.lines.pop_front();
            }
            self.lines.push_back(format!("{:>10.3} ms  {}", now_us as f64 / 1000.0, text()));
        }
    }

    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The last lines, oldest first.
    pub fn lines(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }
}
