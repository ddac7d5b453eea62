//! Lives of a replicaset: scenes as scripts, and any life at all as a property.
//!
//! The model of a replicaset here keeps real rows, each with who wrote it and in which term, so that it knows what
//! clocks alone do not: whether two logs agree.

use goldenscript::{Command, Context, Runner};
use proptest::prelude::*;
use replication::{History, Kept, Vclock};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;

/// A row: the member that wrote it, its place among that member's rows, and the term that it was written in.
type Row = (u32, u64, u64);

#[derive(Clone, Default)]
struct Member {
    rows: Vec<Row>,
    seen: u64,
}

impl Member {
    fn clock(&self) -> Vclock {
        let mut clock = Vclock::default();
        self.rows.iter().for_each(|(number, place, _)| clock.set(*number, *place));
        clock
    }
}

#[derive(Default)]
struct Replicaset {
    members: BTreeMap<u32, Member>,
    master: u32,
    term: u64,
    history: History,
}

impl Replicaset {
    fn member(&mut self, number: u32) -> &mut Member {
        self.members.entry(number).or_default()
    }

    /// The master writes.
    fn write(&mut self, rows: u64) {
        let (master, term) = (self.master, self.term);
        let member = self.member(master);
        for _ in 0..rows {
            let place = member.clock().get(master) + 1;
            member.rows.push((master, place, term));
        }
    }

    /// A member that follows the master of some term pulls up to so many rows from it, as the host does: the rows beyond
    /// its own clock.
    fn pull(&mut self, from: u32, to: u32, rows: usize) {
        let source = self.member(from).rows.clone();
        let clock = self.member(to).clock();
        let missing: Vec<Row> = source.into_iter().filter(|(n, place, _)| *place > clock.get(*n)).take(rows).collect();
        self.member(to).rows.extend(missing);
    }

    fn stray(&self, number: u32) -> Option<String> {
        let member = self.members.get(&number)?;
        self.history.stray(member.seen, &member.clock()).map(|stray| stray.to_string())
    }

    /// Makes a member master, and wipes it first when it has a tail.
    fn promote(&mut self, number: u32) {
        self.term += 1;
        let is_same = self.master == number;
        self.master = number;
        let term = self.term;
        let member = self.member(number);
        member.seen = term;
        let kept = Kept::new(number, member.clock());
        self.history.begin(term, kept, is_same);
    }

    /// The master comes back without the last rows of its log.
    fn lose(&mut self, rows: usize) {
        let master = self.master;
        let log = &mut self.member(master).rows;
        log.truncate(log.len().saturating_sub(rows));
        self.promote(master);
    }

    /// The member follows the master from now on, if it may.
    fn follow(&mut self, number: u32) -> Result<(), String> {
        if let Some(stray) = self.stray(number) {
            return Err(stray);
        }
        let term = self.term;
        self.member(number).seen = term;
        Ok(())
    }

    /// The member is emptied and copies the master, under a number that may have been another's.
    fn replace(&mut self, old: u32, new: u32) {
        self.members.remove(&old);
        let rows = self.member(self.master).rows.clone();
        self.members.insert(new, Member { rows, seen: self.term });
    }
}

impl Runner for Replicaset {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let rows: u64 = args.take_key("rows").unwrap_or("1").parse()?;
        let numbers: Vec<u32> = std::iter::from_fn(|| args.next_pos().map(str::to_owned))
            .map(|word| word.parse())
            .collect::<Result<_, _>>()?;
        args.reject_next()?;
        let number = |at: usize| numbers.get(at).copied().ok_or("a number is missing");
        let mut out = String::new();
        match command.name.as_str() {
            "master" => self.promote(number(0)?),
            "write" => self.write(rows),
            "lose" => self.lose(usize::try_from(rows)?),
            "pull" => self.pull(number(0)?, number(1)?, usize::try_from(rows)?),
            "replace" => self.replace(number(0)?, number(1)?),
            "follow" => match self.follow(number(0)?) {
                Ok(()) => writeln!(out, "it follows {}", self.master)?,
                Err(stray) => writeln!(out, "stray: {stray}")?,
            },
            "show" => {
                for (number, member) in &self.members {
                    let role = if *number == self.master { ", master" } else { "" };
                    writeln!(out, "{number}: {} seen {}{role}", member.clock(), member.seen)?;
                }
            }
            other => return Err(format!("no command {other}").into()),
        }
        Ok(out)
    }
}

#[test]
fn scenes() {
    let path = format!("{}/tests/scripts/cuts", env!("CARGO_MANIFEST_DIR"));
    goldenscript::run(&mut Replicaset::default(), path).expect("the script runs");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happened: a member that may follow the master has a beginning of the master's log and nothing else.
    #[test]
    fn who_may_follow_agrees_with_the_master(events in proptest::collection::vec(any::<[u8; 4]>(), 1..80)) {
        let mut set = Replicaset::default();
        set.promote(1);
        set.write(3);
        (2..=4).for_each(|number| set.replace(number, number));
        for [kind, a, b, c] in events {
            let (number, other) = (1 + u32::from(a % 4), 1 + u32::from(b % 4));
            match kind % 9 {
                0 | 1 => set.write(u64::from(c % 4)),
                // Whoever was following somebody goes on doing so until it is told otherwise.
                2 | 3 => if set.members[&number].seen == set.members[&other].seen {
                    set.pull(other, number, usize::from(c % 6));
                },
                // A new master has no tail of its own.
                4 => if set.stray(number).is_none() {
                    set.promote(number);
                },
                5 | 6 => if set.stray(number).is_none() {
                    set.follow(number).unwrap();
                    let log = set.members[&set.master].rows.clone();
                    let rows = &set.members[&number].rows;
                    prop_assert!(log.starts_with(rows), "{number} has {rows:?}, the master {log:?}");
                },
                7 => set.lose(usize::from(c % 4)),
                // Members come back under the numbers that are free, their own or another's.
                _ => if number != set.master && set.stray(number).is_some() {
                    set.replace(number, number);
                },
            }
        }
    }
}
