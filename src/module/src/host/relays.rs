//! How far this instance's own rows are: written here, and acknowledged by the members that follow it.
//!
//! The host tells that only through Lua, in tens of microseconds. This room calls the host's functions for a member's
//! relay and reads its vector clock, at places that `enable` compares with what Lua says, by reads that can not fault.
//! Until then, and where they differ, it answers nothing and its callers ask Lua.

use super::ffi as own;
use super::peek::{Memory, Trusted, Untrusted};
use std::cell::Cell;
use std::cmp::Ordering;

/// Places in the host's structures, in bytes: the relay in a member, and in a vector clock the set of numbers that it
/// has and their positions.
mod place {
    pub const RELAY: usize = 0x30;
    pub const NUMBERS: usize = 0x00;
    pub const POSITIONS: usize = 0x10;
}

/// Numbers of members are below it.
const MEMBERS_MAX: u32 = 32;
const RELAY_FOLLOWS: i32 = 1;

thread_local! {
    static IS_VERIFIED: Cell<bool> = const { Cell::new(false) };
}

/// One component of a vector clock.
///
/// # Safety
/// As `Memory::read`, for a vector clock.
unsafe fn component<M: Memory>(memory: &M, clock: usize, id: u32) -> Option<u64> {
    // SAFETY: by the caller's promise.
    unsafe {
        let numbers: u32 = memory.read(clock + place::NUMBERS)?;
        match numbers & (1 << id) {
            0 => Some(0),
            _ => memory.read(clock + place::POSITIONS + id as usize * size_of::<u64>()),
        }
    }
}

/// Compares this instance's clock with what Lua says, and looks for the relay of a member. Needs `box.cfg`. Answers
/// whether positions are read from now on.
pub fn enable() -> bool {
    let is_verified = cfg!(target_pointer_width = "64") && verify().is_some();
    IS_VERIFIED.set(is_verified);
    is_verified
}

fn verify() -> Option<()> {
    let code = "local id = ... return box.info.vclock[id] or 0";
    let clock = tlua::LuaFunction::load(tarantool::lua_state(), code).ok()?;
    // SAFETY: variables and functions of the host; reads that can not fault.
    unsafe {
        let me = own::instance_id;
        for id in 0..MEMBERS_MAX {
            let expected: u64 = clock.call_with_args(id).ok()?;
            if component(&Untrusted, own::box_vclock as usize, id)? != expected {
                return None;
            }
        }
        let member = own::replica_by_id(me);
        if me >= MEMBERS_MAX || member.is_null() {
            return None;
        }
        // The instance has a relay to itself, which never runs; all of it up to its clock must be there.
        let relay: usize = Untrusted.read(member as usize + place::RELAY)?;
        let clock = own::relay_vclock(relay as *const _) as usize;
        let _: u32 = Untrusted.read(relay)?;
        let _: u64 = Untrusted.read(clock + place::POSITIONS + MEMBERS_MAX as usize * size_of::<u64>())?;
        (own::relay_get_state(relay as *const _) != RELAY_FOLLOWS).then_some(())
    }
}

/// Whether the member with this number has rows that this instance has not: then it is no follower of it, whatever it says.
/// Also true for a moment when it was faster than this thread in learning of its rows. None where that can not be read.
pub fn is_beyond(id: u32) -> Option<bool> {
    compares(id, false, |_, theirs| theirs == Ordering::Greater)
}

/// Whether the member with this number lacks rows of others than this instance, which it has acknowledged nothing of. None
/// where that can not be read.
pub fn lacks_older_rows(id: u32) -> Option<bool> {
    // SAFETY: a number that the host sets before it runs anything of ours.
    let me = unsafe { own::instance_id };
    compares(id, true, |number, theirs| number != me && theirs == Ordering::Less)
}

/// Whether the member's clock has a number that compares so with the same one of this instance's clock; `absent` for who is no
/// member. None where the clocks can not be read.
fn compares(id: u32, absent: bool, is_so: impl Fn(u32, Ordering) -> bool) -> Option<bool> {
    if !IS_VERIFIED.get() {
        return None;
    }
    // SAFETY: as in `acknowledged`.
    unsafe {
        let member = if id < MEMBERS_MAX { own::replica_by_id(id) } else { std::ptr::null() };
        if member.is_null() {
            return Some(absent);
        }
        let relay = Trusted.read::<usize>(member as usize + place::RELAY).filter(|relay| *relay != 0)?;
        let (theirs, mine) = (own::relay_vclock(relay as *const _) as usize, own::box_vclock as usize);
        let compared = |number| component(&Trusted, theirs, number).cmp(&component(&Trusted, mine, number));
        Some((1..MEMBERS_MAX).any(|number| is_so(number, compared(number))))
    }
}

/// How many rows this instance has written of its own; None where that can not be read.
pub fn written() -> Option<u64> {
    // SAFETY: the places were verified; the clock lives as long as the process.
    unsafe { IS_VERIFIED.get().then(|| component(&Trusted, own::box_vclock as usize, own::instance_id)).flatten() }
}

/// How many of them the member with this number has in its own log; 0 while it does not follow this instance.
pub fn acknowledged(id: u32) -> u64 {
    if !IS_VERIFIED.get() || id >= MEMBERS_MAX {
        return 0;
    }
    // SAFETY: as above; a member that the host answers is alive, and so is its relay.
    unsafe {
        let member = own::replica_by_id(id);
        if member.is_null() {
            return 0;
        }
        match Trusted.read::<usize>(member as usize + place::RELAY) {
            Some(relay) if relay != 0 && own::relay_get_state(relay as *const _) == RELAY_FOLLOWS => {
                let clock = own::relay_vclock(relay as *const _) as usize;
                component(&Trusted, clock, own::instance_id).unwrap_or(0)
            }
            _ => 0,
        }
    }
}
