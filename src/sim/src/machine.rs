//! What is replicated: any deterministic state that applies commands in order.

use consensus::Rng;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A replicated state. Equal commands in equal order must give equal digests, on every instance and after every restart.
pub trait Machine: Clone + Default {
    /// Some command that a client who sees this state might send; `id` is unique in the run.
    fn command(&self, rng: &mut Rng, id: u64) -> Vec<u8>;
    /// Applies the command that is the entry `index` of the log.
    fn apply(&mut self, index: u64, command: &[u8]);
    /// Stands for the whole state.
    fn digest(&self) -> u64;
    fn save(&self) -> Vec<u8>;
    /// The state that `save` wrote. Errors: why it can not be read.
    fn load(bytes: &[u8]) -> Result<Self, String>;
}

/// A list that is only appended to, with a running digest: the smallest state that shows a lost, doubled, swapped or
/// changed command.
#[derive(Clone, Debug, Default)]
pub struct Registers {
    values: Vec<u64>,
    digest: u64,
}

impl Machine for Registers {
    fn command(&self, rng: &mut Rng, id: u64) -> Vec<u8> {
        let mut command = id.to_be_bytes().to_vec();
        let padding = if rng.chance(1, 20) { 4000 } else { rng.range(0, 100) };
        command.resize(8 + padding as usize, 0x55);
        command
    }

    fn apply(&mut self, _index: u64, command: &[u8]) {
        let id = command.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        self.values.push(id);
        self.digest = xxh3_64_with_seed(command, self.digest);
    }

    fn digest(&self) -> u64 {
        self.digest
    }

    fn save(&self) -> Vec<u8> {
        let mut bytes = self.digest.to_be_bytes().to_vec();
        self.values.iter().for_each(|value| bytes.extend(value.to_be_bytes()));
        bytes
    }

    fn load(bytes: &[u8]) -> Result<Self, String> {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut words = words.iter().map(|word| u64::from_be_bytes(*word));
        match (words.next(), rest) {
            (Some(digest), []) => Ok(Self { digest, values: words.collect() }),
            _ => Err(format!("{} bytes are no list", bytes.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_survives_saving_and_its_digest_shows_order() {
        let apply = |commands: &[&[u8]]| {
            let mut machine = Registers::default();
            commands.iter().for_each(|command| machine.apply(1, command));
            machine
        };
        let list = apply(&[b"one", b"two"]);
        assert_eq!(Registers::load(&list.save()).unwrap().digest(), list.digest());
        assert_ne!(apply(&[b"two", b"one"]).digest(), list.digest());
        assert_ne!(apply(&[b"one"]).digest(), list.digest());
        assert!(Registers::load(b"short").is_err());
    }
}
