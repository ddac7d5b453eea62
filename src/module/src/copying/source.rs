//! The master's part: it gives the newcomer a number among the replicaset's members, makes a snapshot, and reads from it.

use super::{BEGIN_DOOR, PART_BYTES, check_name};
use crate::bridge;
use crate::host::{Call, Deadline, Exclusive, failpoint, space};
use crate::lineage::{SPACE_OF_MEMBERS, numbers};
use crate::node::{self, Node};
use crate::start::{self, lua};
use model::msgpack::{Reader, write_array_len, write_bin, write_str, write_uint};
use model::{Code, Error, Result};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// How long these doors work; a snapshot that takes longer is made all the same, and found when the newcomer asks again.
const DOOR_TIMEOUT_MS: u64 = 30_000;
/// The host numbers the members of a replicaset from 1 to this.
const NUMBER_MAX: u32 = 31;

/// The snapshots that were made for newcomers, one at a time.
pub struct Copies {
    work: Rc<Exclusive>,
    /// By the UUID that they know. Where the file is gone, so is what was written after it.
    made: RefCell<HashMap<String, PathBuf>>,
}

impl Copies {
    pub fn new() -> Result<Self> {
        Ok(Self { work: Exclusive::new("another copy")?, made: RefCell::default() })
    }

    fn made_for(&self, uuid: &str) -> Option<PathBuf> {
        self.made.borrow().get(uuid).filter(|path| path.exists()).cloned()
    }
}

pub fn serve_begin(call: &mut Call<'_>) -> Result<()> {
    let node = node::get()?;
    let mut reader = Reader::new(call.args());
    reader.array_len()?;
    let uuid = reader.str()?.to_owned();
    check_member(node, &uuid)?;
    let path = node.copies.work.run(Deadline::after_ms(DOOR_TIMEOUT_MS), || match node.copies.made_for(&uuid) {
        Some(path) => Ok(path),
        None => make(node, &uuid),
    })?;
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
fn check_member(node: &Node, uuid: &str) -> Result<()> {
    let state = node.state();
    let record = state.topology.instance(&node.me.name)?;
    let is_member = state.topology.members(&record.replicaset).any(|member| member.uuid == uuid);
    if is_member && !space::is_read_only() {
        return Ok(());
    }
    let message = format!("instance \"{}\" is not the master that {BEGIN_DOOR} is asked of for {uuid}", node.me.name);
    Err(Error::new(Code::NoMaster, message))
}

fn make(node: &Node, uuid: &str) -> Result<PathBuf> {
    register(uuid)?;
    failpoint::reach("copy.registered");
    let answer = lua::call("checkpoint", &[0x90])?;
    let name = Reader::new(&answer).str()?;
    check_name(name)?;
    failpoint::reach("copy.made");
    log::info!("copying: the snapshot {name} is made for member {uuid}");
    let path = start::data_folder()?.join(name);
    let mut made = node.copies.made.borrow_mut();
    made.retain(|_, path| path.exists());
    made.insert(uuid.to_owned(), path.clone());
    Ok(path)
}

/// Whoever is to follow this instance has to have a number, also in the rows that it begins with.
fn register(uuid: &str) -> Result<()> {
    let known = numbers()?;
    if known.iter().any(|(_, other)| other == uuid) {
        return Ok(());
    }
    let number = (1..=NUMBER_MAX).find(|number| known.iter().all(|(other, _)| other != number));
    let number = number.ok_or_else(|| {
        Error::new(Code::LimitExceeded, format!("a replicaset has {NUMBER_MAX} members at most"))
            .with_hint("expel a member, or let the newcomer join another tier")
    })?;
    let mut row = Vec::new();
    write_array_len(&mut row, 2);
    write_uint(&mut row, number.into());
    write_str(&mut row, uuid);
    SPACE_OF_MEMBERS.insert(&row).map(drop)
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
