//! The doors `picodata.crud.*`, `picodata.call` and `picodata.bucket_id`.
//!
//! In come arguments as MessagePack; each door makes them an operation in the form that box and the wire take, hands it to
//! the router and writes the answer from the tuples that come back. Nothing is decoded into values on the way.

pub mod call;
mod many;
mod one;
mod select;

use crate::host::{Deadline, door};
use crate::router::{self, Snapshot, TableRoute};
use crate::storage;
use ::crud::request::{Args, Options, Projection};
use model::Result;
use std::rc::Rc;

/// Opens the doors for users.
pub fn open() {
    door::register("picodata.crud.insert", one::insert);
    door::register("picodata.crud.insert_object", one::insert_object);
    door::register("picodata.crud.replace", one::replace);
    door::register("picodata.crud.replace_object", one::replace_object);
    door::register("picodata.crud.upsert", one::upsert);
    door::register("picodata.crud.upsert_object", one::upsert_object);
    door::register("picodata.crud.get", one::get);
    door::register("picodata.crud.update", one::update);
    door::register("picodata.crud.delete", one::delete);
    door::register("picodata.crud.insert_many", many::insert_many);
    door::register("picodata.crud.insert_object_many", many::insert_object_many);
    door::register("picodata.crud.replace_many", many::replace_many);
    door::register("picodata.crud.replace_object_many", many::replace_object_many);
    door::register("picodata.crud.upsert_many", many::upsert_many);
    door::register("picodata.crud.upsert_object_many", many::upsert_object_many);
    door::register("picodata.crud.select", select::select);
    door::register("picodata.crud.count", select::count);
    door::register("picodata.crud.min", select::min);
    door::register("picodata.crud.max", select::max);
    door::register("picodata.crud.len", select::len);
    door::register("picodata.crud.truncate", call::truncate);
    door::register("picodata.call", call::call);
    door::register("picodata.bucket_id", call::bucket_id);
}

/// Opens the doors for other instances.
pub fn open_for_peers() {
    door::register(storage::batch::DOOR, storage::batch::serve);
    door::register(storage::select::DOOR, storage::select::serve);
    door::register(storage::procedure::DOOR, storage::procedure::serve);
}

/// The table that the first argument names, in the present catalog.
///
/// Errors: `Argument`, `NoSuchTable`.
fn table_of(args: &mut Args<'_>) -> Result<Rc<TableRoute>> {
    let name = args.text("the name of a table")?;
    let snapshot: Rc<Snapshot> = router::get()?.snapshot();
    snapshot.table(name).map(Rc::clone)
}

/// What the answer is to look like.
struct Shape {
    projection: Option<Projection>,
    noreturn: bool,
}

/// The deadline and the shape of the answer that the options ask for.
fn read_options(options: &Options<'_>, route: &TableRoute) -> Result<(Deadline, Shape)> {
    let projection = options.projection(&route.layout)?;
    Ok((Deadline::after_ms(options.timeout_ms()), Shape { projection, noreturn: options.noreturn }))
}
