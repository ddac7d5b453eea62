//! The table given to `picodata.start`, read from MessagePack and checked whole before anything happens.
//!
//! Every key is known here with its type, default and bounds; the table `KEYS` is also what `picodata.help('start')`
//! prints.

use crate::address::Address;
use model::error::nearest;
use model::msgpack::Reader;
use model::{Code, Error, Result, Value};
use std::collections::BTreeMap;

/// A checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub name: String,
    pub cluster: String,
    pub data_dir: String,
    pub listen: Address,
    pub advertise: Address,
    pub peers: Vec<Address>,
    pub tier: String,
    pub failure_domain: BTreeMap<String, String>,
    /// Of the tier, and only heeded when this instance bootstraps the cluster.
    pub replication_factor: u8,
    /// Of the tier, and only heeded when this instance bootstraps the cluster.
    pub bucket_count: u32,
    pub admin_password: Option<String>,
    pub cluster_secret: String,
    pub memtx_memory_bytes: u64,
    pub wal_mode: WalMode,
    /// A file name or a pipe, as the host's `log`; None for standard error.
    pub log: Option<String>,
    pub log_level: u8,
    /// Threads that plan and run SQL.
    pub sql_threads: u8,
    pub join_timeout_s: f64,
}

/// When a write counts as written: handed to the operating system, or on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalMode {
    Write,
    Fsync,
}

/// Names a key, says what it takes, and what happens without it.
pub struct Key {
    pub name: &'static str,
    pub takes: &'static str,
    pub default: &'static str,
}

/// All keys of `picodata.start`.
pub const KEYS: &[Key] = &[
    Key { name: "name", takes: "the instance's name, unique in the cluster", default: "required" },
    Key {
        name: "cluster",
        takes: "the cluster's name; an instance never joins one of another name",
        default: "'demo'",
    },
    Key { name: "data_dir", takes: "the folder for this instance's data; made when missing", default: "the name" },
    Key { name: "listen", takes: "the address to listen on", default: "'127.0.0.1:3301'" },
    Key { name: "advertise", takes: "the address that others reach it by", default: "listen" },
    Key { name: "peers", takes: "addresses of instances to find the cluster by", default: "{advertise}" },
    Key { name: "tier", takes: "the tier that the instance belongs to", default: "'default'" },
    Key { name: "failure_domain", takes: "a table such as {zone='a', rack='3'}", default: "{}" },
    Key {
        name: "replication_factor",
        takes: "instances a replicaset, 1 to 31, when this instance bootstraps",
        default: "1",
    },
    Key {
        name: "bucket_count",
        takes: "buckets of the tier, 1 to 1000000, when this instance bootstraps",
        default: "3000",
    },
    Key { name: "admin_password", takes: "the password of the user admin", default: "none: admin can not log in" },
    Key {
        name: "cluster_secret",
        takes: "what instances know one another by",
        default: "the cluster's name, on loopback only",
    },
    Key { name: "memtx_memory", takes: "bytes for memtx tables, 33554432 to 4398046510080", default: "1073741824" },
    Key { name: "wal_mode", takes: "'write' or 'fsync'", default: "'write'" },
    Key { name: "log", takes: "a file name, or 'pipe: ...'", default: "standard error" },
    Key { name: "log_level", takes: "0 to 7", default: "5" },
    Key { name: "sql_threads", takes: "threads for SQL, 1 to 128", default: "the number of processors" },
    Key { name: "join_timeout", takes: "seconds to go on looking for the cluster before giving up", default: "no end" },
];

const NAME_BYTES_MAX: usize = 63;
const PEERS_MAX: usize = 1000;
/// What the host takes.
const MEMTX_BYTES_MAX: i64 = 4_398_046_510_080;

/// Reads values by key, remembering which were asked for.
struct Table {
    values: BTreeMap<String, Item>,
}

enum Item {
    Scalar(Value),
    Strings(Vec<String>),
    Map(BTreeMap<String, String>),
}

