//! A load generator: one pipelined IPROTO connection that keeps a number of requests in flight.
//!
//! In come an address, an operation and how long to go on; out goes one line of JSON with the rate and the latencies. It
//! measures from the outside only: who starts the instances and reads their CPU time is test/cluster/bench.py.
//!
//!     picodata-bench load ADDRESS OPERATION in_flight=32 seconds=5 keys=100000 [table=kv] [space=512] [first=1]
//!     picodata-bench ping ADDRESS          until standard input ends: the longest wait of a ping sent each millisecond

mod iproto;
mod load;
mod operation;
mod ping;

use model::{Code, Error, Result};
use std::collections::BTreeMap;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(json) => println!("{json}"),
        Err(error) => {
            eprintln!("picodata-bench: {error}");
            std::process::exit(1);
        }
    }
}

fn run(words: &[String]) -> Result<String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["load", address, operation, settings @ ..] => {
            let settings = Settings::read(settings)?;
            load::run(address, operation::Operation::new(operation, &settings)?, &settings)
        }
        ["ping", address] => ping::run(address),
        _ => Err(wrong("load ADDRESS OPERATION name=value..., or ping ADDRESS")),
    }
}

/// What the words `name=value` say.
pub struct Settings(BTreeMap<String, String>);

impl Settings {
    fn read(words: &[&str]) -> Result<Self> {
        let pair = |word: &&str| {
            let (name, value) = word.split_once('=').ok_or_else(|| wrong("a setting is name=value"))?;
            Ok((name.to_owned(), value.to_owned()))
        };
        words.iter().map(pair).collect::<Result<_>>().map(Self)
    }

    pub fn text(&self, name: &str, default: &str) -> String {
        self.0.get(name).cloned().unwrap_or_else(|| default.to_owned())
    }

    pub fn number(&self, name: &str, default: u64) -> Result<u64> {
        match self.0.get(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| wrong(&format!("{name} is a number, not {text}"))),
        }
    }
}

/// The error for words that make no sense.
pub fn wrong(message: &str) -> Error {
    Error::new(Code::Argument, message)
}

/// The error for what went wrong on the network.
pub fn broken(error: std::io::Error) -> Error {
    Error::new(Code::Unreachable, error.to_string())
}
