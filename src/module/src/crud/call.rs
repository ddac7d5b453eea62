//! `picodata.call`, `picodata.bucket_id` and `picodata.crud.truncate`.

use super::{read_options, table_of};
use crate::host::{Call, Deadline};
use crate::router;
use crate::storage::procedure;
use crud::request::Args;
use model::msgpack::{self, Reader};
use model::{Code, Error, Result, SchemaChange};
use std::cell::Cell;

/// Carries out a schema change; returns when every online instance has it.
pub type SchemaChanger = fn(change: SchemaChange, deadline: Deadline) -> Result<()>;

thread_local! {
    static SCHEMA_CHANGER: Cell<Option<SchemaChanger>> = const { Cell::new(None) };
}

/// Says how the schema is changed, which `truncate` is.
pub fn set_schema_changer(changer: SchemaChanger) {
    SCHEMA_CHANGER.set(Some(changer));
}

/// `call(table, key, 'read'|'write', function, args[, opts])`: runs a Lua function on the master that owns the key and
/// answers what it returned first.
pub fn call(call: &mut Call<'_>) -> Result<()> {
    let bytes = call.copy();
    let mut args = Args::new(call.name(), &bytes)?;
    let route = table_of(&mut args)?;
    let key = args.required("the key")?;
    let is_write = match args.text("the mode")? {
        "read" => false,
        "write" => true,
        other => {
            let message = format!("the mode of picodata.call is 'read' or 'write', not '{other}'");
            return Err(Error::new(Code::Argument, message));
        }
    };
    let function = args.text("the name of a function")?;
    let arguments = args.optional()?.unwrap_or(&[0x90]);
    let (deadline, _) = read_options(&args.options()?, &route)?;
    if route.tier.is_none() {
        let message = format!("table \"{}\" is global: a key of it lives everywhere", route.layout.table.name);
        return Err(Error::new(Code::Argument, message));
    }
    let mut stored = Vec::new();
    let bucket = route.writer().key(&mut Reader::new(key), &mut stored)?;
    let request = procedure::write_args(&stored, is_write, function, arguments);
    let reply = router::get()?.run_procedure(route.layout.table.id, bucket, is_write, &request, deadline)?;
    call.reply(&reply)
}

/// `bucket_id(table, key)`
pub fn bucket_id(call: &mut Call<'_>) -> Result<()> {
    let mut args = Args::new(call.name(), call.args())?;
    let route = table_of(&mut args)?;
    let key = args.required("the key")?;
    args.options()?;
    if route.tier.is_none() {
        let message = format!("table \"{}\" is global: it has no buckets", route.layout.table.name);
        return Err(Error::new(Code::Argument, message));
    }
    let bucket = route.writer().key(&mut Reader::new(key), &mut Vec::new())?;
    let mut out = Vec::new();
    msgpack::write_uint(&mut out, bucket.into());
    call.reply(&out)
}

/// `truncate(table[, opts])`: deletes all rows, as a schema change.
pub fn truncate(call: &mut Call<'_>) -> Result<()> {
    let bytes = call.copy();
    let mut args = Args::new(call.name(), &bytes)?;
    let route = table_of(&mut args)?;
    let (deadline, _) = read_options(&args.options()?, &route)?;
    let changer = SCHEMA_CHANGER
        .get()
        .ok_or_else(|| Error::new(Code::NotReady, "this instance has not joined its cluster yet"))?;
    changer(SchemaChange::Truncate { table: route.layout.table.name.clone() }, deadline)?;
    call.reply(&[0xc3])
}
