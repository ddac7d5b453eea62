//! The connections over which followers get their rows. The host sends each row by itself, in a packet of its own that wakes the
//! follower. Without TCP_NODELAY the kernel keeps rows back while an earlier one is not acknowledged, and sends them together:
//! under load less work on both sides and a shorter way for all of them, and no wait where one row is on its way at a time.
//!
//! The kernel delays acknowledgements by 40 ms unless there is an answer to go with, and the host's applier answers whole
//! transactions only. So a follower has its kernel acknowledge what came in each turn of its loop: else the second row of a
//! transaction would wait for that of the first.
//!
//! Where the way is long a row would wait for most of a round trip, so it is done between near neighbours only.

use crate::host::{clock, lua as host_lua, turn};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeSet;
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
        // It fails on a connection that has ended.
        set(fd, libc::TCP_NODELAY, 0);
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

/// How often it is looked whether the connections are still there: the host tells nobody when it makes another.
const LOOK_S: f64 = 1.0;

thread_local! {
    static FOLLOWING: OnceCell<&'static Following> = const { OnceCell::new() };
}

#[derive(Default)]
struct Following {
    /// The ports of those that are followed.
    ports: RefCell<BTreeSet<u16>>,
    /// Connections that the host has made to them.
    sockets: RefCell<Vec<c_int>>,
    next_look_s: Cell<f64>,
}

/// From now on this instance follows whoever listens at these ports, or nobody.
pub fn follow(ports: BTreeSet<u16>) {
    let following = FOLLOWING.with(|cell| {
        *cell.get_or_init(|| {
            turn::each(acknowledge);
            Box::leak(Box::default())
        })
    });
    following.ports.replace(ports);
    following.next_look_s.set(0.0);
}

/// Runs in each turn of the loop.
fn acknowledge() {
    let Some(following) = FOLLOWING.with(|cell| cell.get().copied()) else { return };
    let ports = following.ports.borrow();
    if ports.is_empty() {
        return;
    }
    let now_s = clock::now_s();
    if now_s >= following.next_look_s.get() {
        following.next_look_s.set(now_s + LOOK_S);
        let mut sockets = following.sockets.borrow_mut();
        sockets.retain(|fd| is_appliers(*fd, &ports));
        // There may be thousands of others.
        if sockets.len() < ports.len() {
            *sockets = descriptors().filter(|fd| is_appliers(*fd, &ports)).collect();
        }
    }
    for fd in following.sockets.borrow().iter() {
        set(*fd, libc::TCP_QUICKACK, 1);
    }
}

/// All descriptors of this process.
fn descriptors() -> impl Iterator<Item = c_int> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Whether it is a connection to one of these ports, and none of our sockets, which have a time of their own after which they
/// give up.
fn is_appliers(fd: c_int, ports: &BTreeSet<u16>) -> bool {
    // SAFETY: numbers only, for which zero is a value.
    let mut peer: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    let mut size = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
    // SAFETY: the pointer and size describe `peer`.
    let is_connected = unsafe { libc::getpeername(fd, (&raw mut peer).cast(), &raw mut size) } == 0;
    // The port is at the same place in addresses of both kinds.
    let is_inet = [libc::AF_INET, libc::AF_INET6].contains(&c_int::from(peer.sin6_family));
    is_connected
        && is_inet
        && ports.contains(&u16::from_be(peer.sin6_port))
        && get(fd, libc::TCP_USER_TIMEOUT) == Some(0)
}

fn get(fd: c_int, option: c_int) -> Option<c_int> {
    let (mut value, mut size) = (0, size_of::<c_int>() as libc::socklen_t);
    // SAFETY: the pointer and size describe `value`.
    let result = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, option, (&raw mut value).cast(), &raw mut size) };
    (result == 0).then_some(value)
}

fn set(fd: c_int, option: c_int, value: c_int) -> bool {
    let size = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the pointer and size describe `value`.
    unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, option, (&raw const value).cast(), size) == 0 }
}
