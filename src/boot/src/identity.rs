//! Who a data folder belongs to: a small file that is read before any storage is opened.
//!
//! It is written before the instance asks to join, so that an attempt that broke off goes on under the same uuid.

use crate::address::Address;
use crate::config::Config;
use model::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The file's name inside the data folder.
pub const FILE_NAME: &str = "picodata.identity";

/// How far the instance has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Asking to join: nothing in the folder is worth keeping.
    Joining,
    /// A member that has thrown its data away and asks for its place again: nothing in the folder is worth keeping, and
    /// a cluster is never founded from here.
    Rejoining {
        cluster_id: String,
        /// The UUID of the data that is gone.
        replaces: String,
        /// Where the other members were last.
        members: BTreeSet<Address>,
    },
    /// A member that keeps its rows and has lost the end of its Raft log: it asks to take part under another number, and
    /// a cluster is never founded from here.
    WithoutLog {
        cluster_id: String,
        /// The number that it had.
        raft_id: u64,
        replicaset_uuid: String,
        joined_in: u64,
        members: BTreeSet<Address>,
    },
    /// A member. Raft's number and the replicaset are fixed from here on.
    Member {
        cluster_id: String,
        raft_id: u64,
        replicaset_uuid: String,
        bootstrap: bool,
        /// The master term of the replicaset when its master was named as the one to copy.
        #[serde(default)]
        joined_in: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Of the file's form.
    pub version: u32,
    pub cluster: String,
    pub name: String,
    pub instance_uuid: String,
    pub stage: Stage,
    /// The first member of a replicaset is making its storage: until it has, nothing in the folder is worth keeping.
    #[serde(default)]
    pub is_making_storage: bool,
}

const VERSION: u32 = 1;

impl Identity {
    pub fn new(config: &Config, instance_uuid: String) -> Self {
        Self {
            version: VERSION,
            cluster: config.cluster.clone(),
            name: config.name.clone(),
            instance_uuid,
            stage: Stage::Joining,
            is_making_storage: false,
        }
    }

    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        rmp_serde::to_vec_named(self).map_err(|e| Error::internal(format!("the identity can not be encoded: {e}")))
    }

    /// Errors: `Corrupted` when the bytes are no identity or one of a newer form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let broken = |why: String| {
            Error::new(Code::Corrupted, format!("{FILE_NAME} can not be read: {why}"))
                .with_hint("restore the folder from a copy, or expel the instance and start it with an empty data_dir")
        };
        let identity: Self = rmp_serde::from_slice(bytes).map_err(|e| broken(e.to_string()))?;
        if identity.version != VERSION {
            return Err(broken(format!("its version is {}, this picodata reads {VERSION}", identity.version)));
        }
        Ok(identity)
    }

    /// The identity of this member once it has thrown its data away.
    pub fn anew(&self, instance_uuid: String, cluster_id: &str, members: BTreeSet<Address>) -> Self {
        let replaces = self.instance_uuid.clone();
        let stage = Stage::Rejoining { cluster_id: cluster_id.to_owned(), replaces, members };
        Self { instance_uuid, stage, ..self.clone() }
    }

    /// The identity of this member once its Raft log counts for nothing; None for who is not a member.
    pub fn without_log(&self, members: BTreeSet<Address>) -> Option<Self> {
        let Stage::Member { cluster_id, raft_id, replicaset_uuid, joined_in, .. } = self.stage.clone() else {
            return None;
        };
        let stage = Stage::WithoutLog { cluster_id, raft_id, replicaset_uuid, joined_in, members };
        Some(Self { stage, ..self.clone() })
    }

    /// Refuses to run an instance on the data of another. Errors: `Config`, `ForeignCluster`.
    pub fn check(&self, config: &Config) -> Result<()> {
        if self.name != config.name {
            let message =
                format!("{} holds the data of instance \"{}\", not of \"{}\"", config.data_dir, self.name, config.name);
            return Err(Error::new(Code::Config, message).with_hint("give each instance a data_dir of its own"));
        }
        if self.cluster != config.cluster {
            let message = format!(
                "{} holds data of cluster \"{}\", not of \"{}\"",
                config.data_dir, self.cluster, config.cluster
            );
            return Err(Error::new(Code::ForeignCluster, message).with_hint("give each instance a data_dir of its own"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_survive_and_guard_their_folder() {
        let options = [&[0x81, 0xa4][..], b"name", &[0xa2], b"i1"].concat();
        let config = Config::read(&options, 1).unwrap();
        let mut identity = Identity::new(&config, "u".into());
        identity.stage = Stage::Member {
            cluster_id: "c".into(),
            raft_id: 3,
            replicaset_uuid: "r".into(),
            bootstrap: true,
            joined_in: 2,
        };
        let back = Identity::from_bytes(&identity.to_bytes().unwrap()).unwrap();
        assert_eq!(back, identity);
        assert!(back.check(&config).is_ok());
        assert_eq!(Identity { name: "i2".into(), ..back.clone() }.check(&config).unwrap_err().code, Code::Config);
        assert_eq!(
            Identity { cluster: "x".into(), ..back.clone() }.check(&config).unwrap_err().code,
            Code::ForeignCluster
        );
        let without_log = back.without_log(BTreeSet::new()).unwrap();
        assert!(matches!(&without_log.stage, Stage::WithoutLog { joined_in: 2, .. }));
        assert_eq!(Identity::from_bytes(&without_log.to_bytes().unwrap()).unwrap(), without_log);
        assert_eq!(without_log.without_log(BTreeSet::new()), None);
        let newer = Identity { version: 9, ..back };
        assert_eq!(Identity::from_bytes(&newer.to_bytes().unwrap()).unwrap_err().code, Code::Corrupted);
        assert_eq!(Identity::from_bytes(b"junk").unwrap_err().code, Code::Corrupted);
    }
}
