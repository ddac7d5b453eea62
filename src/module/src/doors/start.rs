//! `picodata.start(options)`, from Lua only.

use crate::host::Call;
use model::msgpack::Reader;
use model::{Code, Error, Result};

pub fn serve(call: &mut Call<'_>) -> Result<()> {
    let args = call.copy();
    let mut reader = Reader::new(&args);
    if reader.array_len()? != 1 {
        return Err(Error::new(Code::Config, "picodata.start takes one table of options"));
    }
    crate::start::start(reader.raw()?)
}
