//! From an options table to a running member of the cluster.
//!
//! `start` reads the configuration, locks the data folder, finds out what the folder and the peers know, opens the host's
//! storage as the replicaset demands, and starts Raft. It returns when the cluster has taken the instance in.

mod discover;
mod early;
pub mod folder;
pub mod join;
pub mod lua;
pub mod storage;

use crate::assembly;
use crate::copying;
use crate::doors;
use crate::doors::recover::was_expelled;
use crate::host::{Deadline, clock, failpoint, fiber};
use crate::net::Listener;
use crate::node::{Me, Node};
use crate::raft::disk;
use boot::config::WalMode;
use boot::identity::Stage;
use boot::{Config, Identity};
use catalog::{Entry, InstanceState, Newcomer, Op, State, TierSpec};
use discover::Found;
pub use discover::{DISCOVER_DOOR, JOIN_DOOR};
use folder::Folder;
use model::{Code, Error, Result};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// How long the name of the address to listen on may take to be found.
const BIND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the cluster may take to let an instance in that it has accepted.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(60);

/// The pause before a copy that failed is tried again: at first, and at most.
const COPY_PAUSE_S: f64 = 0.2;
const COPY_PAUSE_MAX_S: f64 = 30.0;
/// The pause before one that can not be opened is thrown away.
const REOPEN_PAUSE_S: f64 = 1.0;

thread_local! {
    static STARTED: Cell<bool> = const { Cell::new(false) };
    /// The folder that this process has locked.
    static FOLDER: RefCell<Option<Rc<Folder>>> = const { RefCell::new(None) };
}

/// `picodata.start(options)`: `options` is one MessagePack map.
///
/// Errors: `Config` and what else stands in the way; the process is then as before and may try again, unless the host's
/// storage was opened already.
pub fn start(options: &[u8]) -> Result<()> {
    if STARTED.get() {
        let error = Error::new(Code::Config, "picodata.start was called already in this process");
        return Err(error.with_hint("run each instance in a process of its own"));
    }
    if storage::is_open()? {
        let error = Error::new(Code::Config, "this process has opened its storage already, with box.cfg");
        return Err(error.with_hint("call picodata.start in a new process; it calls box.cfg itself"));
    }
    let config = Config::read(options, processors())?;
    let folder = Rc::new(Folder::open(&config.data_dir)?);
    let identity = identity_of(&folder, &config)?;
    STARTED.set(true);
    FOLDER.set(Some(Rc::clone(&folder)));
    let result = run(config, &folder, identity);
    if result.is_err() {
        STARTED.set(false);
        FOLDER.set(None);
    }
    result
}

/// Throws away all data of this instance: the process begins again, without any, and asks the cluster's members for its
/// place. Does not return.
///
/// Errors: what keeps the process from it; nothing has changed then.
pub fn start_anew(cluster_id: &str, members: BTreeSet<boot::Address>) -> Result<()> {
    let instance_uuid = uuid::random()?;
    // From here on the data counts for nothing, also if the process dies: it is deleted at the next start.
    begin_again_as(|old| Some(old.anew(instance_uuid, cluster_id, members)))
}

/// Throws away the Raft log of this instance, which has lost its end: the process begins again with its rows, and asks the
/// cluster's members for another number in Raft. Does not return.
///
/// Errors: what keeps the process from it; nothing has changed then.
pub fn start_without_log(members: BTreeSet<boot::Address>) -> Result<()> {
    begin_again_as(|old| old.without_log(members))
}

/// Begins the process again under another identity.
fn begin_again_as(make: impl FnOnce(&Identity) -> Option<Identity>) -> Result<()> {
    let folder = FOLDER.with_borrow(Clone::clone);
    let folder = folder.ok_or_else(|| Error::internal("an instance without a folder is to begin again"))?;
    let old = folder.identity()?.ok_or_else(|| Error::internal("an instance without an identity is to begin again"))?;
    let new = make(&old).ok_or_else(|| Error::internal("an instance that is no member is to begin again"))?;
    folder.set_identity(&new)?;
    failpoint::reach("anew.identity_written");
    let error = crate::host::process::begin_again();
    folder.set_identity(&old)?;
    Err(error)
}

