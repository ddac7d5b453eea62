//! `picodata.recover`: instances are lost for good without which nothing can go on, and an operator decides that it does.
//!
//! Without a majority of the voters, the instance that is asked becomes the only voter of a log that begins behind its own, and
//! the others begin again from its state. It has to be the one with the longest log. What it lacks of what the majority had
//! committed is lost, and so may be rows. With a majority, the log goes on, and what is given up are the rows that only the lost
//! had: of replicasets with nobody in sync left, or with nobody at all. The plan says which. Asked without `confirm`, it
//! only says what it would do.

use crate::host::{Call, Deadline, fiber, process};
use crate::net::{CallError, Pool, SERVICE_USER};
use crate::node::{self, Me, Node};
use crate::raft::disk;
use boot::{Address, Config};
use catalog::{Entry, Guard, Instance, InstanceState, Losses, Op, Setting, State};
use model::msgpack::{Reader, write_array_len, write_bool, write_map_len, write_str, write_uint};
use model::{Code, Error, InstanceName, Result};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Whether an instance of this name and data was expelled, as far as the one that is asked knows.
pub const STANDING_DOOR: &str = "picodata.peer.standing";
/// Where an instance's log ends.
pub const LOG_DOOR: &str = "picodata.peer.log_end";

/// How long a majority may take to show itself.
const MAJORITY_MS: u64 = 2_000;
const ASK_MS: u64 = 1_000;
const STANDING_MS: u64 = 500;
const WRITE_MS: u64 = 10_000;
/// How long the answer is given to leave before the process begins again: nothing tells that it has.
const FAREWELL_S: f64 = 0.3;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    lost: Vec<String>,
    #[serde(default)]
    confirm: Option<String>,
}

/// Where a log ends, in the order in which one is longer than another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LogEnd {
    last_term: u64,
    last_index: u64,
    /// The term that the node is in.
    term: u64,
}

/// What would be done.
struct Plan {
    survivors: BTreeSet<InstanceName>,
    losses: Losses,
    way: Way,
}

enum Way {
    /// By the log of the majority, while the catalog is at this version.
    Majority { version: u64 },
    /// On the log of this instance, which ends so, in a term that none of the survivors has seen.
    Alone { end: LogEnd, term: u64 },
}

/// `picodata.recover{lost = {name, ...}, confirm = ...}`: answers the plan, `{summary=, confirm=, survivors=, behind=, gone=}`, or
/// carries it out when `confirm` repeats what the plan said.
///
/// Errors: `Argument` when there is a majority and nothing that only the lost have, when one of the lost answers, when another
/// instance has the longer log, or for names that make no sense; `Unreachable` when an instance neither answers nor is said to
/// be lost; `Conflict` when the plan is not the one that was confirmed.
pub fn serve(call: &mut Call<'_>) -> Result<()> {
    let usage = |e: rmp_serde::decode::Error| {
        Error::new(Code::Argument, format!("picodata.recover takes {{lost = {{names}}, confirm = text}}: {e}"))
    };
    let (options,): (Options,) = rmp_serde::from_slice(call.args()).map_err(usage)?;
    let lost: BTreeSet<InstanceName> = options.lost.into_iter().map(InstanceName).collect();
    let node = node::get()?;
    let mut plan = plan(node, &lost)?;
    let Some(confirmed) = options.confirm else { return call.reply(&plan.encode(&lost)) };
    plan.check(&lost, &confirmed)?;
    // A master that is cut off, with those that are lost, may have a lease.
    fiber::sleep(node.state().settings.count(Setting::LeaseMs) as f64 / 1e3);
    // Those that are lost may have come back meanwhile.
    plan = self::plan(node, &lost)?;
    plan.check(&lost, &confirmed)?;
    log::warn!("picodata: {}", plan.summary(&lost));
    match plan.way {
        Way::Majority { version } => {
            let entry = Entry::guarded(Op::Recover { lost: lost.clone() }, Guard::Catalog(version));
            let deadline = Deadline::after_ms(WRITE_MS);
            crate::propose::propose(node, &entry, deadline, deadline)?;
            call.reply(&plan.encode(&lost))
        }
        Way::Alone { term, .. } => go_on_alone(call, node, &plan, &lost, term),
    }
}

fn go_on_alone(
    call: &mut Call<'_>,
    node: &'static Node,
    plan: &Plan,
    lost: &BTreeSet<InstanceName>,
    term: u64,
) -> Result<()> {
    // An instance that still waits to be let in finds that it can not be, and ends: it begins again too.
    process::set_tireless(true);
    node.raft
        .recover(lost.clone(), term, Deadline::after_ms(WRITE_MS))
        .inspect_err(|_| process::set_tireless(false))?;
    call.reply(&plan.encode(lost))?;
    fiber::spawn("pico_recover", || {
        fiber::sleep(FAREWELL_S);
        let error = process::begin_again();
        log::error!("picodata: the process does not begin again, and ends: {error}");
        // SAFETY: sends this process the signal by which the host shuts down in good order.
        unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
    })
    .map(drop)
}

