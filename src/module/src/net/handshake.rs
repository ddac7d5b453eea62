//! The beginning of a connection, as its client: greeting, then proof that we know the password.

use super::socket::Socket;
use crate::host::clock::Deadline;
use crate::host::error::from_wire;
use model::{Code, Error, Result};
use wire::frame::{self, Answer};
use wire::greeting;
use wire::inbound::Inbound;
use wire::scramble::scramble;

const SECRETS_DIFFER: &str =
    "all instances of a cluster need the same cluster_secret; or this is none of its instances";

/// Connects to `address` and proves to be `user`. Answers the socket and what was read beyond the handshake.
///
/// Errors: `Unreachable`, `Timeout`, and `AccessDenied` when the password is not the server's.
pub fn connect(address: &str, user: &str, password: &str, deadline: Deadline) -> Result<(Socket, Inbound)> {
    let socket = Socket::connect(address, deadline)?;
    let mut inbound = Inbound::default();
    let name_address = |error: Error| Error { message: format!("{address}: {}", error.message), ..error };
    authenticate(&socket, &mut inbound, user, password, deadline).map_err(name_address)?;
    Ok((socket, inbound))
}

fn authenticate(socket: &Socket, inbound: &mut Inbound, user: &str, password: &str, deadline: Deadline) -> Result<()> {
    const SYNC: u64 = 1;
    let salt = socket.read_until(inbound, deadline, |inbound| match inbound.take() {
        Some(greeting) => greeting::read(&greeting).map(Some),
        None => Ok(None),
    })?;
    let mut request = Vec::with_capacity(64);
    frame::write_auth(&mut request, SYNC, user, &scramble(password, &salt));
    socket.write_all(&request, deadline)?;
    socket.read_until(inbound, deadline, |inbound| {
        let Some(frame) = inbound.frame()? else { return Ok(None) };
        match frame.answer()? {
            Answer::Values(_) if frame.sync == SYNC => Ok(Some(())),
            Answer::Values(_) => Err(Error::new(Code::Unreachable, "the answer is to a question that was not asked")),
            Answer::Error(number, text) => Err(match from_wire(number, text) {
                refused if refused.code == Code::AccessDenied => refused.with_hint(SECRETS_DIFFER),
                other => other,
            }),
        }
    })
}
