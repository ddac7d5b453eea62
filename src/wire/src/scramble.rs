//! The password handshake `chap-sha1`: the server sends a salt, the client proves that it knows the password's hash.

use sha1::{Digest, Sha1};

/// The method's name on the wire.
pub const METHOD: &str = "chap-sha1";
pub const SCRAMBLE_BYTES: usize = 20;

/// A salt, as far as the method uses it, or a scramble.
pub type Scramble = [u8; SCRAMBLE_BYTES];

fn sha1(parts: &[&[u8]]) -> Scramble {
    let mut hasher = Sha1::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

/// What a client that knows `password` answers to `salt`:
/// `sha1(password) xor sha1(salt, sha1(sha1(password)))`.
pub fn scramble(password: &str, salt: &Scramble) -> Scramble {
    let once = sha1(&[password.as_bytes()]);
    let mut answer = sha1(&[salt, &sha1(&[&once])]);
    answer.iter_mut().zip(once).for_each(|(byte, other)| *byte ^= other);
    answer
}

/// Whether `answer` proves knowledge of `password`. Takes the same time wherever the two differ.
pub fn verify(password: &str, salt: &Scramble, answer: &[u8]) -> bool {
    let expected = scramble(password, salt);
    if answer.len() != expected.len() {
        return false;
    }
    let difference = expected.iter().zip(answer).fold(0, |difference, (a, b)| difference | (a ^ b));
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_verifies() {
        let salt = [7; SCRAMBLE_BYTES];
        let answer = scramble("secret", &salt);
        assert!(verify("secret", &salt, &answer));
        assert!(!verify("Secret", &salt, &answer));
        assert!(!verify("secret", &[8; SCRAMBLE_BYTES], &answer));
        assert!(!verify("secret", &salt, &answer[..19]));
        assert!(!verify("secret", &salt, &[]));
    }
}
