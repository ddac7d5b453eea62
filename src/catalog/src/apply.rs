//! How an entry changes the state: its guard, its operation, and what the module has to act on afterwards.
//!
//! An operation checks everything before it changes anything. It never panics, whatever the entry holds: an entry that
//! makes no sense is refused, alike on every instance.

use crate::op::{Entry, Guard, Op, Part};
use crate::placement::MoveId;
use crate::schema::{PendingChange, SchemaId};
use crate::settings::Setting;
use crate::state::State;
use model::{Code, Error, InstanceName, ReplicasetName, Result, SequenceId, TableId, TierName};
use std::sync::Arc;

/// What became of an entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It holds; the catalog is at `version`. No changes: everything was so already.
    Applied { version: u64, changes: Vec<Change> },
    /// It lost against another change, which the error names. See `Op::is_resendable`.
    Conflict(Error),
    /// It can not be, whenever it is asked.
    Refused(Error),
}

impl Outcome {
    /// The answer for whoever proposed the entry.
    pub fn into_result(self) -> Result<u64> {
        match self {
            Outcome::Applied { version, .. } => Ok(version),
            Outcome::Conflict(error) | Outcome::Refused(error) => Err(error),
        }
    }
}

/// What an entry changed: names and ids to look up in the state, where they may be gone.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Cluster,
    Setting(String),
    Tier(TierName),
    Instance(InstanceName),
    Replicaset(ReplicasetName),
    /// A definition or its state.
    Table(TableId),
    SchemaPending(SchemaId),
    /// The masters now destroy what the change took away.
    SchemaCommitted(Arc<PendingChange>),
    /// The masters now take down what they had built for it.
    SchemaAborted {
        aborted: Arc<PendingChange>,
        reason: String,
    },
    /// The owners of a tier's buckets.
    Buckets(TierName),
    Move(MoveId),
    /// The entry's `changes` are to be written to this table.
    GlobalRows(TableId),
    /// Numbers of a sequence were leased.
    Leased(SequenceId),
}

impl Change {
    /// Whether the change makes a new version: rows and the positions of sequences do not age what was planned on the
    /// catalog.
    fn makes_version(&self) -> bool {
        !matches!(self, Change::GlobalRows(_) | Change::Leased(_))
    }
}

pub(crate) type Changes = Result<Vec<Change>>;

pub(crate) fn conflict(message: String) -> Error {
    Error::new(Code::Conflict, message)
}

impl State {
    /// Applies the entry at `index` of the log. Deterministic.
    pub fn apply(&mut self, index: u64, entry: &Entry) -> Outcome {
        if index <= self.index {
            let message = format!("entry {index} was applied already: the catalog is at {}", self.index);
            return Outcome::Refused(Error::internal(message));
        }
        self.index = index;
        match self.check_guard(&entry.guard).and_then(|()| self.apply_op(index, &entry.op)) {
            Ok(changes) => {
                if changes.iter().any(Change::makes_version) {
                    self.version += 1;
                }
                Outcome::Applied { version: self.version, changes }
            }
            Err(error) if error.code == Code::Conflict => Outcome::Conflict(error),
            Err(error) => Outcome::Refused(error),
        }
    }

