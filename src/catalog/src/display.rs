//! Operations in words, for logs and tests.

use crate::op::Op;
use model::SchemaChange;
use std::collections::BTreeSet;
use std::fmt;

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Bootstrap { cluster, instance, .. } => write!(f, "bootstrap cluster {cluster} with {}", instance.name),
            Op::Join { instance, tier, replaces: None } => {
                write!(f, "{} joins tier {tier} from {}", instance.name, instance.address)
            }
            Op::Join { instance, tier, replaces: Some(_) } => {
                write!(f, "{} joins tier {tier} anew from {}", instance.name, instance.address)
            }
            Op::Renumber { instance, forgets, .. } => {
                write!(f, "{} is not number {forgets} in Raft any more", instance.name)
            }
            Op::SetInstanceState { instance, incarnation, state } => {
                write!(f, "{instance} is {} in incarnation {incarnation}", state.name())
            }
            Op::UpdateAddress { instance, address, .. } => write!(f, "{instance} is at {address}"),
            Op::Expel { instance } => write!(f, "expel {instance}"),
            Op::SetMaster { replicaset, term, master: Some(master), kept } => {
                write!(f, "{replicaset} has master {master} in term {term}")?;
                kept.as_ref().map_or(Ok(()), |kept| write!(f, " with {}", kept.clock))
            }
            Op::SetMaster { replicaset, term, master: None, .. } => {
                write!(f, "{replicaset} begins term {term} without a master")
            }
            Op::SetInSync { replicaset, in_sync, .. } => write!(f, "{replicaset} has in sync: {}", list(in_sync)),
            Op::HandOver { replicaset, to } => write!(f, "{replicaset} is to be handed over to {to}"),
            Op::Recover { lost } => write!(f, "go on without {}", list(lost)),
            Op::SetWeight { replicaset, weight } => write!(f, "{replicaset} weighs {weight}"),
            Op::AddTier { tier } => write!(f, "add tier {}", tier.name),
            Op::PutSetting { name, value } => write!(f, "set {name} to {value}"),
            Op::SchemaPrepare { change, .. } => write!(f, "prepare {}", describe(change)),
            Op::SchemaCommit { id } => write!(f, "commit schema change {id}"),
            Op::SchemaAbort { id, reason } => write!(f, "abort schema change {id}: {reason}"),
            Op::AssignBuckets { tier, owners } => {
                write!(f, "first buckets of tier {tier}:")?;
                owners.iter().try_for_each(|(buckets, owner)| write!(f, " {buckets} {owner}"))
            }
            Op::MoveStart { buckets, from, to, .. } => write!(f, "start moving {buckets} from {from} to {to}"),
            Op::MoveFinish { id, source, destination } => write!(f, "finish move {id} from {source} to {destination}"),
            Op::MoveAbort { id, reason } => write!(f, "abort move {id}: {reason}"),
            Op::MoveDone { id } => write!(f, "move {id} is cleaned up"),
            Op::SequenceLease { id, from, count } => write!(f, "lease {count} numbers of sequence {id} from {from}"),
            Op::GlobalWrite { table, changes, .. } => write!(f, "{} bytes of changes of table {table}", changes.len()),
        }
    }
}

fn describe(change: &SchemaChange) -> String {
    match change {
        SchemaChange::CreateTable { table } => format!("create table {}", table.name),
        SchemaChange::DropTable { table, .. } => format!("drop table {table}"),
        SchemaChange::CreateIndex { table, index } => format!("create index {} on {table}", index.name),
        SchemaChange::DropIndex { table, index } => format!("drop index {index} on {table}"),
        SchemaChange::Truncate { table } => format!("truncate {table}"),
        SchemaChange::AlterTable { table, .. } => format!("alter table {table}"),
        SchemaChange::CreateView { view, .. } => format!("create view {}", view.name),
        SchemaChange::DropView { view, .. } => format!("drop view {view}"),
        SchemaChange::CreateSequence { name, .. } => format!("create sequence {name}"),
        SchemaChange::DropSequence { name } => format!("drop sequence {name}"),
    }
}

fn list<T: fmt::Display>(items: &BTreeSet<T>) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(" ")
}