fn plan(node: &'static Node, lost: &BTreeSet<InstanceName>) -> Result<Plan> {
    let refuse = |message: String| Error::new(Code::Argument, message);
    if lost.is_empty() || lost.contains(&node.me.name) {
        return Err(refuse("name the instances that are lost, this one not among them".into()));
    }
    let has_majority = node.raft.catch_up(Deadline::after_ms(MAJORITY_MS)).is_ok();
    let state = node.state();
    let losses = state.losses(lost)?;
    if has_majority {
        return plan_of_majority(node, &state, lost, losses);
    }
    let mine = here(node);
    let (mut survivors, mut term, mut longest) = (BTreeSet::new(), mine.term, (mine, &node.me.name));
    for instance in state.topology.instances.values().filter(|other| other.state != InstanceState::Expelled) {
        let name = &instance.name;
        if *name == node.me.name {
            survivors.insert(name.clone());
            continue;
        }
        match (ask_log(node, instance), lost.contains(name)) {
            (Ok(_), true) => return Err(refuse(format!("instance \"{name}\" answers: it is not lost"))),
            (Ok(end), false) => {
                survivors.insert(name.clone());
                term = term.max(end.term);
                if (end.last_term, end.last_index) > (longest.0.last_term, longest.0.last_index) {
                    longest = (end, name);
                }
            }
            (Err(_), true) => {}
            (Err(error), false) => {
                let message = format!("instance \"{name}\" does not answer, and is not said to be lost: {error}");
                return Err(Error::new(Code::Unreachable, message).with_hint("start it, or name it lost as well"));
            }
        }
    }
    if longest.1 != &node.me.name {
        let name = longest.1;
        return Err(refuse(format!("instance \"{name}\" has a longer log")).with_hint("call picodata.recover there"));
    }
    Ok(Plan { survivors, losses, way: Way::Alone { end: mine, term: term + 1 } })
}

fn plan_of_majority(node: &Node, state: &State, lost: &BTreeSet<InstanceName>, losses: Losses) -> Result<Plan> {
    let refuse = |message: String| Error::new(Code::Argument, message);
    if losses == Losses::default() {
        let message = "the cluster has a majority of its voters, and others have all rows of the lost: nothing has to be given up";
        let hint = "picodata.expel removes an instance that does not come back";
        return Err(refuse(message.into()).with_hint(hint));
    }
    let stays = |instance: &&Instance| instance.state != InstanceState::Expelled;
    let (gone, left): (Vec<_>, Vec<_>) =
        state.topology.instances.values().filter(stays).partition(|instance| lost.contains(&instance.name));
    if let Some(back) = gone.iter().find(|instance| instance.is_online() || ask_log(node, instance).is_ok()) {
        return Err(refuse(format!("instance \"{}\" answers: it is not lost", back.name)));
    }
    let survivors = left.into_iter().map(|instance| instance.name.clone()).collect();
    Ok(Plan { survivors, losses, way: Way::Majority { version: state.version } })
}

fn here(node: &Node) -> LogEnd {
    let status = node.raft.status();
    LogEnd { last_term: status.last_term, last_index: status.last_index, term: status.term }
}

fn ask_log(node: &Node, instance: &Instance) -> Result<LogEnd> {
    let address: Address = instance.address.parse()?;
    let answer = node.call(&address, LOG_DOOR, &[0x90], Deadline::after_ms(ASK_MS)).map_err(CallError::for_read)?;
    let mut reader = Reader::new(&answer);
    reader.array_len()?;
    Ok(LogEnd { last_term: reader.uint()?, last_index: reader.uint()?, term: reader.uint()? })
}

/// `picodata.peer.log_end()`.
pub fn serve_log(call: &mut Call<'_>) -> Result<()> {
    let end = here(node::get()?);
    let mut reply = Vec::new();
    write_array_len(&mut reply, 3);
    [end.last_term, end.last_index, end.term].into_iter().for_each(|number| write_uint(&mut reply, number));
    call.reply(&reply)
}

impl Plan {
    /// What has to be repeated: whom it gives up, and behind which entry of its log, or with which replicasets.
    fn confirm(&self, lost: &BTreeSet<InstanceName>) -> String {
        let lost = list(lost);
        match &self.way {
            Way::Alone { end, .. } => format!("give up {lost} at {}", end.last_index),
            Way::Majority { .. } => {
                let replicasets: BTreeSet<&str> =
                    self.losses.behind.iter().chain(self.losses.gone.keys()).map(|name| name.as_str()).collect();
                format!("give up {lost} and what only they have of {}", Vec::from_iter(replicasets).join(", "))
            }
        }
    }

