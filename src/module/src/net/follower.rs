//! The connections over which followers get their rows. The host sends each row by itself, in a packet of its own that wakes the
//! follower. Without TCP_NODELAY the kernel keeps rows back while an earlier one is not acknowledged, and sends them together:
//! under load less work on both sides and a shorter way for all of them, and no wait where one row is on its way at a time. A
//! follower answers as soon as its log has a row, so nothing waits for a delayed acknowledgement.
//!
//! Where the way is long a row would wait for most of a round trip, so it is done between near neighbours only.

use crate::host::lua as host_lua;
use std::ffi::c_int;
use tarantool::ffi::lua::lua_State;

/// A longer round trip is worth more than what is saved.
const NEAR_US: u32 = 500;

/// `core.follower_connected(fd)`, called by the host's trigger when somebody is known as a follower.
///
/// # Safety
/// Called by Lua only, on the tx thread.
pub unsafe extern "C-unwind" fn follower_connected(l: *mut lua_State) -> c_int {
    // SAFETY: as above.
    let Some(fd) = (unsafe { host_lua::uint_arg(l, 1) }).and_then(|fd| c_int::try_from(fd).ok()) else { return 0 };
    if round_trip_us(fd).is_some_and(|us| us < NEAR_US) {
        let off: c_int = 0;
        // SAFETY: the pointer and size describe `off`. It may fail on a connection that has ended.
        unsafe {
            libc::setsockopt(
                fd,
                libc::IPPROTO_TCP,
                libc::TCP_NODELAY,
                (&raw const off).cast(),
                size_of::<c_int>() as u32,
            )
        };
    }
    0
}

/// How long the kernel found the way there and back; None for what is no TCP connection.
fn round_trip_us(fd: c_int) -> Option<u32> {
    // SAFETY: numbers only, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut size = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the pointer and size describe `info`.
    let result =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut size) };
    (result == 0).then_some(info.tcpi_rtt)
}
