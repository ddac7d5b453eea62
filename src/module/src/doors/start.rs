//! `picodata.start(options)`, from Lua only, and `picodata.options()`: what it takes.

use crate::host::Call;
use boot::config::KEYS;
use model::msgpack::{Reader, write_array_len, write_map_len, write_str};
use model::{Code, Error, Result};

pub fn serve(call: &mut Call<'_>) -> Result<()> {
    let args = call.copy();
    let mut reader = Reader::new(&args);
    if reader.array_len()? != 1 {
        return Err(Error::new(Code::Config, "picodata.start takes one table of options"));
    }
    crate::start::start(reader.raw()?)
}

pub fn serve_options(call: &mut Call<'_>) -> Result<()> {
    let mut out = Vec::with_capacity(2048);
    write_array_len(&mut out, KEYS.len());
    for key in KEYS {
        write_map_len(&mut out, 3);
        for (field, value) in [("name", key.name), ("default", key.default), ("takes", key.takes)] {
            write_str(&mut out, field);
            write_str(&mut out, value);
        }
    }
    call.reply(&out)
}
