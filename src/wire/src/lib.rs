//! The wire: IPROTO between instances as plain code, without sockets, clock or fibers.
//!
//! `frame` writes requests and takes answers apart, `inbound` and `outbound` are the two buffers of a connection,
//! `greeting` and `scramble` the handshake, `batch` the array of operations that travels as one call, and `slots` what
//! is under way. `module` adds sockets and fibers to them.

pub mod batch;
pub mod frame;
pub mod greeting;
pub mod inbound;
pub mod outbound;
pub mod scramble;
pub mod slots;

/// A request or an answer can not be larger. Both ends keep whole frames in memory.
pub const FRAME_BYTES_MAX: usize = 256 << 20;
