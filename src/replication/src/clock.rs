//! A vector clock of the host: how many rows of each member somebody has.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Rows by the number of the member that wrote them. Rows of local spaces (number 0) are nobody else's and do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Vclock(BTreeMap<u32, u64>);

impl Vclock {
    /// How many rows of this member there are.
    pub fn get(&self, number: u32) -> u64 {
        self.0.get(&number).copied().unwrap_or(0)
    }

    pub fn set(&mut self, number: u32, rows: u64) {
        if number != 0 {
            self.0.insert(number, rows);
        }
    }

    /// All rows. Of members that follow one master, who has more rows has all that the other has.
    pub fn total(&self) -> u64 {
        self.0.values().fold(0, |sum, rows| sum.saturating_add(*rows))
    }

    /// Whether all rows of `other` are among these.
    pub fn covers(&self, other: &Vclock) -> bool {
        other.iter().all(|(number, rows)| rows <= self.get(number))
    }

    /// The rows that are in both.
    pub fn shared(&self, other: &Vclock) -> Vclock {
        self.iter().map(|(number, rows)| (number, rows.min(other.get(number)))).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, u64)> {
        self.0.iter().filter(|(number, _)| **number != 0).map(|(number, rows)| (*number, *rows))
    }
}

impl FromIterator<(u32, u64)> for Vclock {
    fn from_iter<I: IntoIterator<Item = (u32, u64)>>(rows: I) -> Self {
        Self(rows.into_iter().filter(|(number, _)| *number != 0).collect())
    }
}

impl fmt::Display for Vclock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (at, (number, rows)) in self.iter().enumerate() {
            write!(f, "{}{number}:{rows}", if at == 0 { "" } else { " " })?;
        }
        f.write_str("}")
    }
}