    /// Errors: `Conflict` when something else was confirmed.
    fn check(&self, lost: &BTreeSet<InstanceName>, confirmed: &str) -> Result<()> {
        let wanted = self.confirm(lost);
        if confirmed == wanted {
            return Ok(());
        }
        let message = format!("what was confirmed is not what would be done now, which is \"{wanted}\"");
        Err(Error::new(Code::Conflict, message).with_hint("ask for the plan again, without confirm"))
    }

    fn summary(&self, lost: &BTreeSet<InstanceName>) -> String {
        let mut text = format!(
            "{} go on without {}, which must never run again on their old data.",
            list(&self.survivors),
            list(lost)
        );
        if let Way::Alone { end, .. } = &self.way {
            let _ = write!(
                text,
                "\nChanges of the catalog behind entry {} of the log are lost if a majority had made them.",
                end.last_index
            );
        }
        for replicaset in &self.losses.behind {
            let _ = write!(
                text,
                "\nReplicaset {replicaset} may lose its last acknowledged writes: nobody in sync is left."
            );
        }
        for (replicaset, buckets) in &self.losses.gone {
            let _ = write!(text, "\nReplicaset {replicaset} is gone, with all rows of its {buckets} buckets.");
        }
        if self.losses == Losses::default() {
            text.push_str("\nEvery replicaset has a member that holds all acknowledged writes: no row is lost.");
        }
        text
    }

    fn encode(&self, lost: &BTreeSet<InstanceName>) -> Vec<u8> {
        let mut out = Vec::new();
        write_map_len(&mut out, 5);
        write_str(&mut out, "summary");
        write_str(&mut out, &self.summary(lost));
        write_str(&mut out, "confirm");
        write_str(&mut out, &self.confirm(lost));
        let mut names = |key: &str, names: Vec<&str>| {
            write_str(&mut out, key);
            write_array_len(&mut out, names.len());
            names.into_iter().for_each(|name| write_str(&mut out, name));
        };
        names("survivors", self.survivors.iter().map(InstanceName::as_str).collect());
        names("behind", self.losses.behind.iter().map(|name| name.as_str()).collect());
        names("gone", self.losses.gone.keys().map(|name| name.as_str()).collect());
        out
    }
}

fn list(names: &BTreeSet<InstanceName>) -> String {
    names.iter().map(InstanceName::as_str).collect::<Vec<_>>().join(", ")
}

/// Before Raft starts on data that was here before: refuses when any member knows that this instance was expelled or
/// given up. With others like it, it could take itself for the cluster.
pub fn check_standing(config: &Config, me: &Me) -> Result<()> {
    let Some((_, bytes)) = disk::read_catalog()? else { return Ok(()) };
    let state = State::from_bytes(&bytes)?;
    let others = state.topology.instances.values().filter(|other| other.name != me.name);
    let others: Vec<&Instance> = others.filter(|other| other.state != InstanceState::Expelled).collect();
    let known = others.iter().filter_map(|other| other.address.parse().ok()).chain(config.peers.iter().cloned());
    let addresses: BTreeSet<Address> = known.filter(|address| *address != config.advertise).collect();
    let pool = Pool::new(SERVICE_USER, &config.cluster_secret)?;
    let mut args = Vec::new();
    write_array_len(&mut args, 2);
    write_str(&mut args, me.name.as_str());
    write_str(&mut args, &me.uuid);
    let deadline = Deadline::after_ms(STANDING_MS);
    let tasks: Vec<crate::side_by_side::Task<bool>> = addresses
        .into_iter()
        .map(|address| {
            let (pool, args) = (pool.clone(), args.clone());
            let task = move || {
                let answer = node::call(&pool, &address, STANDING_DOOR, &args, deadline);
                answer.is_ok_and(|bytes| Reader::new(&bytes).bool().unwrap_or(false))
            };
            Box::new(task) as crate::side_by_side::Task<bool>
        })
        .collect();
    let fibers_max = tasks.len().max(1);
    let answers = crate::side_by_side::run("pico_standing", fibers_max, tasks)?;
    pool.close();
    if answers.contains(&true) {
        return Err(was_expelled(&me.name));
    }
    Ok(())
}

/// The error of an instance that starts and is no member any more.
pub fn was_expelled(name: &InstanceName) -> Error {
    let message = format!("instance \"{name}\" was expelled from the cluster");
    Error::new(Code::NameTaken, message).with_hint("to join again, start it with an empty data_dir")
}

/// `picodata.peer.standing(name, uuid)`: whether this instance knows that one to be expelled.
pub fn serve_standing(call: &mut Call<'_>) -> Result<()> {
    let mut reader = Reader::new(call.args());
    reader.array_len()?;
    let name: InstanceName = reader.str()?.into();
    let uuid = reader.str()?.to_owned();
    let state = node::get()?.state();
    let is_out = |known: &Instance| known.uuid == uuid && known.state == InstanceState::Expelled;
    let mut reply = Vec::new();
    write_bool(&mut reply, state.topology.instances.get(&name).is_some_and(is_out));
    call.reply(&reply)
}
