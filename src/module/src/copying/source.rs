//! The master's part: it gives the newcomer a number among the replicaset's members, makes a snapshot, and reads from it.

use super::{BEGIN_DOOR, PART_BYTES, check_name};
use crate::bridge;
use crate::host::{Call, Deadline, Exclusive, failpoint, space};
use crate::lineage::{SPACE_OF_MEMBERS, numbers};
use crate::node::{self, Node};
use crate::start::{self, lua};
use catalog::{Instance, InstanceState};
use model::msgpack::{Reader, write_array_len, write_bin, write_str, write_uint};
use model::{Code, Error, Result};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// How long these doors work; a snapshot that takes longer is made all the same, and found when the newcomer asks again.
const DOOR_TIMEOUT_MS: u64 = 30_000;
/// The host numbers the members of a replicaset from 1 to this.
const NUMBER_MAX: u32 = 31;

/// Snapshots for newcomers, one at a time.
pub struct Copies {
    work: Rc<Exclusive>,
    latest: RefCell<Option<Made>>,
}

/// A snapshot, and the UUIDs of the members that it knows.
struct Made {
    path: PathBuf,
    members: BTreeSet<String>,
}

impl Copies {
    pub fn new() -> Result<Self> {
        Ok(Self { work: Exclusive::new("another copy")?, latest: RefCell::default() })
    }

    /// What was made already for a newcomer that asks again, or that waited while it was made for another. Who was online
    /// before has answered for later rows, and is given a new one. Where the file is gone, so is the log behind it.
    fn made_for(&self, newcomer: &Instance) -> Option<PathBuf> {
        let latest = self.latest.borrow();
        let made = latest.as_ref().filter(|made| made.members.contains(&newcomer.uuid) && made.path.exists())?;
        (newcomer.state == InstanceState::Joining).then(|| made.path.clone())
    }
}

pub fn serve_begin(call: &mut Call<'_>) -> Result<()> {
    let node = node::get()?;
    let mut reader = Reader::new(call.args());
    reader.array_len()?;
    let newcomer = newcomer(node, reader.str()?)?;
    let made = || node.copies.made_for(&newcomer);
    let path = match made() {
        Some(path) => path,
        None => node.copies.work.run(Deadline::after_ms(DOOR_TIMEOUT_MS), || match made() {
            Some(path) => Ok(path),
            None => make(node),
        })?,
    };
    let size = path.metadata().map_err(|error| failed(&path, &error))?.len();
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut reply = Vec::new();
    write_array_len(&mut reply, 2);
    write_str(&mut reply, name);
    write_uint(&mut reply, size);
    call.reply(&reply)
}

pub fn serve_read(call: &mut Call<'_>) -> Result<()> {
    let mut reader = Reader::new(call.args());
    reader.array_len()?;
    let name = reader.str()?;
    check_name(name)?;
    let path = start::data_folder()?.join(name);
    let offset = reader.uint()?;
    // A disk may take its time.
    let part = bridge::run(Deadline::after_ms(DOOR_TIMEOUT_MS), async move { read(&path, offset) })?;
    let mut reply = Vec::with_capacity(part.len() + 5);
    write_bin(&mut reply, &part);
    failpoint::reach("copy.part");
    call.reply(&reply)
}

/// Errors: `NoMaster` when this is not the master of the newcomer's replicaset.
fn newcomer(node: &Node, uuid: &str) -> Result<Instance> {
    let state = node.state();
    let record = state.topology.instance(&node.me.name)?;
    let member = state.topology.members(&record.replicaset).find(|member| member.uuid == uuid);
    member.filter(|_| !space::is_read_only()).cloned().ok_or_else(|| {
        let message =
            format!("instance \"{}\" is not the master that {BEGIN_DOOR} is asked of for {uuid}", node.me.name);
        Error::new(Code::NoMaster, message)
    })
}

fn make(node: &Node) -> Result<PathBuf> {
    let members = register(node)?;
    failpoint::reach("copy.registered");
    let answer = lua::call("checkpoint", &[0x90])?;
    let name = Reader::new(&answer).str()?;
    check_name(name)?;
    failpoint::reach("copy.made");
    log::info!("copying: the snapshot {name} is made for newcomers");
    let path = start::data_folder()?.join(name);
    *node.copies.latest.borrow_mut() = Some(Made { path: path.clone(), members });
    Ok(path)
}

/// Whoever is to follow this instance has to have a number, also in the rows that it begins with: gives one to each member
/// that has none, and answers the UUIDs of those that have one.
fn register(node: &Node) -> Result<BTreeSet<String>> {
    let state = node.state();
    let replicaset = &state.topology.instance(&node.me.name)?.replicaset;
    let known = numbers()?;
    let mut free = (1..=NUMBER_MAX).filter(|number| known.iter().all(|(other, _)| other != number));
    let mut uuids: BTreeSet<String> = known.iter().map(|(_, uuid)| uuid.clone()).collect();
    for member in state.topology.members(replicaset) {
        if uuids.contains(&member.uuid) {
            continue;
        }
        let number = free.next().ok_or_else(|| {
            Error::new(Code::LimitExceeded, format!("a replicaset has {NUMBER_MAX} members at most"))
                .with_hint("expel a member, or let the newcomer join another tier")
        })?;
        let mut row = Vec::new();
        write_array_len(&mut row, 2);
        write_uint(&mut row, number.into());
        write_str(&mut row, &member.uuid);
        SPACE_OF_MEMBERS.insert(&row)?;
        uuids.insert(member.uuid.clone());
    }
    Ok(uuids)
}

/// A part of a file; shorter than others where it ends.
fn read(path: &Path, offset: u64) -> Result<Vec<u8>> {
    let mut part = vec![0; PART_BYTES];
    let mut filled = 0;
    let file = File::open(path).map_err(|error| failed(path, &error))?;
    while filled < part.len() {
        match file.read_at(&mut part[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(path, &error)),
        }
    }
    part.truncate(filled);
    Ok(part)
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::new(Code::Storage, format!("the snapshot {} can not be read: {error}", path.display()))
}
