//! TCP without blocking: every wait parks the running fiber, so the event loop goes on. Works before `box.cfg`.

use crate::host::clock::Deadline;
use crate::host::fiber::is_cancelled;
use crate::host::{error as host_error, fiber};
use model::{Code, Error, Result};
use std::cell::Cell;
use std::ffi::{CString, c_int};
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use tarantool::ffi::tarantool::{CoIOFlags, coio_getaddrinfo, coio_wait};

/// The kernel gives a connection up when sent bytes stay unacknowledged this long: the other machine is gone.
const UNACKNOWLEDGED_MS: c_int = 5_000;
/// Waits are cut into pieces of this length, after which closing and cancelling are looked at again.
const WAIT_S: f64 = 60.0;

/// How a wait for the socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Ready, or woken for another reason: try.
    Maybe,
    Late,
}

/// A connected socket.
pub struct Socket {
    stream: TcpStream,
    is_shut: Cell<bool>,
}

fn unreachable(address: &str, cause: impl std::fmt::Display) -> Error {
    Error::new(Code::Unreachable, format!("{address} can not be reached: {cause}"))
}

impl Socket {
    /// Connects to `host:port`.
    ///
    /// Errors: `Unreachable`.
    pub fn connect(address: &str, deadline: Deadline) -> Result<Socket> {
        let mut cause = unreachable(address, "its name has no address");
        for candidate in resolve(address, deadline)? {
            match connect_one(candidate, deadline) {
                Ok(socket) => return Ok(socket),
                Err(error) => cause = unreachable(address, error),
            }
        }
        Err(cause)
    }

    /// Whether a machine answers that nobody listens at the address: the process that did is gone. Yields.
    pub fn is_refused(address: &str, deadline: Deadline) -> bool {
        let refused = |candidate| {
            connect_one(candidate, deadline).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        };
        resolve(address, deadline).is_ok_and(|candidates| !candidates.is_empty() && candidates.into_iter().all(refused))
    }

    fn new(stream: TcpStream) -> std::io::Result<Socket> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        set_option(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)?;
        set_option(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
        Ok(Socket { stream, is_shut: Cell::new(false) })
    }

    /// Reads what is there; None when nothing is, 0 at the end of the stream.
    pub fn read(&self, room: &mut [u8]) -> std::io::Result<Option<usize>> {
        none_if_would_block((&self.stream).read(room))
    }

