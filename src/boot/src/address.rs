//! `host:port`, as configured and as instances know one another by.

use model::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::ops::Bound::{Excluded, Unbounded};
use std::str::FromStr;

/// A TCP address. The order is that of its parts and decides which of several candidates bootstraps a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl Address {
    /// Whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Whether it means 'all interfaces', which is no address that others could connect to.
    pub fn is_unspecified(&self) -> bool {
        self.host == "*" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
    }

    /// The others among these, those behind this one first: where only some are told or asked, everybody begins elsewhere.
    pub fn others<'a>(&'a self, members: &'a BTreeSet<Address>) -> impl Iterator<Item = &'a Address> {
        members.range((Excluded(self), Unbounded)).chain(members.range(..self))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.to_string()
    }
}

impl TryFrom<String> for Address {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for Address {
    type Err = Error;

    /// Reads `127.0.0.1:3301`, `db1.example.com:3301`, `[::1]:3301`.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::new(Code::Config, format!("\"{text}\" is not an address: {why}"))
                .with_hint("write it as 127.0.0.1:3301")
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(|| bad("the port is missing"))?;
        let port: u16 = port.parse().map_err(|_| bad("the port is not a number from 1 to 65535"))?;
        if port == 0 {
            return Err(bad("the port is not a number from 1 to 65535"));
        }
        let host = match host.strip_prefix('[') {
            Some(v6) => v6
                .strip_suffix(']')
                .filter(|v6| v6.parse::<IpAddr>().is_ok())
                .ok_or_else(|| bad("the host is no IPv6 address"))?,
            None => host,
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '*');
        if host.is_empty() || host.len() > 253 || !host.chars().all(fits) {
            return Err(bad("the host is missing or has characters that no host name has"));
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_others_begin_behind_oneself() {
        let members: BTreeSet<Address> = (1..5).map(|port| format!("a:{port}").parse().unwrap()).collect();
        let ports = |me: &str| {
            let me: Address = me.parse().unwrap();
            me.others(&members).map(|other| other.port).collect::<Vec<_>>()
        };
        assert_eq!(ports("a:3"), [4, 1, 2]);
        assert_eq!(ports("a:4"), [1, 2, 3]);
        assert_eq!(ports("b:1"), [1, 2, 3, 4]);
        assert_eq!(ports("a:1"), [2, 3, 4]);
    }

    #[test]
    fn addresses_are_read_and_written() {
        for text in ["127.0.0.1:3301", "[::1]:3301", "db-1.example.com:1", "localhost:65535"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in
            ["", "3301", "host", "host:", "host:0", "host:65536", ":1", "[::1:1", "a b:1", "u:p@h:1", "host:1:x"]
        {
            assert_eq!(text.parse::<Address>().unwrap_err().code, Code::Config, "{text}");
        }
        assert!("127.0.0.5:1".parse::<Address>().unwrap().is_loopback());
        assert!("0.0.0.0:1".parse::<Address>().unwrap().is_unspecified());
    }
}