/// Where this instance's files are. Errors: `NotReady` before it has a folder.
pub fn data_folder() -> Result<PathBuf> {
    let folder = FOLDER.with_borrow(|folder| folder.as_ref().map(|folder| folder.path().to_owned()));
    folder.ok_or_else(|| Error::new(Code::NotReady, "this instance has no folder yet"))
}

fn run(config: Config, folder: &Folder, identity: Identity) -> Result<()> {
    let began_s = clock::now_s();
    let is_rejoining = matches!(identity.stage, Stage::Rejoining { .. });
    let has_lost_log = matches!(identity.stage, Stage::WithoutLog { .. });
    let mut is_copied = false;
    let others = match &identity.stage {
        Stage::Rejoining { members, .. } | Stage::WithoutLog { members, .. } => members.clone(),
        Stage::Joining | Stage::Member { .. } => BTreeSet::new(),
    };
    let identity = match identity.stage {
        Stage::Member { .. } if folder.has_storage()? && !identity.is_making_storage => {
            // The host would say so too, but only after it has read all data.
            drop(Listener::bind(&config.listen.to_string(), Deadline::after(BIND_TIMEOUT))?);
            if let Some(anew) = early::anew_if_stray(&config, folder, &identity) {
                return run(config, folder, anew);
            }
            identity
        }
        Stage::WithoutLog { .. } if !folder.has_storage()? => {
            let message = format!("data_dir {} holds an identity, and no data with it", folder.path().display());
            return Err(Error::new(Code::Corrupted, message).with_hint(
                "restore the folder from a copy, or expel the instance and start it with an empty data_dir",
            ));
        }
        Stage::WithoutLog { .. } => another_number(&config, identity)?,
        _ => {
            let (identity, donor) = admission(&config, folder, &identity)?;
            is_copied = donor.is_some();
            identity
        }
    };
    let origin = match is_copied {
        _ if has_lost_log => Origin::WithoutLog,
        true => Origin::Copied,
        false if folder.has_storage()? => Origin::Own,
        false => Origin::Nothing,
    };
    let Stage::Member { cluster_id, raft_id, replicaset_uuid, bootstrap, joined_in } = identity.stage.clone() else {
        return Err(Error::internal("an instance without a place in the cluster went on to start"));
    };
    let me = Me {
        name: config.name.as_str().into(),
        raft_id,
        uuid: identity.instance_uuid.clone(),
        cluster_id,
        replicaset_uuid,
    };
    failpoint::reach("start.placed");
    // A member that has thrown its data away tries until it has a copy that can be read.
    crate::host::process::set_tireless(is_rejoining);
    match open(&config, folder, &me, &identity, origin) {
        Err(error) if is_rejoining => {
            log::error!("picodata: the copy can not be used, and another is taken: {error}");
            fiber::sleep(REOPEN_PAUSE_S);
            return Err(crate::host::process::begin_again());
        }
        opened => opened?,
    }
    crate::host::process::set_tireless(false);
    failpoint::reach("start.storage_open");
    if !crate::host::readahead::enable() {
        log::warn!("picodata: this build of the host keeps its trees in another way; scans do not look ahead");
    }
    if !crate::host::relays::enable() {
        log::warn!("picodata: this build of the host keeps its relays in another way; acknowledgements are polled for");
    }
    doors::recover::check_standing(&config, &me)?;
    let node = assembly::assemble(config, me, bootstrap, joined_in)?;
    let is_founder = bootstrap && node.state().cluster.is_none();
    if is_founder {
        node.raft.campaign();
        let entry = founding(&node.config, &node.me.uuid, &node.me.cluster_id);
        let deadline = Deadline::after(ADMISSION_TIMEOUT);
        crate::propose::propose(node, &entry, deadline, deadline)?;
    }
    failpoint::reach("start.assembled");
    let state = node.state();
    let known = state.topology.instances.values().filter_map(|instance| instance.address.parse().ok());
    doors::awake::tell(node, &node.config.peers.iter().cloned().chain(known).chain(others).collect());
    announce(node, is_founder, matches!(origin, Origin::Nothing | Origin::Copied))?;
    failpoint::reach("start.announced");
    log::info!("picodata: instance {} is online, {:.3} s after its start", node.me.name, clock::now_s() - began_s);
    Ok(())
}

