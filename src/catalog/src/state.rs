//! The state itself, its snapshot and its digest.

use crate::op::{decode, encode};
use crate::placement::Placement;
use crate::schema::Schema;
use crate::sequences::Sequences;
use crate::settings::Settings;
use crate::shared::Shared;
use crate::topology::Topology;
use model::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Which cluster it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    pub name: String,
    /// A UUID as text: tells clusters of one name apart.
    pub id: String,
}

/// Everything that the cluster knows about itself. Cloning costs a few counters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The log index of the last entry applied.
    pub index: u64,
    /// Counts the entries that changed something.
    pub version: u64,
    /// None before the cluster is bootstrapped.
    pub cluster: Option<Cluster>,
    pub settings: Shared<Settings>,
    pub topology: Shared<Topology>,
    pub schema: Shared<Schema>,
    pub placement: Shared<Placement>,
    #[serde(default)]
    pub sequences: Shared<Sequences>,
}

impl State {
    /// The state for a snapshot.
    ///
    /// Errors: `Internal` when the encoder refuses, which no state makes it do.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        encode(self)
    }

    /// Reads what `to_bytes` wrote.
    ///
    /// Errors: `Corrupted` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let state: Self = decode("catalog snapshot", bytes)?;
        state
            .check()
            .map_err(|broken| Error::new(Code::Corrupted, format!("a catalog snapshot is broken: {broken}")))?;
        Ok(state)
    }

    /// A fingerprint of everything but the log index and the positions of sequences: equal on instances at the same
    /// version.
    ///
    /// Errors: as `to_bytes`.
    pub fn digest(&self) -> Result<u64> {
        let sequences = Shared::new(self.sequences.without_positions());
        let timeless = Self { index: 0, sequences, ..self.clone() };
        Ok(xxh3_64(&timeless.to_bytes()?))
    }

    /// What holds between the parts of any state that came about by `apply`.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        let ensure = |holds: bool, what: &dyn Fn() -> String| if holds { Ok(()) } else { Err(what()) };
        let topology = &self.topology;
        for (name, instance) in &topology.instances {
            let keyed = instance.name == *name && instance.raft_id <= topology.raft_id_last;
            ensure(keyed, &|| format!("instance \"{name}\" has a wrong name or Raft id"))?;
        }
        for (name, replicaset) in &topology.replicasets {
            ensure(topology.tiers.contains_key(&replicaset.tier), &|| format!("\"{name}\" is of no tier"))?;
            let members: Vec<_> = topology.members(name).map(|member| &member.name).collect();
            ensure(!members.is_empty(), &|| format!("\"{name}\" has no members"))?;
            ensure(replicaset.in_sync.iter().all(|i| members.contains(&i)), &|| {
                format!("\"{name}\" counts a stranger in sync")
            })?;
            let crowned = replicaset.master.as_ref().is_none_or(|master| replicaset.in_sync.contains(master));
            ensure(crowned, &|| format!("the master of \"{name}\" is not in sync"))?;
        }
        for (tier, entry) in &self.placement.maps {
            let wanted = topology.tiers.get(tier).map(|tier| tier.bucket_count);
            ensure(wanted == Some(entry.map.bucket_count()), &|| format!("the map of \"{tier}\" has a wrong size"))?;
            let known = entry.map.ranges().iter().all(|range| topology.replicasets.contains_key(&range.replicaset));
            ensure(known, &|| format!("buckets of \"{tier}\" belong to nobody"))?;
        }
        for (name, table) in &self.schema.tables {
            ensure(table.name == *name, &|| format!("table \"{name}\" has a wrong name"))?;
            let sequences = table.columns.iter().filter_map(|column| column.generated.as_ref()?.sequence());
            let mut running = sequences.map(|sequence| self.sequences.running.contains_key(&sequence.id));
            ensure(running.all(|is_running| is_running), &|| format!("table \"{name}\" counts on no sequence"))?;
        }
        for (name, view) in &self.schema.views {
            let is_there =
                |used: &String| self.schema.tables.contains_key(used) || self.schema.views.contains_key(used);
            let is_whole = view.name == *name && view.uses.iter().all(is_there);
            ensure(is_whole, &|| format!("view \"{name}\" reads what is not there"))?;
            ensure(!self.schema.tables.contains_key(name), &|| format!("\"{name}\" is a table and a view"))?;
        }
        Ok(())
    }
}
