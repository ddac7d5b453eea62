//! What an instance notes beside its storage whenever it begins to follow a master: enough to find out at the next start
//! whether its rows are still of the replicaset's history, before it reads them.

use crate::address::Address;
use model::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The file's name inside the data folder.
pub const FILE_NAME: &str = "picodata.followed";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Followed {
    /// The last term whose master the instance followed or was, or a later one.
    pub term: u64,
    /// The start of the machine under which this was written. The file is not synced: after a loss of power an older one
    /// may be there, and counts for nothing.
    pub machine: u64,
    /// Where the other members were.
    pub members: BTreeSet<Address>,
}

impl Followed {
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        rmp_serde::to_vec_named(self).map_err(|e| Error::internal(format!("{FILE_NAME} can not be encoded: {e}")))
    }

    /// None for what is something else: the file is a shortcut only.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        rmp_serde::from_slice(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_survive_and_junk_is_none() {
        let members = BTreeSet::from(["localhost:3301".parse().unwrap()]);
        let followed = Followed { term: 7, machine: u64::MAX >> 4, members };
        let bytes = followed.to_bytes().unwrap();
        assert_eq!(Followed::from_bytes(&bytes), Some(followed));
        assert_eq!(Followed::from_bytes(&bytes[..bytes.len() - 3]), None);
        assert_eq!(Followed::from_bytes(b"junk"), None);
    }
}