/// What an instance begins with.
#[derive(Clone, Copy, PartialEq)]
enum Origin {
    /// Its replicaset's first member has no storage yet.
    Nothing,
    Own,
    /// Its own without Raft's log, which has lost its end.
    WithoutLog,
    /// Another member's.
    Copied,
}

/// Opens the storage, and takes from it what is not this instance's. Others can connect from then on.
fn open(config: &Config, folder: &Folder, me: &Me, identity: &Identity, origin: Origin) -> Result<()> {
    let keep_identity = || {
        // Not before: the log that was deleted would be taken for this instance's, or the one that is lost for whole.
        folder.sync_logs()?;
        folder.set_identity(identity)
    };
    storage::open(config, folder.path(), me, origin == Origin::Nothing)?;
    if origin == Origin::Nothing {
        failpoint::reach("start.storage_empty");
        storage::create(config)?;
        keep_identity()?;
    }
    storage::listen(config)?;
    match origin {
        Origin::Nothing | Origin::Own => Ok(()),
        Origin::WithoutLog => {
            disk::clear()?;
            failpoint::reach("start.log_cleared");
            keep_identity()
        }
        Origin::Copied => {
            disk::clear_all()?;
            failpoint::reach("start.copy_cleared");
            keep_identity()
        }
    }
}

/// The identity in the folder, or a new one, kept before anybody hears of it.
fn identity_of(folder: &Folder, config: &Config) -> Result<Identity> {
    if let Some(identity) = folder.identity()? {
        identity.check(config)?;
        return Ok(identity);
    }
    if folder.has_storage()? {
        let message = format!("data_dir {} holds data that is not picodata's", folder.path().display());
        return Err(Error::new(Code::Config, message).with_hint("give this instance an empty data_dir"));
    }
    let identity = Identity::new(config, uuid::random()?);
    folder.set_identity(&identity)?;
    Ok(identity)
}

/// Finds the cluster, or founds it, for an instance without data. Answers its identity, and whose storage it has a copy of
/// now; the first member of a replicaset begins with nothing, and its identity is kept here.
fn admission(config: &Config, folder: &Folder, identity: &Identity) -> Result<(Identity, Option<boot::Address>)> {
    let deadline = discover::join_deadline(config);
    let is_rejoining = matches!(identity.stage, Stage::Rejoining { .. });
    let mut pause_s = COPY_PAUSE_S;
    loop {
        folder.clear_storage()?;
        failpoint::reach("start.cleared");
        let (placed, donor) = place(config, identity)?;
        let Some(donor) = donor else {
            folder.set_identity(&Identity { is_making_storage: true, ..placed.clone() })?;
            return Ok((placed, None));
        };
        if let Stage::Member { cluster_id, .. } = &identity.stage {
            // Its data is gone, and with it Raft's log and votes, which others count on: it is a member no more.
            log::warn!("picodata: instance {} has lost its data, and joins again", config.name);
            let anew = identity.anew(uuid::random()?, cluster_id, BTreeSet::new());
            folder.set_identity(&anew)?;
            return admission(config, folder, &anew);
        }
        let Err(error) = copying::copy(config, folder, &identity.instance_uuid, &donor) else {
            return Ok((placed, Some(donor)));
        };
        let is_final = !is_rejoining && matches!(error.code, Code::Corrupted | Code::LimitExceeded);
        if is_final || !discover::may_pass(&error) || deadline.has_passed() || fiber::is_cancelled() {
            return Err(error);
        }
        // Whom the cluster named may be gone, or not be the master any more: it is asked again.
        log::warn!("copying: the copy of {donor} failed, and is tried again: {error}");
        fiber::sleep(pause_s);
        pause_s = (pause_s * 2.0).min(COPY_PAUSE_MAX_S);
    }
}