    /// Writes what the kernel takes; None when it takes nothing now.
    pub fn write(&self, slices: &[IoSlice<'_>]) -> std::io::Result<Option<usize>> {
        none_if_would_block((&self.stream).write_vectored(slices))
    }

    pub fn wait_readable(&self, deadline: Deadline) -> Readiness {
        wait(self.stream.as_raw_fd(), CoIOFlags::READ, deadline)
    }

    pub fn wait_writable(&self, deadline: Deadline) -> Readiness {
        wait(self.stream.as_raw_fd(), CoIOFlags::WRITE, deadline)
    }

    /// Ends both directions: fibers that wait for the socket wake up and see it.
    pub fn shut_down(&self) {
        if !self.is_shut.replace(true) {
            // A connection that the other side has closed already has nothing to shut down.
            let _ = self.stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Reads until `done` finds what it wants in the buffer. For handshakes and the small server.
    pub fn read_until<T>(
        &self,
        inbound: &mut wire::inbound::Inbound,
        deadline: Deadline,
        mut done: impl FnMut(&mut wire::inbound::Inbound) -> Result<Option<T>>,
    ) -> Result<T> {
        let broken =
            |cause: &dyn std::fmt::Display| Error::new(Code::Unreachable, format!("the connection broke: {cause}"));
        loop {
            if let Some(found) = done(inbound)? {
                return Ok(found);
            }
            match self.read(inbound.room()) {
                Ok(Some(0)) => return Err(broken(&"the other side closed it")),
                Ok(Some(count)) => inbound.filled(count),
                Ok(None) if is_cancelled() => return Err(Error::new(Code::Cancelled, "cancelled")),
                Ok(None) if self.wait_readable(deadline) == Readiness::Late => {
                    return Err(Error::new(Code::Timeout, "the other side does not answer in time"));
                }
                Ok(None) => {}
                Err(error) => return Err(broken(&error)),
            }
        }
    }

    /// Writes all of `bytes`. For handshakes and the small server.
    pub fn write_all(&self, mut bytes: &[u8], deadline: Deadline) -> Result<()> {
        while !bytes.is_empty() {
            match self.write(&[IoSlice::new(bytes)]) {
                Ok(Some(count)) => bytes = &bytes[count..],
                Ok(None) if self.wait_writable(deadline) == Readiness::Late => {
                    return Err(Error::new(Code::Timeout, "the other side does not read in time"));
                }
                Ok(None) => {}
                Err(error) => return Err(Error::new(Code::Unreachable, format!("the connection broke: {error}"))),
            }
        }
        Ok(())
    }
}

/// A socket that accepts connections. Closed when dropped.
pub struct Listener {
    listener: TcpListener,
}

impl Listener {
    /// Binds `host:port` so that the same address can be bound again at once after closing.
    ///
    /// Errors: `Config` when the address can not be bound.
    pub fn bind(address: &str, deadline: Deadline) -> Result<Listener> {
        const NOT_OURS: &str =
            "listen takes an address of this machine; one by which others reach it goes into advertise";
        const IN_USE: &str = "stop what listens there, or give this instance another listen";
        let refused =
            |cause: &dyn std::fmt::Display| Error::new(Code::Config, format!("can not listen on {address}: {cause}"));
        let candidates = resolve(address, deadline).map_err(|error| refused(&error.message).with_hint(NOT_OURS))?;
        // The standard library binds with SO_REUSEADDR; the addresses are resolved, so it does not block.
        let listener = TcpListener::bind(&candidates[..]).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        listener.map(|listener| Listener { listener }).map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => refused(&error).with_hint(IN_USE),
            ErrorKind::AddrNotAvailable => refused(&error).with_hint(NOT_OURS),
            _ => refused(&error),
        })
    }

    /// The next connection; None when there is none now.
    pub fn accept(&self) -> std::io::Result<Option<Socket>> {
        match none_if_would_block(self.listener.accept())? {
            Some((stream, _)) => Socket::new(stream).map(Some),
            None => Ok(None),
        }
    }

    pub fn wait(&self) -> Readiness {
        wait(self.listener.as_raw_fd(), CoIOFlags::READ, Deadline::NEVER)
    }
}

fn none_if_would_block<T>(result: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

fn wait(fd: RawFd, events: CoIOFlags, deadline: Deadline) -> Readiness {
    let left_s = deadline.left_s();
    if left_s == 0.0 {
        return Readiness::Late;
    }
    // SAFETY: the descriptor is open, because the caller borrows its owner; called on a fiber of the tx thread.
    unsafe { coio_wait(fd, events.bits(), left_s.min(WAIT_S)) };
    Readiness::Maybe
}

fn set_option(fd: RawFd, level: c_int, option: c_int, value: c_int) -> std::io::Result<()> {
    let size = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the pointer and size describe `value`.
    match unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), size) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// The addresses of `host:port`: at once when it is numeric, else by the host's resolver threads.
fn resolve(address: &str, deadline: Deadline) -> Result<Vec<SocketAddr>> {
    if let Ok(numeric) = address.parse::<SocketAddr>() {
        return Ok(vec![numeric]);
    }
    let malformed = || Error::new(Code::Config, format!("\"{address}\" is not an address of the form host:port"));
    let (name, port) = address.rsplit_once(':').ok_or_else(malformed)?;
    let port: u16 = port.parse().map_err(|_| malformed())?;
    let name = CString::new(name).map_err(|_| malformed())?;
    let mut list: *mut libc::addrinfo = std::ptr::null_mut();
    // SAFETY: the strings outlive the call, which yields; the list is freed after it was read.
    unsafe {
        let mut hints: libc::addrinfo = std::mem::zeroed();
        hints.ai_socktype = libc::SOCK_STREAM;
        let timeout_s = deadline.left_s().min(WAIT_S);
        if coio_getaddrinfo(name.as_ptr(), std::ptr::null(), &hints, &mut list, timeout_s) != 0 {
            return Err(unreachable(address, host_error::last().message));
        }
        let addresses = read_addresses(list, port);
        libc::freeaddrinfo(list);
        Ok(addresses)
    }
}

/// # Safety
/// `entry` is a list that getaddrinfo answered.
unsafe fn read_addresses(mut entry: *const libc::addrinfo, port: u16) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    // SAFETY: entries are linked until null, and the family says which struct the address is.
    unsafe {
        while let Some(info) = entry.as_ref() {
            match info.ai_family {
                libc::AF_INET => {
                    let address = &*info.ai_addr.cast::<libc::sockaddr_in>();
                    addresses.push(SocketAddr::from((address.sin_addr.s_addr.to_ne_bytes(), port)));
                }
                libc::AF_INET6 => {
                    let address = &*info.ai_addr.cast::<libc::sockaddr_in6>();
                    addresses.push(SocketAddr::from((address.sin6_addr.s6_addr, port)));
                }
                _ => {}
            }
            entry = info.ai_next;
        }
    }
    addresses
}

fn connect_one(address: SocketAddr, deadline: Deadline) -> std::io::Result<Socket> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: a new descriptor that nobody else owns.
    let stream = unsafe {
        let fd = libc::socket(family, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        TcpStream::from_raw_fd(fd)
    };
    start_connect(stream.as_raw_fd(), address)?;
    let socket = Socket::new(stream)?;
    loop {
        if socket.wait_writable(deadline) == Readiness::Late {
            return Err(std::io::Error::new(ErrorKind::TimedOut, "no answer in time"));
        }
        if let Some(error) = socket.stream.take_error()? {
            return Err(error);
        }
        // A spurious wake-up leaves the socket without a peer.
        match socket.stream.peer_addr() {
            Ok(_) => return Ok(socket),
            Err(_) if is_cancelled() => return Err(ErrorKind::Interrupted.into()),
            Err(_) => fiber::sleep_zero(),
        }
    }
}

fn start_connect(fd: RawFd, address: SocketAddr) -> std::io::Result<()> {
    // SAFETY: each arm passes a filled struct together with its size.
    let status = unsafe {
        match address {
            SocketAddr::V4(v4) => {
                let mut raw: libc::sockaddr_in = std::mem::zeroed();
                raw.sin_family = libc::AF_INET as libc::sa_family_t;
                raw.sin_port = v4.port().to_be();
                raw.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
                libc::connect(fd, (&raw const raw).cast(), size_of_val(&raw) as libc::socklen_t)
            }
            SocketAddr::V6(v6) => {
                let mut raw: libc::sockaddr_in6 = std::mem::zeroed();
                raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                raw.sin6_port = v6.port().to_be();
                raw.sin6_addr.s6_addr = v6.ip().octets();
                raw.sin6_scope_id = v6.scope_id();
                libc::connect(fd, (&raw const raw).cast(), size_of_val(&raw) as libc::socklen_t)
            }
        }
    };
    let error = std::io::Error::last_os_error();
    if status == 0 || error.raw_os_error() == Some(libc::EINPROGRESS) { Ok(()) } else { Err(error) }
}
