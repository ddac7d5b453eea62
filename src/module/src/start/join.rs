//! The conversation between an instance that wants to join and the cluster: what is asked and what is answered.

use boot::Address;
use model::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Asked of any member, which passes it to the Raft leader.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JoinRequest {
    pub cluster: String,
    pub cluster_id: String,
    pub name: String,
    pub instance_uuid: String,
    pub address: Address,
    pub tier: String,
    pub failure_domain: BTreeMap<String, String>,
    /// The UUID of the data that this instance has thrown away.
    #[serde(default)]
    pub replaces: Option<String>,
    /// The number in Raft under which this instance's log has lost its end; its data stays.
    #[serde(default)]
    pub forgets: Option<u64>,
}

/// Where the new instance belongs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JoinAnswer {
    pub raft_id: u64,
    pub replicaset_uuid: String,
    /// The address of the replicaset's master, whose storage is to be copied; empty for its first member.
    pub donors: Vec<Address>,
    /// The term of that master.
    pub term: u64,
}

/// Encodes one of the structures of this conversation as the only argument or the result of a call.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    rmp_serde::to_vec_named(value).map_err(|e| Error::internal(format!("a message can not be encoded: {e}")))
}

/// Errors: `Argument` when the bytes are something else.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    rmp_serde::from_slice(bytes)
        .map_err(|e| Error::new(model::Code::Argument, format!("a message between instances can not be read: {e}")))
}