/// The place of an instance without data, and the master whose storage it is to copy.
fn place(config: &Config, identity: &Identity) -> Result<(Identity, Option<boot::Address>)> {
    let found = match &identity.stage {
        // An attempt that broke off after it was decided goes on where it stood.
        Stage::Member { bootstrap: true, .. } if identity.is_making_storage => {
            return Ok((Identity { is_making_storage: false, ..identity.clone() }, None));
        }
        // It has no data any more, or none yet, of a cluster that is there: it must not found another.
        Stage::Member { .. } => match discover::find(config, identity)? {
            Found::Nobody => return Err(alone(config)),
            found => found,
        },
        Stage::Rejoining { cluster_id, members, .. } => {
            let answer = discover::ask_again(config, identity, cluster_id, members)?;
            Found::Cluster { cluster_id: cluster_id.clone(), answer }
        }
        Stage::Joining => discover::find(config, identity)?,
        Stage::WithoutLog { .. } => return Err(Error::internal("an instance with rows was to copy others")),
    };
    let (stage, donor) = match found {
        Found::Nobody => {
            let cluster_id = uuid::random()?;
            let (raft_id, replicaset_uuid) = founder_place(config, identity, &cluster_id)?;
            (Stage::Member { cluster_id, raft_id, replicaset_uuid, bootstrap: true, joined_in: 0 }, None)
        }
        Found::Cluster { cluster_id, answer } => {
            let join::JoinAnswer { raft_id, replicaset_uuid, donors, term } = answer;
            let stage = Stage::Member { cluster_id, raft_id, replicaset_uuid, bootstrap: false, joined_in: term };
            (stage, donors.into_iter().next())
        }
    };
    Ok((Identity { stage, is_making_storage: false, ..identity.clone() }, donor))
}

fn alone(config: &Config) -> Error {
    let message = format!("instance \"{}\" has no data, and finds no other member of its cluster", config.name);
    Error::new(Code::Config, message)
        .with_hint("name some in `peers`, or give the instance an empty data_dir when the cluster is gone")
}

/// A member without its Raft log is given another number.
fn another_number(config: &Config, identity: Identity) -> Result<Identity> {
    let Stage::WithoutLog { cluster_id, replicaset_uuid, joined_in, members, .. } = identity.stage.clone() else {
        return Err(Error::internal("an instance with a Raft log was to take another number"));
    };
    let answer = discover::ask_again(config, &identity, &cluster_id, &members)?;
    if answer.replicaset_uuid != replicaset_uuid {
        let message = format!("instance \"{}\" belongs to another replicaset than its data", config.name);
        return Err(Error::new(Code::NameTaken, message).with_hint("to join again, start it with an empty data_dir"));
    }
    let raft_id = answer.raft_id;
    let stage = Stage::Member { cluster_id, raft_id, replicaset_uuid, bootstrap: false, joined_in };
    Ok(Identity { stage, ..identity })
}

/// The first entry of the log.
fn founding(config: &Config, instance_uuid: &str, cluster_id: &str) -> Entry {
    Entry::new(Op::Bootstrap {
        cluster: config.cluster.clone(),
        id: cluster_id.to_owned(),
        instance: newcomer(config, instance_uuid),
        tier: TierSpec {
            name: config.tier.as_str().into(),
            replication_factor: config.replication_factor.into(),
            bucket_count: config.bucket_count,
            can_vote: true,
        },
        settings: BTreeMap::new(),
    })
}

/// What that entry will make of this instance: found out before there is a log, by applying it to nothing.
fn founder_place(config: &Config, identity: &Identity, cluster_id: &str) -> Result<(u64, String)> {
    let mut state = State::default();
    state.apply(1, &founding(config, &identity.instance_uuid, cluster_id)).into_result()?;
    let topology = &state.topology;
    let record = topology.instance(&config.name.as_str().into())?;
    Ok((record.raft_id, topology.replicaset(&record.replicaset)?.uuid.clone()))
}

