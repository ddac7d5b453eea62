//! Opens the host's storage with `box.cfg`, and changes what may change while it is open.

use super::lua;
use crate::host::{door, processor};
use crate::net::{REPLICATION_USER, follower};
use crate::node::Me;
use crate::raft::disk;
use crate::storage::truncation;
use boot::config::WalMode;
use boot::{Address, Config};
use model::msgpack::*;
use model::{Error, Result};
use std::path::Path;

/// A larger one than the host's default, so that batches arrive in one piece.
const READAHEAD_BYTES: u64 = 1 << 20;
/// Requests that the host reads before it waits for answers; the default throttles routers.
const NET_MSG_MAX: u64 = 16_384;

/// How long a change of whom to follow waits for rows of this instance's own; who changes it looks by itself after that.
const OWN_ROWS_SYNC_S: u64 = 1;
/// How long those whose rows are asked for may take to answer.
const CONNECT_S: u64 = 5;

/// Opens what is in the folder; the first member of a replicaset makes it, and nobody can connect yet.
///
/// Errors: `Storage` with the host's words.
pub fn open(config: &Config, folder: &Path, me: &Me, is_first: bool) -> Result<()> {
    let folder = folder.to_str().ok_or_else(|| Error::new(model::Code::Config, "data_dir is not valid UTF-8"))?;
    let mut options = Options::default();
    for key in ["work_dir", "memtx_dir", "wal_dir", "vinyl_dir"] {
        options.text(key, folder);
    }
    options.text("instance_uuid", &me.uuid);
    options.text("replicaset_uuid", &me.replicaset_uuid);
    options.text("wal_mode", if config.wal_mode == WalMode::Fsync { "fsync" } else { "write" });
    options.uint("memtx_memory", config.memtx_memory_bytes);
    options.uint("readahead", READAHEAD_BYTES);
    options.uint("net_msg_max", NET_MSG_MAX);
    options.uint("log_level", config.log_level.into());
    if let Some(log) = &config.log {
        options.text("log", log);
    }
    options.uint("replication_connect_quorum", 0);
    options.bool("read_only", !is_first);
    // It reads all files of the instance before it comes back, and others run on this machine.
    processor::giving_way(|| call("configure", &options.finish()))
}

/// Lets others connect, who find users and functions in place.
pub fn listen(config: &Config) -> Result<()> {
    let mut listen = Options::default();
    listen.text("listen", &config.listen.to_string());
    call("configure", &listen.finish())
}

/// Whether this process has called `box.cfg`.
pub fn is_open() -> Result<bool> {
    Reader::new(&lua::call("is_open", &[0x90])?).bool()
}

/// How a member of the replicaset is followed.
pub fn replication_uri(config: &Config, member: &Address) -> String {
    format!("{REPLICATION_USER}:{}@{member}", config.cluster_secret)
}

/// Sets whom this instance follows.
pub fn set_replication(config: &Config, members: &[Address]) -> Result<()> {
    let mut options = Options::default();
    options.texts("replication", &members.iter().map(|member| replication_uri(config, member)).collect::<Vec<_>>());
    follower::follow(members.iter().map(|member| member.port).collect());
    call("configure", &options.finish())
}

/// Whether those that are followed from now on are asked for this instance's own rows too. The host does that in its orphan
/// mode only, which it keeps until so many members are connected and what they have is here.
pub fn ask_for_own_rows(asks: bool) -> Result<()> {
    let mut options = Options::default();
    options.uint("replication_connect_quorum", asks.into());
    options.uint("replication_connect_timeout", CONNECT_S);
    options.uint("replication_sync_timeout", OWN_ROWS_SYNC_S);
    call("configure", &options.finish())
}

pub fn set_read_only(read_only: bool) -> Result<()> {
    let mut options = Options::default();
    options.bool("read_only", read_only);
    call("configure", &options.finish())
}

/// Makes users, functions and spaces of ours that are missing; on a writable instance.
pub fn create(config: &Config) -> Result<()> {
    let mut spec = Vec::new();
    let password = config.admin_password.as_deref();
    write_map_len(&mut spec, 3 + usize::from(password.is_some()));
    write_str(&mut spec, "secret");
    write_str(&mut spec, &config.cluster_secret);
    if let Some(password) = password {
        write_str(&mut spec, "admin_password");
        write_str(&mut spec, password);
    }
    write_str(&mut spec, "functions");
    let names: Vec<&str> = door::names().into_iter().filter(|name| *name != "picodata.start").collect();
    write_array_len(&mut spec, names.len());
    for name in names {
        write_map_len(&mut spec, 2);
        write_str(&mut spec, "name");
        write_str(&mut spec, name);
        write_str(&mut spec, "peer");
        write_bool(&mut spec, name.starts_with("picodata.peer."));
    }
    write_str(&mut spec, "spaces");
    let spaces = disk::SPACES.iter().map(|space| (space, true)).chain([(&truncation::SPACE, false)]);
    write_array_len(&mut spec, disk::SPACES.len() + 1);
    for ((id, name, fields), is_local) in spaces {
        write_map_len(&mut spec, 5);
        write_str(&mut spec, "is_local");
        write_bool(&mut spec, is_local);
        write_str(&mut spec, "id");
        write_uint(&mut spec, (*id).into());
        write_str(&mut spec, "name");
        write_str(&mut spec, name);
        write_str(&mut spec, "format");
        write_array_len(&mut spec, fields.len());
        for (name, ty) in *fields {
            write_array_len(&mut spec, 2);
            write_str(&mut spec, name);
            write_str(&mut spec, ty);
        }
        write_str(&mut spec, "parts");
        write_array_len(&mut spec, 1);
        write_array_len(&mut spec, 2);
        write_uint(&mut spec, 1);
        write_str(&mut spec, fields[0].1);
    }
    call("create", &spec)
}

fn call(name: &str, argument: &[u8]) -> Result<()> {
    let mut args = Vec::with_capacity(argument.len() + 1);
    write_array_len(&mut args, 1);
    args.extend_from_slice(argument);
    lua::call(name, &args).map(|_| ())
}

/// A map of box.cfg's options under construction.
#[derive(Default)]
struct Options {
    count: usize,
    body: Vec<u8>,
}

impl Options {
    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        self.count += 1;
        write_str(&mut self.body, key);
        &mut self.body
    }

    fn text(&mut self, key: &str, value: &str) {
        write_str(self.key(key), value);
    }

    fn uint(&mut self, key: &str, value: u64) {
        write_uint(self.key(key), value);
    }

    fn bool(&mut self, key: &str, value: bool) {
        write_bool(self.key(key), value);
    }

    fn texts(&mut self, key: &str, values: &[String]) {
        let body = self.key(key);
        write_array_len(body, values.len());
        values.iter().for_each(|value| write_str(body, value));
    }

    fn finish(self) -> Vec<u8> {
        let mut map = Vec::with_capacity(self.body.len() + 3);
        write_map_len(&mut map, self.count);
        map.extend_from_slice(&self.body);
        map
    }
}
