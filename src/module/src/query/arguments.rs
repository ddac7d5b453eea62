//! The arguments of `picodata.sql`: a text, parameters, and what the call allows its statement.

use super::schema;
use catalog::Setting;
use model::msgpack::Reader;
use model::{Code, Error, Result};
use std::time::Duration;

const OPTIONS: &str = "it has: timeout, rows_max, memory_max_mb";

pub struct Arguments<'a> {
    pub text: &'a str,
    /// MessagePack of an array; empty when none was given.
    pub params: &'a [u8],
    pub timeout: Duration,
    pub rows_max: usize,
    pub memory_bytes_max: usize,
}

/// What the options say; None where they say nothing.
#[derive(Default)]
struct Options {
    timeout: Option<Duration>,
    rows_max: Option<usize>,
    memory_bytes_max: Option<usize>,
}

impl<'a> Arguments<'a> {
    /// Errors: `Argument`.
    pub fn read(args: &'a [u8]) -> Result<Self> {
        let usage = || Error::new(Code::Argument, "picodata.sql takes a text, an array of parameters and options");
        let mut reader = Reader::new(args);
        let count = reader.array_len()?;
        if count == 0 || count > 3 {
            return Err(usage());
        }
        let text = reader.str().map_err(|error| if error.message.contains("UTF-8") { error } else { usage() })?;
        let params = if count > 1 { array_or_nil(&mut reader)? } else { &[] };
        let options = if count > 2 { Options::read(&mut reader)? } else { Options::default() };
        Ok(Self {
            text,
            params,
            timeout: options.timeout.unwrap_or_else(default_timeout),
            rows_max: options.rows_max.unwrap_or(usize::MAX),
            memory_bytes_max: options.memory_bytes_max.unwrap_or(usize::MAX),
        })
    }
}

impl Options {
    fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let mut options = Self::default();
        if reader.take_nil() || reader.peek()? == 0x90 {
            return Ok(options);
        }
        for _ in 0..reader.map_len()? {
            match reader.str()? {
                "timeout" => {
                    let seconds = number(reader, "timeout", "seconds", 86_400.0)?;
                    options.timeout = Some(Duration::from_secs_f64(seconds));
                }
                "rows_max" => options.rows_max = Some(number(reader, "rows_max", "rows", 1e9)?.ceil() as usize),
                "memory_max_mb" => {
                    let bytes = number(reader, "memory_max_mb", "MiB", 1e6)? * f64::from(1 << 20);
                    options.memory_bytes_max = Some(bytes as usize);
                }
                other => {
                    let message = format!("picodata.sql has no option \"{other}\"");
                    return Err(Error::new(Code::Argument, message).with_hint(OPTIONS));
                }
            }
        }
        Ok(options)
    }
}

fn number(reader: &mut Reader<'_>, name: &str, unit: &str, max: f64) -> Result<f64> {
    let value = reader.number()?;
    if value > 0.0 && value <= max {
        return Ok(value);
    }
    Err(Error::new(Code::Argument, format!("{name} is a number of {unit}, more than 0 and up to {max}")))
}

fn array_or_nil<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8]> {
    if reader.take_nil() {
        return Ok(&[]);
    }
    match reader.peek()? {
        0x90..=0x9f | 0xdc | 0xdd => reader.raw(),
        // Lua sends an empty table as a map at times.
        0x80 => reader.raw().map(|_| &[][..]),
        _ => Err(Error::new(Code::Argument, "the parameters of picodata.sql are an array")),
    }
}

fn default_timeout() -> Duration {
    let seconds = schema::current().map_or(60, |schema| schema.state.settings.count(Setting::SqlTimeoutS) as u64);
    Duration::from_secs(seconds)
}
