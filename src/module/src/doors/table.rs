//! `picodata.peer.table_exists(id)`: whether the catalog of the instance asked, the Raft leader, has the table.

use crate::host::{Call, Deadline};
use crate::net::CallError;
use crate::node::{self, Node};
use model::msgpack::{Reader, write_array_len, write_bool, write_uint};
use model::{RaftId, Result, TableId};

pub const DOOR: &str = "picodata.peer.table_exists";

const TIMEOUT_MS: u64 = 2_000;

pub fn exists_at(node: &Node, leader: RaftId, table: TableId) -> Result<bool> {
    let mut args = Vec::new();
    write_array_len(&mut args, 1);
    write_uint(&mut args, table.into());
    let address = node.address_of(leader)?;
    let answer = node.call(&address, DOOR, &args, Deadline::after_ms(TIMEOUT_MS)).map_err(CallError::for_read)?;
    Reader::new(&answer).bool()
}

pub fn serve(call: &mut Call<'_>) -> Result<()> {
    let node = node::get()?;
    let mut reader = Reader::new(call.args());
    reader.array_len()?;
    let id = reader.uint()?;
    let state = node.state();
    let exists = TableId::try_from(id).is_ok_and(|id| state.schema.table_by_id(id).is_some());
    let mut reply = Vec::new();
    write_bool(&mut reply, exists);
    call.reply(&reply)
}
