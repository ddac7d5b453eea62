//! `picodata.settings()`: every setting of the cluster, with what it means.

use crate::host::Call;
use crate::node;
use catalog::Setting;
use model::Result;
use model::msgpack::{write_array_len, write_map_len, write_str};

pub fn serve(call: &mut Call<'_>) -> Result<()> {
    let state = node::get()?.state();
    let mut out = Vec::with_capacity(4096);
    write_array_len(&mut out, Setting::ALL.len());
    for setting in Setting::ALL {
        write_map_len(&mut out, 4);
        write_str(&mut out, "name");
        write_str(&mut out, setting.name());
        write_str(&mut out, "value");
        state.settings.get(*setting).write_stored(&mut out);
        write_str(&mut out, "default");
        setting.default().write_stored(&mut out);
        write_str(&mut out, "meaning");
        write_str(&mut out, setting.meaning().trim());
    }
    call.reply(&out)
}
