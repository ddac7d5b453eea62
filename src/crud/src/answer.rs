//! What users get: `{metadata={{name=, type=}, ...}, rows={{...}, ...}}`, from stored tuples.

use crate::layout::Layout;
use crate::request::Projection;
use model::msgpack::{self, Reader};
use model::{Result, Value};

/// Appends a whole result of these stored tuples.
///
/// Errors: `Argument` or `Corrupted` when a tuple is not one of this table.
pub fn write_result<'t>(
    layout: &Layout,
    projection: Option<&Projection>,
    tuples: impl ExactSizeIterator<Item = &'t [u8]>,
    out: &mut Vec<u8>,
) -> Result<()> {
    let metadata = projection.map_or(&layout.metadata, |projection| &projection.metadata);
    msgpack::write_map_len(out, 2);
    msgpack::write_str(out, "metadata");
    out.extend_from_slice(metadata);
    msgpack::write_str(out, "rows");
    msgpack::write_array_len(out, tuples.len());
    for tuple in tuples {
        write_row(layout, projection, tuple, out)?;
    }
    Ok(())
}

/// Appends the row that users see of a stored tuple: without the bucket, dates and times as text.
///
/// Errors: as `write_result`.
pub fn write_row(layout: &Layout, projection: Option<&Projection>, tuple: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut fields = Reader::new(tuple);
    fields.array_len()?;
    if layout.is_sharded() {
        fields.skip()?;
    }
    match projection {
        None if layout.is_shown_as_stored => {
            msgpack::write_array_len(out, layout.width());
            out.extend_from_slice(fields.rest());
        }
        None => {
            msgpack::write_array_len(out, layout.width());
            for position in 0..layout.width() {
                write_shown(layout, position, fields.raw()?, out)?;
            }
        }
        Some(projection) => {
            msgpack::write_array_len(out, projection.columns.len());
            for &position in &projection.columns {
                let mut at = fields;
                for _ in 0..position {
                    at.skip()?;
                }
                write_shown(layout, position, at.raw()?, out)?;
            }
        }
    }
    Ok(())
}

fn write_shown(layout: &Layout, position: usize, field: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let cell = layout.cells[position];
    if cell.is_temporal() {
        Value::read_stored(&mut Reader::new(field), cell.ty)?.write_shown(out);
    } else {
        out.extend_from_slice(field);
    }
    Ok(())
}
