//! Our nodes as bytes within a plan: scans, rows that the router sends along, and what hides constants.
//!
//! A scan names its table, id and version: a storage whose catalog has another version of that table refuses with
//! `SchemaChanged` instead of decoding rows by the wrong columns.

use super::errors::wrap;
use super::gather::ShippedExec;
use super::hiding::HidingExec;
use super::ranges::{Access, index_columns};
use super::scan::ScanExec;
use super::site::Site;
use crate::cluster::{Bound, KeyRange, Schema};
use datafusion::error::Result as DfResult;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use model::msgpack::{Reader, write_array_len, write_bool, write_nil, write_str, write_uint};
use model::{Code, Error, Result, Table, Value};
use std::sync::Arc;

const SCAN: u64 = 1;
const SHIPPED: u64 = 2;
const HIDING: u64 = 3;
/// Column positions in a projection: as many as columns in a table.
const PROJECTION_MAX: usize = model::table::COLUMNS_MAX;

#[derive(Debug)]
pub struct Codec;

impl PhysicalExtensionCodec for Codec {
    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        out: &mut Vec<u8>,
        _: &dyn PhysicalProtoConverterExtension,
    ) -> DfResult<()> {
        if let Some(scan) = node.downcast_ref::<ScanExec>() {
            write_uint(out, SCAN);
            encode_scan(scan, out);
            return Ok(());
        }
        if let Some(shipped) = node.downcast_ref::<ShippedExec>() {
            write_uint(out, SHIPPED);
            return shipped.encode(out);
        }
        if node.is::<HidingExec>() {
            write_uint(out, HIDING);
            return Ok(());
        }
        Err(wrap(Error::new(Code::Unsupported, format!("{} can not run at a storage", node.name()))))
    }

    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        _: &dyn PhysicalProtoConverterExtension,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let site = Site::of(context)?;
        let mut reader = Reader::new(bytes);
        match reader.uint().map_err(wrap)? {
            SCAN => decode_scan(&mut reader, &*site.schema),
            SHIPPED => ShippedExec::decode(&mut reader).map(|shipped| Arc::new(shipped) as _),
            HIDING => match inputs {
                [input] => Ok(Arc::new(HidingExec::new(input.clone()))),
                _ => Err(wrap(broken())),
            },
            _ => Err(wrap(Error::new(Code::Argument, "a fragment has a node that is not known here"))),
        }
    }
}

fn encode_scan(scan: &ScanExec, out: &mut Vec<u8>) {
    write_str(out, &scan.table.name);
    write_uint(out, scan.table.id.into());
    write_uint(out, scan.table.version);
    write_uint(out, scan.id.into());
    write_array_len(out, scan.projection.len());
    scan.projection.iter().for_each(|at| write_uint(out, *at as u64));
    write_uint(out, scan.access.index.into());
    for number in [scan.fetch.map(|fetch| fetch as u64), scan.table_rows] {
        match number {
            Some(number) => write_uint(out, number),
            None => write_nil(out),
        }
    }
    write_array_len(out, scan.access.ranges.len());
    for range in &scan.access.ranges {
        encode_bound(range.lower.as_ref(), out);
        encode_bound(range.upper.as_ref(), out);
        write_uint(out, range.bucket.unwrap_or(0).into());
    }
}

fn encode_bound(bound: Option<&Bound>, out: &mut Vec<u8>) {
    let Some(bound) = bound else { return write_nil(out) };
    write_array_len(out, bound.values.len());
    bound.values.iter().for_each(|value| value.write_stored(out));
    write_bool(out, bound.inclusive);
}

fn decode_scan(reader: &mut Reader<'_>, schema: &dyn Schema) -> DfResult<Arc<dyn ExecutionPlan>> {
    let decode = |reader: &mut Reader<'_>| -> Result<_> {
        let table = same_table(schema, reader.str()?, reader.uint()?, reader.uint()?)?;
        let id = small(reader)?;
        let len = reader.array_len()?;
        if len > PROJECTION_MAX {
            return Err(broken());
        }
        let projection = (0..len).map(|_| small(reader).map(|at| at as usize)).collect::<Result<Vec<_>>>()?;
        if projection.iter().any(|at| *at >= table.columns.len()) {
            return Err(broken());
        }
        let index = small(reader)?;
        let fetch = if reader.take_nil() { None } else { Some(usize::try_from(reader.uint()?).map_err(|_| broken())?) };
        let table_rows = if reader.take_nil() { None } else { Some(reader.uint()?) };
        let len = reader.array_len()?;
        let ranges = (0..len).map(|_| decode_range(reader, &table, index)).collect::<Result<Vec<_>>>()?;
        let access = Access { index, ranges, buckets: None, rows_max: None };
        Ok((table, id, projection, access, fetch, table_rows))
    };
    let (table, id, projection, access, fetch, table_rows) = decode(reader).map_err(wrap)?;
    let scan = ScanExec::try_new(table, id, projection, access, fetch)?;
    Ok(Arc::new(scan.of_rows(table_rows)))
}

fn decode_range(reader: &mut Reader<'_>, table: &Table, index: u32) -> Result<KeyRange> {
    let lower = decode_bound(reader, table, index)?;
    let upper = decode_bound(reader, table, index)?;
    let bucket = Some(small(reader)?).filter(|bucket| *bucket > 0);
    Ok(KeyRange { lower, upper, bucket })
}

fn decode_bound(reader: &mut Reader<'_>, table: &Table, index: u32) -> Result<Option<Bound>> {
    if reader.take_nil() {
        return Ok(None);
    }
    let len = reader.array_len()?;
    let columns = index_columns(table, index).get(..len).ok_or_else(broken)?;
    let values =
        columns.iter().map(|at| Value::read_stored(reader, table.columns[*at].ty)).collect::<Result<Vec<_>>>()?;
    Ok(Some(Bound { values, inclusive: reader.bool()? }))
}

/// The table as the router planned on it.
fn same_table(schema: &dyn Schema, name: &str, id: u64, version: u64) -> Result<Arc<Table>> {
    let table = schema.table(name).filter(|table| u64::from(table.id) == id && table.version == version);
    table.ok_or_else(|| Error::new(Code::SchemaChanged, format!("table \"{name}\" changed while a query began on it")))
}

fn small(reader: &mut Reader<'_>) -> Result<u32> {
    u32::try_from(reader.uint()?).map_err(|_| broken())
}

fn broken() -> Error {
    Error::new(Code::Argument, "a fragment's node is broken")
}
