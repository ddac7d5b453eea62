//! Changes of the cluster that an operator asks for: `picodata.expel`, `picodata.set_weight`, `picodata.set_setting`.

use crate::host::{Call, Deadline};
use crate::node::{self, TIMEOUT_DEFAULT};
use catalog::Op;
use model::msgpack::{Reader, write_uint};
use model::{Code, Error, Result};

/// `picodata.expel(name)`: answers the catalog version once the cluster has agreed to let the instance go.
pub fn serve_expel(call: &mut Call<'_>) -> Result<()> {
    let mut reader = arguments(call, 1, "picodata.expel takes the name of an instance")?;
    let instance = reader.str()?.into();
    change(call, Op::Expel { instance })
}

/// `picodata.set_weight(replicaset, weight)`.
pub fn serve_set_weight(call: &mut Call<'_>) -> Result<()> {
    let mut reader = arguments(call, 2, "picodata.set_weight takes the name of a replicaset and a weight")?;
    let replicaset = reader.str()?.into();
    let weight = reader.uint()?;
    let weight =
        u32::try_from(weight).map_err(|_| Error::new(Code::Argument, format!("a weight of {weight} is too large")))?;
    change(call, Op::SetWeight { replicaset, weight })
}

/// `picodata.set_setting(name, value)`; nil resets it to its default.
pub fn serve_set_setting(call: &mut Call<'_>) -> Result<()> {
    let mut reader = arguments(call, 2, "picodata.set_setting takes the name of a setting and a value")?;
    let name = reader.str()?.to_owned();
    let value = reader.value()?;
    change(call, Op::PutSetting { name, value })
}

fn arguments<'a>(call: &'a Call<'_>, count: usize, usage: &str) -> Result<Reader<'a>> {
    let mut reader = Reader::new(call.args());
    if reader.array_len()? != count {
        return Err(Error::new(Code::Argument, usage));
    }
    Ok(reader)
}

fn change(call: &mut Call<'_>, op: Op) -> Result<()> {
    let answer = node::get()?.propose(op, Deadline::after(TIMEOUT_DEFAULT))?;
    let mut reply = Vec::new();
    write_uint(&mut reply, answer.version);
    call.reply(&reply)
}