impl Config {
    /// Reads the options map. `processors` is what `sql_threads` defaults to.
    ///
    /// Errors: `Config`, naming the key and what it takes.
    pub fn read(options: &[u8], processors: usize) -> Result<Self> {
        let mut table = Table::read(options)?;
        let name = table.string("name")?.ok_or_else(|| wrong("name", "is missing"))?;
        check_name("name", &name)?;
        let cluster = table.string("cluster")?.unwrap_or_else(|| "demo".into());
        check_name("cluster", &cluster)?;
        let listen = table.address("listen")?.unwrap_or(Address { host: "127.0.0.1".into(), port: 3301 });
        let advertise = match table.address("advertise")? {
            Some(address) => address,
            None if listen.is_unspecified() => {
                return Err(wrong("advertise", "is needed when listen is an address that others can not connect to"));
            }
            None => listen.clone(),
        };
        if advertise.is_unspecified() {
            return Err(wrong("advertise", "is an address that others can not connect to"));
        }
        let peers = table.addresses("peers")?.unwrap_or_else(|| vec![advertise.clone()]);
        let admin_password = table.string("admin_password")?;
        let secret = table.string("cluster_secret")?;
        check_safety(&listen, admin_password.as_deref(), secret.as_deref())?;
        let tier = table.string("tier")?.unwrap_or_else(|| "default".into());
        check_name("tier", &tier)?;
        let config = Self {
            data_dir: table.string("data_dir")?.unwrap_or_else(|| name.clone()),
            listen,
            advertise,
            peers,
            tier,
            failure_domain: table.map("failure_domain")?,
            replication_factor: table.integer("replication_factor", 1, 31)?.unwrap_or(1) as u8,
            bucket_count: table.integer("bucket_count", 1, 1_000_000)?.unwrap_or(3000) as u32,
            admin_password,
            cluster_secret: secret.unwrap_or_else(|| cluster.clone()),
            memtx_memory_bytes: table.integer("memtx_memory", 32 << 20, MEMTX_BYTES_MAX)?.unwrap_or(1 << 30) as u64,
            wal_mode: match table.string("wal_mode")?.as_deref() {
                None | Some("write") => WalMode::Write,
                Some("fsync") => WalMode::Fsync,
                Some(_) => return Err(wrong("wal_mode", "is neither 'write' nor 'fsync'")),
            },
            log: table.string("log")?,
            log_level: table.integer("log_level", 0, 7)?.unwrap_or(5) as u8,
            sql_threads: table.integer("sql_threads", 1, 128)?.unwrap_or(processors.clamp(1, 128) as i64) as u8,
            join_timeout_s: table.seconds("join_timeout")?.unwrap_or(f64::INFINITY),
            name,
            cluster,
        };
        table.finish()?;
        Ok(config)
    }
}

