//! Doors that look for rows by conditions: `select`, `count`, `min`, `max`, `len`.

use super::{read_options, table_of};
use crate::host::{Call, Deadline};
use crate::router::{self, TableRoute};
use crate::storage;
use crud::Selection;
use crud::answer::write_result;
use crud::request::Args;
use crud::scan::Found;
use crud::selection::index_by_name;
use model::msgpack::{self, Reader};
use model::{Code, Error, Result};

/// Finds or counts the rows of a selection, wherever they are.
fn find(route: &TableRoute, selection: Selection, count_only: bool, deadline: Deadline) -> Result<Found> {
    if route.tier.is_none() {
        return storage::get()?.select(&route.layout, &selection, &[], count_only);
    }
    router::get()?.select(route, selection, count_only, deadline)
}

/// `select(table, conditions[, opts])`
pub fn select(call: &mut Call<'_>) -> Result<()> {
    let bytes = call.copy();
    let mut args = Args::new(call.name(), &bytes)?;
    let route = table_of(&mut args)?;
    let conditions = args.optional()?.unwrap_or(&[0xc0]);
    let options = args.options()?;
    let (deadline, shape) = read_options(&options, &route)?;
    let mut selection = Selection::read(&route.layout, &mut Reader::new(conditions))?;
    if let Some(after) = options.after {
        selection.set_after(&route.writer(), &mut Reader::new(after))?;
    }
    let is_backwards = options.first.is_some_and(|first| first < 0);
    if is_backwards {
        if options.after.is_none() {
            return Err(Error::new(
                Code::Argument,
                "a negative `first` needs `after`: it asks for the rows before that one",
            ));
        }
        selection.descending = !selection.descending;
    }
    selection.rows_max = options.first.map(|first| first.unsigned_abs() as usize);
    let mut found = find(&route, selection, false, deadline)?;
    if is_backwards {
        found.tuples.reverse();
    }
    let mut out = Vec::new();
    write_result(&route.layout, shape.projection.as_ref(), found.tuples.iter().map(Vec::as_slice), &mut out)?;
    call.reply(&out)
}

/// `count(table[, conditions[, opts]])`
pub fn count(call: &mut Call<'_>) -> Result<()> {
    let bytes = call.copy();
    let mut args = Args::new(call.name(), &bytes)?;
    let route = table_of(&mut args)?;
    let conditions = args.optional()?.unwrap_or(&[0xc0]);
    let (deadline, _) = read_options(&args.options()?, &route)?;
    let selection = Selection::read(&route.layout, &mut Reader::new(conditions))?;
    reply_count(call, find(&route, selection, true, deadline)?.count)
}

/// `len(table[, opts])`
pub fn len(call: &mut Call<'_>) -> Result<()> {
    let bytes = call.copy();
    let mut args = Args::new(call.name(), &bytes)?;
    let route = table_of(&mut args)?;
    let (deadline, _) = read_options(&args.options()?, &route)?;
    reply_count(call, find(&route, Selection::default(), true, deadline)?.count)
}

fn reply_count(call: &mut Call<'_>, count: u64) -> Result<()> {
    let mut out = Vec::new();
    msgpack::write_uint(&mut out, count);
    call.reply(&out)
}

/// `min(table[, index[, opts]])`
pub fn min(call: &mut Call<'_>) -> Result<()> {
    border(call, false)
}

/// `max(table[, index[, opts]])`
pub fn max(call: &mut Call<'_>) -> Result<()> {
    border(call, true)
}

fn border(call: &mut Call<'_>, descending: bool) -> Result<()> {
    let bytes = call.copy();
    let mut args = Args::new(call.name(), &bytes)?;
    let route = table_of(&mut args)?;
    let name = match args.optional()? {
        Some(bytes) => {
            let wrong = |_| Error::new(Code::Argument, "an index is given by its name");
            Some(Reader::new(bytes).str().map_err(wrong)?)
        }
        None => None,
    };
    let (deadline, shape) = read_options(&args.options()?, &route)?;
    let index = index_by_name(&route.layout, name)?;
    let selection = Selection { index, descending, rows_max: Some(1), ..Selection::default() };
    let found = find(&route, selection, false, deadline)?;
    let mut out = Vec::new();
    write_result(&route.layout, shape.projection.as_ref(), found.tuples.iter().map(Vec::as_slice), &mut out)?;
    call.reply(&out)
}
