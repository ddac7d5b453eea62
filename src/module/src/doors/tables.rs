//! Tables without SQL: `picodata.create_table`, `picodata.drop_table`, `picodata.create_index`.

use crate::host::{Call, Deadline};
use crate::schema_change;
use model::msgpack::{Reader, write_bool};
use model::{
    Code, Column, ColumnType, Distribution, Durability, Engine, Error, Index, Result, SchemaChange, Table, TableState,
};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::time::Duration;

/// How long a change may take where the caller set no limit.
const TIMEOUT_S: f64 = 10.0;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TableOptions {
    name: String,
    #[serde(alias = "format")]
    columns: Vec<ColumnOptions>,
    primary_key: Vec<String>,
    /// 'sharded' or 'global'.
    distribution: Option<String>,
    sharding_key: Option<Vec<String>>,
    tier: Option<String>,
    engine: Option<String>,
    /// 'replicated' or 'local'.
    durability: Option<String>,
    #[serde(default)]
    if_not_exists: bool,
    timeout: Option<f64>,
}

/// A column as `{name=, type=, nullable=}` or `{'name', 'type'}`.
struct ColumnOptions(NamedColumn);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedColumn {
    name: String,
    #[serde(rename = "type")]
    ty: String,
    #[serde(alias = "is_nullable", default)]
    nullable: bool,
}

impl<'de> Deserialize<'de> for ColumnOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = NamedColumn;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a column as {name=, type=, nullable=} or {'name', 'type'}")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<NamedColumn, A::Error> {
                NamedColumn::deserialize(MapAccessDeserializer::new(map))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> std::result::Result<NamedColumn, A::Error> {
                let (name, ty) = <(String, String)>::deserialize(SeqAccessDeserializer::new(seq))?;
                Ok(NamedColumn { name, ty, nullable: false })
            }
        }

        deserializer.deserialize_any(Either).map(Self)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IndexOptions {
    name: String,
    columns: Vec<String>,
    #[serde(default)]
    unique: bool,
    #[serde(default)]
    if_not_exists: bool,
    timeout: Option<f64>,
}

/// `create_table(options)`: true when it was made, false when it was there and `if_not_exists` was given.
pub fn serve_create_table(call: &mut Call<'_>) -> Result<()> {
    let bytes = call.copy();
    let mut reader = arguments(&bytes, 1..=1, "picodata.create_table takes one table of options")?;
    let options: TableOptions = read(reader.raw()?, "picodata.create_table")?;
    let (if_not_exists, timeout_s) = (options.if_not_exists, options.timeout);
    let table = table_of(options)?;
    table.validate()?;
    change(call, SchemaChange::CreateTable { table }, if_not_exists.then_some(Code::AlreadyExists), timeout_s)
}

/// `drop_table(name[, {if_exists=, timeout=}])`.
pub fn serve_drop_table(call: &mut Call<'_>) -> Result<()> {
    #[derive(Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Options {
        #[serde(default)]
        if_exists: bool,
        timeout: Option<f64>,
    }
    let bytes = call.copy();
    let mut reader = arguments(&bytes, 1..=2, "picodata.drop_table takes the name of a table and options")?;
    let table = reader.str()?.to_owned();
    let options: Options = match reader.rest() {
        [] | [0xc0] | [0x90] => Options::default(),
        rest => read(rest, "picodata.drop_table")?,
    };
    let forgiven = options.if_exists.then_some(Code::NoSuchTable);
    change(call, SchemaChange::DropTable { table, cascade: false }, forgiven, options.timeout)
}

/// `create_index(table, options)`.
pub fn serve_create_index(call: &mut Call<'_>) -> Result<()> {
    let bytes = call.copy();
    let mut reader = arguments(&bytes, 2..=2, "picodata.create_index takes the name of a table and options")?;
    let table = reader.str()?.to_owned();
    let options: IndexOptions = read(reader.raw()?, "picodata.create_index")?;
    let state = crate::node::get()?.state();
    let definition = state.schema.table(&table)?;
    let columns = positions(definition, &options.columns)?;
    let index = Index { id: 0, name: options.name, columns, unique: options.unique };
    let forgiven = options.if_not_exists.then_some(Code::AlreadyExists);
    change(call, SchemaChange::CreateIndex { table, index }, forgiven, options.timeout)
}

fn arguments<'a>(bytes: &'a [u8], counts: std::ops::RangeInclusive<usize>, usage: &str) -> Result<Reader<'a>> {
    let mut reader = Reader::new(bytes);
    if !counts.contains(&reader.array_len()?) {
        return Err(Error::new(Code::Argument, usage));
    }
    Ok(reader)
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8], door: &str) -> Result<T> {
    rmp_serde::from_slice(bytes).map_err(|e| Error::new(Code::Argument, format!("{door}: {e}")))
}

/// Carries the change out and answers whether there was anything to do.
fn change(call: &mut Call<'_>, change: SchemaChange, forgiven: Option<Code>, timeout_s: Option<f64>) -> Result<()> {
    let seconds = timeout_s.unwrap_or(TIMEOUT_S);
    if !(seconds > 0.0 && seconds <= 3600.0) {
        return Err(Error::new(Code::Argument, "timeout is a number of seconds, more than 0 and up to 3600"));
    }
    let changed = match schema_change::change(change, Deadline::after(Duration::from_secs_f64(seconds))) {
        Ok(()) => true,
        Err(error) if Some(error.code) == forgiven => false,
        Err(error) => return Err(error),
    };
    let mut reply = Vec::new();
    write_bool(&mut reply, changed);
    call.reply(&reply)
}

fn table_of(options: TableOptions) -> Result<Table> {
    let columns = options.columns.into_iter().map(column_of).collect::<Result<Vec<_>>>()?;
    let engine = match options.engine.as_deref() {
        None | Some("memtx") => Engine::Memtx,
        Some("vinyl") => Engine::Vinyl,
        Some(other) => return Err(Error::new(Code::Argument, format!("engine is 'memtx' or 'vinyl', not '{other}'"))),
    };
    let durability = match options.durability.as_deref() {
        None => Durability::default(),
        Some(name) => Durability::named(name).ok_or_else(|| {
            Error::new(Code::Argument, format!("durability is 'replicated' or 'local', not '{name}'"))
        })?,
    };
    let mut table = Table {
        id: 0,
        name: options.name,
        version: 0,
        engine,
        distribution: Distribution::Global,
        columns,
        primary_key: vec![],
        indexes: vec![],
        state: TableState::Preparing,
        checks: vec![],
        durability,
    };
    table.primary_key = positions(&table, &options.primary_key)?;
    table.distribution = match options.distribution.as_deref() {
        Some("global") => Distribution::Global,
        None | Some("sharded") => Distribution::Sharded {
            key: match &options.sharding_key {
                Some(names) => positions(&table, names)?,
                None => table.primary_key.clone(),
            },
            tier: options.tier.unwrap_or_else(|| "default".into()).into(),
        },
        Some(other) => {
            return Err(Error::new(Code::Argument, format!("distribution is 'sharded' or 'global', not '{other}'")));
        }
    };
    Ok(table)
}

fn column_of(ColumnOptions(NamedColumn { name, ty, nullable }): ColumnOptions) -> Result<Column> {
    let Some(ty) = ColumnType::from_name(&ty) else {
        return Err(Error::new(Code::Argument, format!("column \"{name}\" has a type that is not known: '{ty}'")));
    };
    Ok(Column::new(name, ty, nullable))
}

fn positions(table: &Table, names: &[String]) -> Result<Vec<usize>> {
    names.iter().map(|name| table.require_column(name)).collect()
}