/// An address that other machines reach needs passwords that are not guessable.
fn check_safety(listen: &Address, admin_password: Option<&str>, secret: Option<&str>) -> Result<()> {
    for (key, value) in [("admin_password", admin_password), ("cluster_secret", secret)] {
        match value {
            Some("") => return Err(wrong(key, "is empty")),
            None if !listen.is_loopback() => {
                return Err(wrong(key, "is needed to listen on an address other than loopback"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_name(key: &str, name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(fits) {
        return Err(wrong(
            key,
            &format!("is 1 to {NAME_BYTES_MAX} of a-z, A-Z, 0-9, '_', '-' and '.', not \"{name}\""),
        ));
    }
    Ok(())
}

fn wrong(key: &str, why: &str) -> Error {
    let error = Error::new(Code::Config, format!("picodata.start: {key} {why}"));
    match KEYS.iter().find(|k| k.name == key) {
        Some(key) => error.with_hint(format!("{} takes {}", key.name, key.takes)),
        None => error,
    }
}

impl Table {
    fn read(options: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(options);
        let not_a_table = |_| Error::new(Code::Config, "picodata.start takes one table of options");
        let mut values = BTreeMap::new();
        // Lua encodes an empty table as an empty array.
        if reader.peek().map_err(not_a_table)? == 0x90 {
            return Ok(Self { values });
        }
        for _ in 0..reader.map_len().map_err(not_a_table)? {
            let key = reader
                .str()
                .map_err(|_| Error::new(Code::Config, "picodata.start: the keys of the options are strings"))?;
            let Some(known) = KEYS.iter().find(|k| k.name == key) else {
                let error = Error::new(Code::Config, format!("picodata.start: there is no option \"{key}\""));
                return Err(match nearest(key, KEYS.iter().map(|k| k.name)) {
                    Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
                    None => error.with_hint("picodata.help('start') lists them"),
                });
            };
            let item = match known.name {
                "peers" => read_strings(&mut reader),
                "failure_domain" => read_map(&mut reader),
                _ => reader.value().map(Item::Scalar),
            };
            let item = item.map_err(|_| wrong(known.name, "has a value of the wrong type"))?;
            values.insert(key.to_owned(), item);
        }
        Ok(Self { values })
    }

    fn scalar(&mut self, key: &str) -> Option<Value> {
        match self.values.remove(key)? {
            Item::Scalar(Value::Null) => None,
            Item::Scalar(value) => Some(value),
            // The kinds are fixed by `read`.
            Item::Strings(_) | Item::Map(_) => None,
        }
    }

    fn string(&mut self, key: &str) -> Result<Option<String>> {
        match self.scalar(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(key, &format!("is a string, not {other}"))),
        }
    }

    fn integer(&mut self, key: &str, min: i64, max: i64) -> Result<Option<i64>> {
        let number = match self.scalar(key) {
            None => return Ok(None),
            Some(Value::Integer(i)) => i,
            Some(Value::Double(d)) if d.fract() == 0.0 && d.abs() < 1e15 => d as i64,
            Some(other) => return Err(wrong(key, &format!("is an integer, not {other}"))),
        };
        if !(min..=max).contains(&number) {
            return Err(wrong(key, &format!("can not be {number}")));
        }
        Ok(Some(number))
    }

    fn seconds(&mut self, key: &str) -> Result<Option<f64>> {
        match self.scalar(key) {
            None => Ok(None),
            Some(Value::Integer(i)) if i > 0 => Ok(Some(i as f64)),
            Some(Value::Double(d)) if d > 0.0 => Ok(Some(d)),
            Some(other) => Err(wrong(key, &format!("is a positive number of seconds, not {other}"))),
        }
    }

    fn address(&mut self, key: &str) -> Result<Option<Address>> {
        self.string(key)?.map(|text| text.parse().map_err(|e| in_key(key, e))).transpose()
    }

    fn addresses(&mut self, key: &str) -> Result<Option<Vec<Address>>> {
        let Some(Item::Strings(texts)) = self.values.remove(key) else { return Ok(None) };
        if texts.is_empty() || texts.len() > PEERS_MAX {
            return Err(wrong(key, &format!("has 1 to {PEERS_MAX} addresses, not {}", texts.len())));
        }
        let mut addresses: Vec<Address> =
            texts.iter().map(|text| text.parse().map_err(|e| in_key(key, e))).collect::<Result<_>>()?;
        addresses.sort();
        addresses.dedup();
        Ok(Some(addresses))
    }

    fn map(&mut self, key: &str) -> Result<BTreeMap<String, String>> {
        match self.values.remove(key) {
            Some(Item::Map(map)) => Ok(map),
            _ => Ok(BTreeMap::new()),
        }
    }

    /// Every key that `read` let in must have been asked for: a key of `KEYS` that nothing reads is our defect.
    fn finish(self) -> Result<()> {
        match self.values.into_keys().next() {
            None => Ok(()),
            Some(key) => Err(Error::internal(format!("option {key} is documented but not read"))),
        }
    }
}

fn in_key(key: &str, error: Error) -> Error {
    Error { message: format!("picodata.start: {key}: {}", error.message), ..error }
}

fn read_strings(reader: &mut Reader<'_>) -> Result<Item> {
    if reader.take_nil() {
        return Ok(Item::Scalar(Value::Null));
    }
    let count = reader.array_len()?;
    (0..count).map(|_| reader.str().map(str::to_owned)).collect::<Result<_>>().map(Item::Strings)
}

fn read_map(reader: &mut Reader<'_>) -> Result<Item> {
    if reader.take_nil() || reader.peek()? == 0x90 && reader.array_len()? == 0 {
        return Ok(Item::Map(BTreeMap::new()));
    }
    let count = reader.map_len()?;
    let pairs = (0..count).map(|_| Ok((reader.str()?.to_owned(), reader.str()?.to_owned())));
    pairs.collect::<Result<_>>().map(Item::Map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::msgpack::*;

    fn options(pairs: &[(&str, Value)]) -> Vec<u8> {
        let mut out = Vec::new();
        write_map_len(&mut out, pairs.len());
        for (key, value) in pairs {
            write_str(&mut out, key);
            value.write_shown(&mut out);
        }
        out
    }

    fn text(s: &str) -> Value {
        Value::Text(s.into())
    }

    fn refused(pairs: &[(&str, Value)]) -> String {
        let error = Config::read(&options(pairs), 2).unwrap_err();
        assert_eq!(error.code, Code::Config);
        error.to_string()
    }

    #[test]
    fn only_the_name_is_required() {
        let config = Config::read(&options(&[("name", text("i1"))]), 2).unwrap();
        assert_eq!(config.advertise.to_string(), "127.0.0.1:3301");
        assert_eq!(config.peers, vec![config.advertise.clone()]);
        assert_eq!((config.replication_factor, config.bucket_count, config.sql_threads), (1, 3000, 2));
        assert_eq!(config.data_dir, "i1");
        assert!(refused(&[]).contains("name is missing"));
        assert!(Config::read(&[0x90], 2).is_err());
        assert!(Config::read(&[0xc0], 2).is_err());
    }

    #[test]
    fn every_documented_key_is_read() {
        let mut pairs = vec![
            ("name", text("i1")),
            ("cluster", text("c")),
            ("data_dir", text("d")),
            ("listen", text("0.0.0.0:3301")),
            ("advertise", text("db1:3301")),
            ("peers", Value::Array(vec![text("db1:3301"), text("db2:3301"), text("db1:3301")])),
            ("tier", text("hot")),
            ("replication_factor", Value::Integer(3)),
            ("bucket_count", Value::Double(100.0)),
            ("admin_password", text("x")),
            ("cluster_secret", text("y")),
            ("memtx_memory", Value::Integer(1 << 26)),
            ("wal_mode", text("fsync")),
            ("log", text("l")),
            ("log_level", Value::Integer(6)),
            ("sql_threads", Value::Integer(3)),
            ("join_timeout", Value::Integer(5)),
        ];
        pairs.push(("failure_domain", Value::Array(vec![])));
        assert_eq!(pairs.len(), KEYS.len());
        let config = Config::read(&options(&pairs), 2).unwrap();
        assert_eq!(config.peers.len(), 2);
        assert_eq!(config.wal_mode, WalMode::Fsync);
        assert_eq!(config.bucket_count, 100);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |key, value| refused(&[("name", text("i1")), (key, value)]);
        assert!(with("lisen", text("x")).contains("did you mean \"listen\"?"));
        assert!(with("listen", text("nowhere")).contains("listen: \"nowhere\" is not an address"));
        assert!(with("listen", Value::Integer(3301)).contains("listen is a string"));
        assert!(with("replication_factor", Value::Integer(0)).contains("can not be 0"));
        assert!(with("replication_factor", text("two")).contains("is an integer"));
        assert!(with("bucket_count", Value::Double(1.5)).contains("is an integer"));
        assert!(with("peers", text("127.0.0.1:1")).contains("wrong type"));
        assert!(with("peers", Value::Array(vec![])).contains("1 to 1000 addresses"));
        assert!(with("wal_mode", text("none")).contains("neither"));
        assert!(with("cluster_secret", text("")).contains("empty"));
        assert!(refused(&[("name", text("a b"))]).contains("name is 1 to 63"));
    }

    #[test]
    fn an_open_door_needs_passwords() {
        let open = [("name", text("i1")), ("listen", text("10.0.0.1:3301"))];
        assert!(refused(&open).contains("admin_password is needed"));
        let mut half = open.to_vec();
        half.push(("admin_password", text("x")));
        assert!(refused(&half).contains("cluster_secret is needed"));
        half.push(("cluster_secret", text("y")));
        assert!(Config::read(&options(&half), 2).is_ok());
    }
}