    fn apply_op(&mut self, index: u64, op: &Op) -> Changes {
        let version = self.version + 1;
        match op {
            Op::Bootstrap { cluster, id, instance, tier, settings } => {
                self.bootstrap((cluster, id), instance, tier, settings, version)
            }
            Op::Join { instance, tier, replaces } => self.join(instance, tier, replaces.as_deref(), version),
            Op::Renumber { instance, tier, forgets } => self.renumber(instance, tier, *forgets, version),
            Op::SetInstanceState { instance, incarnation, state } => {
                self.set_instance_state(instance, *incarnation, *state, version)
            }
            Op::UpdateAddress { instance, incarnation, address } => {
                self.update_address(instance, *incarnation, address, version)
            }
            Op::Expel { instance } => self.expel(instance, version),
            Op::SetMaster { replicaset, term, master, kept } => {
                self.set_master(replicaset, *term, (master.as_ref(), kept.as_ref()), version)
            }
            Op::SetInSync { replicaset, term, in_sync, promised } => {
                self.set_in_sync(replicaset, *term, (in_sync, promised), version)
            }
            Op::HandOver { replicaset, to } => self.hand_over(replicaset, to, version),
            Op::Recover { lost } => self.recover(lost, version),
            Op::SetWeight { replicaset, weight } => self.set_weight(replicaset, *weight, version),
            Op::AddTier { tier } => self.add_tier(tier, version),
            Op::PutSetting { name, value } => self.put_setting(name, value, version),
            Op::SchemaPrepare { change, timeout_ms } => self.schema_prepare(index, change, *timeout_ms, version),
            Op::SchemaCommit { id } => self.schema_commit(*id, version),
            Op::SchemaAbort { id, reason } => self.schema_abort(*id, reason, version),
            Op::AssignBuckets { tier, owners } => self.assign_buckets(tier, owners, version),
            Op::MoveStart { tier, buckets, from, to } => self.move_start(tier, *buckets, (from, to), version),
            Op::MoveFinish { id, source, destination } => self.move_finish(*id, source, destination, version),
            Op::MoveAbort { id, reason: _ } => self.move_abort(*id, version),
            Op::MoveDone { id } => self.move_done(*id),
            Op::SequenceLease { id, from, count } => self.sequence_lease(*id, *from, *count),
            Op::GlobalWrite { table, table_version, changes: _ } => self.global_write(*table, *table_version),
        }
    }

    fn put_setting(&mut self, name: &str, value: &model::Value, version: u64) -> Changes {
        let setting = Setting::from_name(name)?;
        if !value.is_null() {
            setting.check(value)?;
        }
        let changed = self.settings.make_mut().put(setting, value, version);
        Ok(if changed { vec![Change::Setting(name.to_owned())] } else { vec![] })
    }

    fn check_guard(&self, guard: &Guard) -> Result<()> {
        match guard {
            Guard::None => Ok(()),
            Guard::Catalog(version) if *version == self.version => Ok(()),
            Guard::Catalog(version) => {
                Err(conflict(format!("the catalog is at version {}, not {version}", self.version)))
            }
            Guard::Part { part, version } => match self.version_of(part) {
                now if now == *version => Ok(()),
                now => Err(conflict(format!("{} is at version {now}, not {version}", describe(part)))),
            },
        }
    }

    /// The version of a part, for a guard; 0 when it does not exist.
    pub fn version_of(&self, part: &Part) -> u64 {
        let version = match part {
            Part::Instance(name) => self.topology.instances.get(name).map(|instance| instance.version),
            Part::Replicaset(name) => self.topology.replicasets.get(name).map(|replicaset| replicaset.version),
            Part::Tier(name) => self.topology.tiers.get(name).map(|tier| tier.version),
            Part::Table(name) => self.schema.tables.get(name).map(|table| table.version),
            Part::Schema => Some(self.schema.version),
            Part::Setting(name) => self.settings.stored.get(name).map(|stored| stored.version),
            Part::Buckets(tier) => self.placement.maps.get(tier).map(|entry| entry.version),
            Part::Move(id) => self.placement.moves.get(id).map(|record| record.version),
        };
        version.unwrap_or(0)
    }
}

fn describe(part: &Part) -> String {
    match part {
        Part::Instance(name) => format!("instance \"{name}\""),
        Part::Replicaset(name) => format!("replicaset \"{name}\""),
        Part::Tier(name) => format!("tier \"{name}\""),
        Part::Table(name) => format!("table \"{name}\""),
        Part::Schema => "the schema".into(),
        Part::Setting(name) => format!("setting \"{name}\""),
        Part::Buckets(tier) => format!("the bucket map of tier \"{tier}\""),
        Part::Move(id) => format!("move {id}"),
    }
}
