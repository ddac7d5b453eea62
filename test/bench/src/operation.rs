//! The operations to measure: what the n-th request of a run looks like.

use crate::iproto::{self, Connection};
use crate::{Settings, wrong};
use model::Result;
use model::msgpack::{write_array_len, write_int, write_map_len, write_str, write_uint};

const KEY_SPACE: u64 = 0x10;
const KEY_INDEX: u64 = 0x11;
const KEY_LIMIT: u64 = 0x12;
const KEY_OFFSET: u64 = 0x13;
const KEY_ITERATOR: u64 = 0x14;
const KEY_KEY: u64 = 0x20;
const KEY_TUPLE: u64 = 0x21;
const KEY_FUNCTION: u64 = 0x22;

const VALUE_BYTES: usize = 100;
const ROWS_IN_MANY: u64 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Put,
    Get,
    InsertMany,
    SqlSelect,
    SqlInsert,
    /// REPLACE and SELECT on a space of one storage, without us: the floor.
    RawPut,
    RawGet,
}

/// An operation on a table of (id, value), or on a space of (bucket id, id, value).
pub struct Operation {
    kind: Kind,
    table: String,
    space: u64,
    /// Reads and replacements pick ids below this.
    keys: u64,
    /// Inserts count up from this.
    first: u64,
    value: String,
    statement: String,
}

impl Operation {
    pub fn new(name: &str, settings: &Settings) -> Result<Self> {
        let kind = match name {
            "put" => Kind::Put,
            "get" => Kind::Get,
            "insert-many" => Kind::InsertMany,
            "sql-select" => Kind::SqlSelect,
            "sql-insert" => Kind::SqlInsert,
            "raw-put" => Kind::RawPut,
            "raw-get" => Kind::RawGet,
            _ => return Err(wrong(&format!("there is no operation {name}"))),
        };
        let table = settings.text("table", "kv");
        let statement = match kind {
            Kind::SqlSelect => format!("SELECT id, value FROM {table} WHERE id = ?"),
            Kind::SqlInsert => format!("INSERT INTO {table} VALUES (?, ?)"),
            _ => String::new(),
        };
        Ok(Self {
            kind,
            table,
            space: settings.number("space", 0)?,
            keys: settings.number("keys", 100_000)?.max(1),
            first: settings.number("first", 0)?,
            value: "x".repeat(VALUE_BYTES),
            statement,
        })
    }

    /// Rows that one request reads or writes.
    pub fn rows(&self) -> u64 {
        if self.kind == Kind::InsertMany { ROWS_IN_MANY } else { 1 }
    }

    /// Appends request `n` to the connection, under `n` as its sync id.
    pub fn send(&self, connection: &mut Connection, n: u64) {
        let id = self.id(n);
        match self.kind {
            Kind::Put => self.call(connection, n, "picodata.crud.replace", |out| {
                write_str(out, &self.table);
                self.write_row(out, id);
            }),
            Kind::Get => self.call(connection, n, "picodata.crud.get", |out| {
                write_str(out, &self.table);
                write_uint(out, id);
            }),
            Kind::InsertMany => self.call(connection, n, "picodata.crud.insert_many", |out| {
                write_str(out, &self.table);
                write_array_len(out, ROWS_IN_MANY as usize);
                (0..ROWS_IN_MANY).for_each(|i| self.write_row(out, self.first + n * ROWS_IN_MANY + i));
            }),
            Kind::SqlSelect => self.call(connection, n, "picodata.sql", |out| {
                write_str(out, &self.statement);
                write_array_len(out, 1);
                write_uint(out, id);
            }),
            Kind::SqlInsert => self.call(connection, n, "picodata.sql", |out| {
                write_str(out, &self.statement);
                self.write_row(out, self.first + n);
            }),
            Kind::RawPut => connection.request(iproto::REPLACE, n, |out| self.write_raw_put(out, id)),
            Kind::RawGet => connection.request(iproto::SELECT, n, |out| self.write_raw_get(out, id)),
        }
    }

    /// A key for request `n`: spread over all keys, the same in every run.
    fn id(&self, n: u64) -> u64 {
        let mixed = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 20) % self.keys
    }

    /// A call with two arguments, which `args` writes.
    fn call(&self, connection: &mut Connection, n: u64, function: &str, args: impl FnOnce(&mut Vec<u8>)) {
        connection.request(iproto::CALL, n, |out| {
            write_map_len(out, 2);
            write_uint(out, KEY_FUNCTION);
            write_str(out, function);
            write_uint(out, KEY_TUPLE);
            write_array_len(out, 2);
            args(out);
        });
    }

    fn write_row(&self, out: &mut Vec<u8>, id: u64) {
        write_array_len(out, 2);
        write_uint(out, id);
        write_str(out, &self.value);
    }

    fn write_raw_put(&self, out: &mut Vec<u8>, id: u64) {
        write_map_len(out, 2);
        write_uint(out, KEY_SPACE);
        write_uint(out, self.space);
        write_uint(out, KEY_TUPLE);
        write_array_len(out, 3);
        write_uint(out, raw_bucket(id));
        write_uint(out, id);
        write_str(out, &self.value);
    }

    fn write_raw_get(&self, out: &mut Vec<u8>, id: u64) {
        let numbers = [(KEY_SPACE, self.space), (KEY_INDEX, 0), (KEY_LIMIT, 1), (KEY_OFFSET, 0), (KEY_ITERATOR, 0)];
        write_map_len(out, numbers.len() + 1);
        for (key, number) in numbers {
            write_uint(out, key);
            write_uint(out, number);
        }
        write_uint(out, KEY_KEY);
        write_array_len(out, 2);
        write_uint(out, raw_bucket(id));
        write_int(out, id as i64);
    }
}

/// As many buckets as a default tier has.
fn raw_bucket(id: u64) -> u64 {
    id.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 3000 + 1
}