fn newcomer(config: &Config, instance_uuid: &str) -> Newcomer {
    Newcomer {
        name: config.name.as_str().into(),
        uuid: instance_uuid.to_owned(),
        address: config.advertise.to_string(),
        failure_domain: config.failure_domain.clone(),
        lost_power: false,
    }
}

/// Tells the cluster that this process is here, under a new incarnation where it was here before, and waits to be online.
fn announce(node: &Node, is_founder: bool, is_newcomer: bool) -> Result<()> {
    let deadline = Deadline::after(ADMISSION_TIMEOUT);
    let known = node.wait_for(deadline, "the cluster to send its state", |state| {
        state.topology.instances.get(&node.me.name).map(|record| record.state)
    })?;
    if known == InstanceState::Expelled {
        return Err(was_expelled(&node.me.name));
    }
    let is_forced = node.config.wal_mode == WalMode::Fsync;
    let was_forced = disk::read_mark(disk::FORCED_KEY)? == 1;
    if was_forced && !is_forced {
        note_forced(false)?;
    }
    // A first life was counted when the cluster let the instance in; every later one is counted here, also when what it
    // knows of the cluster is so old that it finds itself joining still.
    let is_counted = is_founder || is_newcomer && known == InstanceState::Joining;
    if !is_counted {
        // What may be lost is what earlier lives have written, in their way.
        let lost_power = !was_forced && disk::read_mark(disk::MACHINE_KEY)? != machine()?;
        let instance = Newcomer { lost_power, ..newcomer(&node.config, &node.me.uuid) };
        let tier = node.config.tier.as_str().into();
        let entry = Entry::new(Op::Join { instance, tier, replaces: None });
        let is_moved = node.record().is_some_and(|record| record.address != node.config.advertise.to_string());
        match is_moved {
            true => crate::propose::propose_through_any(node, &entry, deadline)?,
            false => crate::propose::propose_until_known(node, &entry, deadline).map(drop)?,
        }
    }
    let incarnation = node.record().map_or(0, |record| record.incarnation);
    node.facts.incarnation.set(incarnation);
    node.facts.changed.notify_all();
    node.mastership.wake();
    node.lineage.wake();
    let state = node.wait_for(deadline, "the cluster to see this instance online", |state| {
        let state = state.topology.instances.get(&node.me.name)?.state;
        matches!(state, InstanceState::Online | InstanceState::Expelled).then_some(state)
    })?;
    if state == InstanceState::Expelled {
        return Err(was_expelled(&node.me.name));
    }
    disk::write_mark(disk::MACHINE_KEY, machine()?)?;
    if is_forced && !was_forced {
        note_forced(true)?;
    }
    Ok(())
}

/// Notes whether everything that this instance has written is forced to the disk. It is until now, and so is the note: a
/// machine that loses power must not lose it with the first rows that are not forced.
fn note_forced(is_forced: bool) -> Result<()> {
    let sync = || FOLDER.with_borrow(|folder| folder.as_ref().map_or(Ok(()), |folder| folder.sync_logs()));
    sync()?;
    disk::write_mark(disk::FORCED_KEY, is_forced.into())?;
    sync()
}

/// A number that differs from one start of this machine to the next.
pub fn machine() -> Result<u64> {
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let id = read.map_err(|e| Error::new(Code::Storage, format!("the id of the machine's start: {e}")))?;
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(15).collect();
    u64::from_str_radix(&digits, 16)
        .map_err(|_| Error::new(Code::Storage, format!("a strange id of the machine: {id}")))
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

mod uuid {
    use model::{Code, Error, Result};
    use std::fs::File;
    use std::io::Read;

    /// A random UUID (version 4) as text.
    pub fn random() -> Result<String> {
        let mut bytes = [0u8; 16];
        let read = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes));
        read.map_err(|e| Error::new(Code::Storage, format!("no random numbers: {e}")))?;
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(model::Value::Uuid(bytes).to_string())
    }
}
