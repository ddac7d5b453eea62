//! Linearizable reads: which are waiting, which were asked about, which may be answered.
//!
//! All reads that arrive before one `Ready` share one question to the leader. A question that gets lost, or that a leader
//! drops because it is too new, is simply asked again: the answer to a later question answers all reads asked before.

use crate::config::Config;
use crate::rng::Rng;
use model::{Code, Error, RaftId, Result};
use std::collections::VecDeque;

/// The length of a question's ticket on the wire: raft id, nonce of this start, number.
pub(crate) const TICKET_BYTES: usize = 24;

#[derive(Debug)]
pub(crate) struct Reads {
    raft_id: RaftId,
    /// Tells the tickets of this start from those of an earlier one, whose late answers would be too old.
    nonce: u64,
    reads_max: usize,
    /// The number of the last question asked.
    asked: u64,
    ticks_since_asked: u32,
    /// (the question that covers it, context), oldest first. Questions above `asked` are still to be asked.
    waiting: VecDeque<(u64, u64)>,
    /// (index that must be applied first, context).
    answered: Vec<(u64, u64)>,
}

impl Reads {
    pub fn new(config: &Config, rng: &mut Rng) -> Self {
        Self {
            raft_id: config.raft_id,
            nonce: rng.draw(),
            reads_max: config.reads_max,
            asked: 0,
            ticks_since_asked: 0,
            waiting: VecDeque::new(),
            answered: Vec::new(),
        }
    }

    pub fn add(&mut self, context: u64) -> Result<()> {
        if self.waiting.len() + self.answered.len() >= self.reads_max {
            return Err(Error::new(Code::LimitExceeded, format!("more than {} reads wait for Raft", self.reads_max)));
        }
        self.waiting.push_back((self.asked + 1, context));
        Ok(())
    }

    /// Whether there are reads that no question covers yet.
    pub fn is_question_due(&self) -> bool {
        self.waiting.back().is_some_and(|(question, _)| *question > self.asked)
    }

    /// The ticket of the next question.
    pub fn ask(&mut self) -> [u8; TICKET_BYTES] {
        self.asked += 1;
        self.ticks_since_asked = 0;
        let mut ticket = [0; TICKET_BYTES];
        ticket[..8].copy_from_slice(&self.raft_id.to_be_bytes());
        ticket[8..16].copy_from_slice(&self.nonce.to_be_bytes());
        ticket[16..].copy_from_slice(&self.asked.to_be_bytes());
        ticket
    }

    /// Time goes by; true when the question must be asked again.
    pub fn tick(&mut self, patience_ticks: u32) -> bool {
        self.ticks_since_asked = self.ticks_since_asked.saturating_add(1);
        !self.waiting.is_empty() && self.ticks_since_asked >= patience_ticks
    }

    /// The leader's answer: what was committed when the question reached it. Foreign tickets are ignored.
    pub fn answer(&mut self, ticket: &[u8], index: u64) {
        let Some((head, question)) = ticket.split_at_checked(16) else { return };
        let Ok(question) = question.try_into().map(u64::from_be_bytes) else { return };
        let is_ours = head[..8] == self.raft_id.to_be_bytes() && head[8..] == self.nonce.to_be_bytes();
        if !is_ours || question > self.asked {
            return;
        }
        while let Some((_, context)) = self.waiting.pop_front_if(|(asked, _)| *asked <= question) {
            self.answered.push((index, context));
        }
    }

    pub fn is_servable(&self, applied: u64) -> bool {
        self.answered.iter().any(|(index, _)| *index <= applied)
    }

    /// The contexts of the reads that a state with `applied` may answer.
    pub fn take_servable(&mut self, applied: u64) -> Vec<u64> {
        self.answered.extract_if(.., |(index, _)| *index <= applied).map(|(_, context)| context).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(seed: u64) -> Reads {
        Reads::new(&Config { reads_max: 3, ..Config::new(1, seed) }, &mut Rng::new(seed))
    }

    #[test]
    fn a_later_answer_answers_all_earlier_reads() {
        let mut reads = reads(1);
        reads.add(10).unwrap();
        reads.ask();
        reads.add(11).unwrap();
        assert!(reads.is_question_due());
        let second = reads.ask();
        reads.add(12).unwrap();
        reads.answer(&second, 7);
        assert_eq!(reads.take_servable(6), []);
        assert_eq!(reads.take_servable(7), [10, 11]);
        assert!(reads.is_question_due(), "12 came after the second question");
    }

    #[test]
    fn an_early_answer_does_not_answer_later_reads() {
        let mut reads = reads(1);
        reads.add(10).unwrap();
        let first = reads.ask();
        reads.add(11).unwrap();
        reads.ask();
        reads.answer(&first, 7);
        assert_eq!(reads.take_servable(9), [10]);
        assert!(reads.tick(1), "11 still waits");
    }

    #[test]
    fn foreign_tickets_are_ignored_and_reads_are_bounded() {
        let (mut ours, mut restarted) = (reads(1), reads(2));
        ours.add(1).unwrap();
        restarted.add(2).unwrap();
        ours.ask();
        ours.answer(&restarted.ask(), 5);
        ours.answer(b"", 5);
        ours.answer(&[0; 17], 5);
        assert!(!ours.is_servable(9));
        ours.add(2).unwrap();
        ours.add(3).unwrap();
        assert_eq!(ours.add(4).unwrap_err().code, Code::LimitExceeded);
    }
}
