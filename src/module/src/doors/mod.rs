//! The doors that belong to no other room: Raft, joining, discovery, status, and the changes of the cluster that users
//! ask for. Each file opens its own.

pub mod admin;
pub mod awake;
pub mod join;
pub mod raft;
pub mod recover;
pub mod settings;
pub mod start;
pub mod status;
pub mod table;
pub mod tables;

use crate::host::door;
use crate::{copying, crud, facts, governing, lineage, moving, propose, query, schema_change};

/// Opens all doors of these rooms. They answer `NotReady` until the instance is a member.
pub fn open() {
    door::register("picodata.start", start::serve);
    door::register("picodata.status", status::serve);
    door::register("picodata.expel", admin::serve_expel);
    door::register("picodata.recover", recover::serve);
    door::register(recover::STANDING_DOOR, recover::serve_standing);
    door::register(recover::LOG_DOOR, recover::serve_log);
    door::register("picodata.switchover", admin::serve_switchover);
    door::register("picodata.set_weight", admin::serve_set_weight);
    door::register("picodata.set_setting", admin::serve_set_setting);
    door::register("picodata.settings", settings::serve);
    door::register("picodata.options", start::serve_options);
    door::register("picodata.create_table", tables::serve_create_table);
    door::register("picodata.drop_table", tables::serve_drop_table);
    door::register("picodata.create_index", tables::serve_create_index);
    crud::open();
    crud::open_for_peers();
    query::open();
    door::register(moving::PULL_DOOR, moving::serve_pull);
    door::register(moving::RELEASE_DOOR, moving::serve_release);
    door::register(raft::DOOR, raft::serve);
    door::register(schema_change::CATCH_UP_DOOR, schema_change::serve_catch_up);
    door::register(propose::DOOR, propose::serve);
    door::register(crate::start::DISCOVER_DOOR, join::serve_discover);
    door::register(crate::start::JOIN_DOOR, join::serve_join);
    door::register(awake::AWAKE_DOOR, awake::serve);
    door::register(copying::BEGIN_DOOR, copying::serve_begin);
    door::register(copying::READ_DOOR, copying::serve_read);
    door::register(table::DOOR, table::serve);
    door::register(facts::DOOR, facts::serve);
    door::register(lineage::FOLLOW_DOOR, lineage::serve_follow);
    door::register(lineage::HISTORY_DOOR, lineage::serve_history);
    door::register(lineage::FENCE_DOOR, lineage::serve_fence);
    door::register(lineage::ROOM_DOOR, lineage::serve_make_room);
    door::register(governing::SCHEMA_DOOR, governing::serve_apply_schema);
}
