//! What users get: `{metadata={{name=, type=}, ...}, rows={{...}, ...}}`, from stored tuples.

use crate::layout::Layout;
use crate::request::Projection;
use model::msgpack::{self, Reader};
use model::{Code, Error, Result, Value};

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
    if projection.is_none() && layout.is_shown_as_stored {
        let mut fields = Reader::new(tuple);
        fields.array_len()?;
        if layout.is_sharded() {
            fields.skip()?;
        }
        msgpack::write_array_len(out, layout.width());
        out.extend_from_slice(fields.rest());
        return Ok(());
    }
    let columns = projection.map_or(&layout.visible, |projection| &projection.columns);
    msgpack::write_array_len(out, columns.len());
    for &position in columns {
        let field = layout.column(tuple, position);
        let field = field.ok_or_else(|| Error::new(Code::Corrupted, "a stored tuple is too short"))?;
        write_shown(layout, position, field, out)?;
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
