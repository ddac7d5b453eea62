//! Box spaces and indexes made from table definitions, by rows of the host's own catalogue. Everything here may be done
//! twice: what is there already is left as it is.
//!
//! Space ids are table ids, index ids those of the catalog. A sharded table's first field is the bucket.

use super::truncation;
use crate::host::{IteratorKind, Space, Transaction};
use crud::compare::field_of;
use crud::selection::PRIMARY_INDEX_NAME;
use model::msgpack::{self, Reader};
use model::{Code, Error, Index, Result, Table, TableId};

/// The host's catalogue of spaces.
const SPACE: Space = Space(280);
/// The host's catalogue of indexes.
const INDEX: Space = Space(288);
/// The host's record of truncations.
const TRUNCATE: Space = Space(330);
/// The host's number of the user `admin`, who owns what we make.
const ADMIN: u64 = 1;
/// The host's replication group of rows that stay on their instance.
const LOCAL_GROUP: u64 = 1;
/// The name of the field that no user sees.
const BUCKET_FIELD: &str = "_pico_bucket_id";

/// Whether the space and all indexes of the table are here.
///
/// Errors: what the host says.
pub fn is_made(table: &Table) -> Result<bool> {
    if find_space(table.id)?.is_none() || !has_index(table.id, 0)? {
        return Ok(false);
    }
    for index in &table.indexes {
        if !has_index(table.id, index.id)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the space and all indexes of the table are here, in the form that the definition says.
///
/// Errors: what the host says.
pub fn is_as_defined(table: &Table) -> Result<bool> {
    Ok(is_made(table)? && find_space(table.id)?.is_some_and(|space| space == space_row(table)))
}

/// Brings the name and the format of the table's space in line with its definition, if the space is here.
///
/// Errors: what the host says; it looks at the rows where the new format asks for more.
pub fn align(table: &Table) -> Result<()> {
    let wanted = space_row(table);
    match find_space(table.id)? {
        Some(space) if space != wanted => SPACE.replace(&wanted).map(drop),
        _ => Ok(()),
    }
}

/// Makes the space with all its indexes, or those indexes that are missing. An index on rows that are there is built
/// now, which takes its time and may yield.
///
/// Errors: `AlreadyExists` when another table's space has the id or the name, `DuplicateKey` when a unique index finds
/// equal rows, and what the host says.
pub fn make(table: &Table) -> Result<()> {
    match find_space(table.id)? {
        Some(space) if name_of(&space)? == table.name => {}
        Some(space) => {
            let message = format!("space {} is \"{}\" already, not \"{}\"", table.id, name_of(&space)?, table.name);
            return Err(Error::new(Code::AlreadyExists, message));
        }
        None => return make_all(table),
    }
    if !has_index(table.id, 0)? {
        INDEX.insert(&primary_row(table))?;
    }
    for index in &table.indexes {
        if !has_index(table.id, index.id)? {
            INDEX.insert(&index_row(table, index))?;
        }
    }
    Ok(())
}

fn make_all(table: &Table) -> Result<()> {
    let transaction = Transaction::begin()?;
    SPACE.insert(&space_row(table))?;
    INDEX.insert(&primary_row(table))?;
    for index in &table.indexes {
        INDEX.insert(&index_row(table, index))?;
    }
    transaction.commit()
}

/// All indexes, as (space, index), of the spaces from this id on.
///
/// Errors: what the host says.
pub fn made_indexes(first: TableId) -> Result<Vec<(TableId, u32)>> {
    let mut iterator = INDEX.iterate(0, IteratorKind::Ge, &key(&[first.into()]))?;
    let (mut made, mut row) = (Vec::new(), Vec::new());
    while iterator.copy_next(&mut row)? {
        let number = |at| field_of(&row, at).and_then(|field| Reader::new(field).uint().ok());
        if let (Some(Ok(space)), Some(Ok(index))) = (number(0).map(TableId::try_from), number(1).map(u32::try_from)) {
            made.push((space, index));
        }
        row.clear();
    }
    Ok(made)
}

/// Drops one secondary index.
///
/// Errors: what the host says.
pub fn drop_index(table: TableId, index: u32) -> Result<()> {
    INDEX.delete(0, &key(&[table.into(), index.into()])).map(drop)
}

/// Drops the space with its rows and indexes.
///
/// Errors: what the host says.
pub fn drop_space(table: TableId) -> Result<()> {
    if find_space(table)?.is_none() {
        return Ok(());
    }
    let transaction = Transaction::begin()?;
    for index in index_ids(table)?.into_iter().rev() {
        INDEX.delete(0, &key(&[table.into(), index.into()]))?;
    }
    TRUNCATE.delete(0, &key(&[table.into()]))?;
    truncation::forget(table)?;
    SPACE.delete(0, &key(&[table.into()]))?;
    transaction.commit()
}

fn find_space(table: TableId) -> Result<Option<Vec<u8>>> {
    Ok(SPACE.get(0, &key(&[table.into()]))?.map(|tuple| tuple.to_vec()))
}

fn has_index(table: TableId, index: u32) -> Result<bool> {
    Ok(INDEX.get(0, &key(&[table.into(), index.into()]))?.is_some())
}

fn index_ids(table: TableId) -> Result<Vec<u32>> {
    let mut iterator = INDEX.iterate(0, IteratorKind::Eq, &key(&[table.into()]))?;
    let (mut ids, mut row) = (Vec::new(), Vec::new());
    while iterator.copy_next(&mut row)? {
        let id = field_of(&row, 1).and_then(|field| Reader::new(field).uint().ok());
        ids.extend(id.and_then(|id| u32::try_from(id).ok()));
        row.clear();
    }
    Ok(ids)
}

fn name_of(space: &[u8]) -> Result<String> {
    let name = field_of(space, 2).and_then(|field| Reader::new(field).str().ok());
    name.map(str::to_owned).ok_or_else(|| Error::new(Code::Corrupted, "a row of the host's _space can not be read"))
}

fn key(parts: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    msgpack::write_array_len(&mut out, parts.len());
    parts.iter().for_each(|part| msgpack::write_uint(&mut out, *part));
    out
}

/// `[id, owner, name, engine, field count, flags, format]`
fn space_row(table: &Table) -> Vec<u8> {
    let mut out = Vec::new();
    msgpack::write_array_len(&mut out, 7);
    msgpack::write_uint(&mut out, table.id.into());
    msgpack::write_uint(&mut out, ADMIN);
    msgpack::write_str(&mut out, &table.name);
    msgpack::write_str(&mut out, table.engine.name());
    // No number of fields: rows may be older than the last columns. Rows that are written have them all.
    msgpack::write_uint(&mut out, 0);
    if table.is_global() {
        msgpack::write_map_len(&mut out, 1);
        msgpack::write_str(&mut out, "group_id");
        msgpack::write_uint(&mut out, LOCAL_GROUP);
    } else {
        msgpack::write_map_len(&mut out, 0);
    }
    msgpack::write_array_len(&mut out, table.columns.len() + table.stored_offset());
    if !table.is_global() {
        write_field(&mut out, BUCKET_FIELD, "unsigned", false);
    }
    for column in &table.columns {
        write_field(&mut out, &column.name, column.ty.host_type(), column.is_nullable_in_box());
    }
    out
}

fn write_field(out: &mut Vec<u8>, name: &str, host_type: &str, is_nullable: bool) {
    msgpack::write_map_len(out, 3);
    msgpack::write_str(out, "name");
    msgpack::write_str(out, name);
    msgpack::write_str(out, "type");
    msgpack::write_str(out, host_type);
    msgpack::write_str(out, "is_nullable");
    msgpack::write_bool(out, is_nullable);
}

fn primary_row(table: &Table) -> Vec<u8> {
    let mut parts = Vec::new();
    msgpack::write_array_len(&mut parts, table.primary_key.len() + table.stored_offset());
    if !table.is_global() {
        write_part(&mut parts, 0, "unsigned", false);
    }
    table.primary_key.iter().for_each(|column| write_column_part(&mut parts, table, *column));
    index_row_of(table.id, 0, PRIMARY_INDEX_NAME, true, &parts)
}

fn index_row(table: &Table, index: &Index) -> Vec<u8> {
    let mut parts = Vec::new();
    msgpack::write_array_len(&mut parts, index.columns.len());
    index.columns.iter().for_each(|column| write_column_part(&mut parts, table, *column));
    index_row_of(table.id, index.id, &index.name, index.unique, &parts)
}

/// `[space id, index id, name, type, options, parts]`
fn index_row_of(table: TableId, id: u32, name: &str, unique: bool, parts: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    msgpack::write_array_len(&mut out, 6);
    msgpack::write_uint(&mut out, table.into());
    msgpack::write_uint(&mut out, id.into());
    msgpack::write_str(&mut out, name);
    msgpack::write_str(&mut out, "tree");
    msgpack::write_map_len(&mut out, 1);
    msgpack::write_str(&mut out, "unique");
    msgpack::write_bool(&mut out, unique);
    out.extend_from_slice(parts);
    out
}

fn write_column_part(out: &mut Vec<u8>, table: &Table, column: usize) {
    let definition = &table.columns[column];
    write_part(out, column + table.stored_offset(), definition.ty.host_type(), definition.is_nullable_in_box());
}

fn write_part(out: &mut Vec<u8>, field: usize, host_type: &str, is_nullable: bool) {
    msgpack::write_map_len(out, 3);
    msgpack::write_str(out, "field");
    msgpack::write_uint(out, field as u64);
    msgpack::write_str(out, "type");
    msgpack::write_str(out, host_type);
    msgpack::write_str(out, "is_nullable");
    msgpack::write_bool(out, is_nullable);
}
