//! The greeting: 128 bytes that a server sends first, two lines of text with its version and a salt.

use crate::scramble::{SCRAMBLE_BYTES, Scramble};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::{Code, Error, Result};

pub const GREETING_BYTES: usize = 128;
const LINE_BYTES: usize = GREETING_BYTES / 2;
/// The salt that is sent; only the first 20 bytes count.
const SALT_BYTES: usize = 32;
/// Connectors look for this word and for a version they know.
const BANNER: &str = "Tarantool 2.6.0 (Binary) 00000000-0000-0000-0000-000000000000";

/// The greeting of a server whose salt is `random`.
pub fn write(random: &[u8; SALT_BYTES]) -> [u8; GREETING_BYTES] {
    let mut greeting = [b' '; GREETING_BYTES];
    greeting[..BANNER.len()].copy_from_slice(BANNER.as_bytes());
    let salt = STANDARD.encode(random);
    greeting[LINE_BYTES..LINE_BYTES + salt.len()].copy_from_slice(salt.as_bytes());
    greeting[LINE_BYTES - 1] = b'\n';
    greeting[GREETING_BYTES - 1] = b'\n';
    greeting
}

/// The part of a salt that scrambles use.
pub fn effective_salt(random: &[u8; SALT_BYTES]) -> Scramble {
    let mut salt = [0; SCRAMBLE_BYTES];
    salt.copy_from_slice(&random[..SCRAMBLE_BYTES]);
    salt
}

/// The salt of a server's greeting.
///
/// Errors: `Unreachable` when it is not an IPROTO server.
pub fn read(greeting: &[u8; GREETING_BYTES]) -> Result<Scramble> {
    let foreign = || Error::new(Code::Unreachable, "what answers there does not speak IPROTO");
    let (banner, salt) = greeting.split_at(LINE_BYTES);
    if !banner.starts_with(b"Tarantool ") {
        return Err(foreign());
    }
    let salt = STANDARD.decode(salt.trim_ascii()).map_err(|_| foreign())?;
    salt.first_chunk().copied().ok_or_else(foreign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_greeting_is_understood() {
        let random = std::array::from_fn(|i| i as u8 * 3);
        assert_eq!(read(&write(&random)).unwrap(), effective_salt(&random));
    }

    #[test]
    fn another_server_is_told_apart() {
        let mut http = [b' '; GREETING_BYTES];
        http[..8].copy_from_slice(b"HTTP/1.1");
        assert_eq!(read(&http).unwrap_err().code, Code::Unreachable);
        let mut cut = write(&[1; 32]);
        cut[LINE_BYTES..].fill(b' ');
        assert_eq!(read(&cut).unwrap_err().code, Code::Unreachable);
    }
}
