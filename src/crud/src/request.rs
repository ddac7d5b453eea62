//! The arguments of `picodata.crud.*`: positions first, then a map of options.

use crate::layout::{Layout, encode_metadata};
use model::error::nearest;
use model::msgpack::Reader;
use model::{Code, Error, Result};

/// How long a request may take when it does not say.
pub const TIMEOUT_DEFAULT_MS: u64 = 10_000;
/// The longest time that a request may ask for: a day.
pub const TIMEOUT_MAX_MS: u64 = 86_400_000;

/// The arguments of one call, taken one after the other. The arguments at the end may be missing or nil.
#[derive(Debug)]
pub struct Args<'a> {
    function: &'static str,
    reader: Reader<'a>,
    left: usize,
    taken: usize,
}

impl<'a> Args<'a> {
    /// Errors: `Argument` when the bytes are no array.
    pub fn new(function: &'static str, bytes: &'a [u8]) -> Result<Args<'a>> {
        let mut reader = Reader::new(bytes);
        let left = reader.array_len().map_err(|_| {
            Error::new(Code::Argument, format!("{function} takes an array of arguments in valid MessagePack"))
        })?;
        Ok(Args { function, reader, left, taken: 0 })
    }

    /// The next argument, a string.
    ///
    /// Errors: `Argument` when it is missing or something else.
    pub fn text(&mut self, what: &str) -> Result<&'a str> {
        let bytes = self.required(what)?;
        Reader::new(bytes).str().map_err(|_| {
            let message = format!("argument {} of {}, {what}, is not a string", self.taken, self.function);
            Error::new(Code::Argument, message)
        })
    }

    /// The bytes of the next argument.
    ///
    /// Errors: `Argument` when it is missing or broken.
    pub fn required(&mut self, what: &str) -> Result<&'a [u8]> {
        match self.optional()? {
            Some(bytes) => Ok(bytes),
            None => {
                let message = format!("argument {} of {}, {what}, is missing", self.taken, self.function);
                Err(Error::new(Code::Argument, message))
            }
        }
    }

    /// The bytes of the next argument; None when it is missing or nil.
    ///
    /// Errors: `Argument` for broken MessagePack.
    pub fn optional(&mut self) -> Result<Option<&'a [u8]>> {
        self.taken += 1;
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let bytes = self.reader.raw()?;
        Ok(if bytes == [0xc0] { None } else { Some(bytes) })
    }

    /// The options, the last argument.
    ///
    /// Errors: `Argument` for unknown options with the nearest name, and for arguments behind them.
    pub fn options(mut self) -> Result<Options<'a>> {
        let options = match self.optional()? {
            Some(bytes) => Options::read(bytes)?,
            None => Options::default(),
        };
        if self.left > 0 {
            let message = format!(
                "{} takes at most {} arguments, {} are given",
                self.function,
                self.taken,
                self.taken + self.left
            );
            return Err(Error::new(Code::Argument, message));
        }
        Ok(options)
    }
}

/// What a request may say about itself. Each function looks at those that mean something to it.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Options<'a> {
    pub timeout_ms: Option<u64>,
    /// An array of column names.
    fields: Option<&'a [u8]>,
    pub noreturn: bool,
    /// Rows to answer at most; negative for those before `after`.
    pub first: Option<i64>,
    pub after: Option<&'a [u8]>,
    pub stop_on_error: bool,
    pub rollback_on_error: bool,
}

/// Options that tarantool/crud has and that mean nothing here: taken and ignored.
const IGNORED: &[&str] = &[
    "bucket_id",
    "mode",
    "vshard_router",
    "fetch_latest_metadata",
    "force_map_call",
    "fullscan",
    "batch_size",
    "yield_every",
    "request_timeout",
    "prefer_replica",
    "balance",
];
const KNOWN: &[&str] = &["timeout", "fields", "noreturn", "first", "after", "stop_on_error", "rollback_on_error"];

impl<'a> Options<'a> {
    fn read(bytes: &'a [u8]) -> Result<Options<'a>> {
        let mut reader = Reader::new(bytes);
        let mut options = Options::default();
        // Lua's empty table arrives as an empty array.
        if bytes == [0x90] {
            return Ok(options);
        }
        let len = reader.map_len().map_err(|_| Error::new(Code::Argument, "the options are a map"))?;
        for _ in 0..len {
            let name = reader.str().map_err(|_| Error::new(Code::Argument, "the names of options are strings"))?;
            let value = reader.raw()?;
            if value != [0xc0] {
                options.set(name, value)?;
            }
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &'a [u8]) -> Result<()> {
        let mut reader = Reader::new(value);
        let wrong = |what: &str| Error::new(Code::Argument, format!("option \"{name}\" is {what}"));
        match name {
            "timeout" => {
                let seconds = reader.number().map_err(|_| wrong("a number of seconds"))?;
                if !(seconds >= 0.0 && seconds.is_finite()) {
                    return Err(wrong("a number of seconds that is not negative"));
                }
                self.timeout_ms = Some(((seconds * 1e3) as u64).min(TIMEOUT_MAX_MS));
            }
            "fields" => self.fields = Some(value),
            "noreturn" => self.noreturn = reader.bool().map_err(|_| wrong("true or false"))?,
            "first" => self.first = Some(reader.int().map_err(|_| wrong("a whole number"))?),
            "after" => self.after = Some(value),
            "stop_on_error" => self.stop_on_error = reader.bool().map_err(|_| wrong("true or false"))?,
            "rollback_on_error" => self.rollback_on_error = reader.bool().map_err(|_| wrong("true or false"))?,
            name if IGNORED.contains(&name) => {}
            name => {
                let error = Error::new(Code::Argument, format!("there is no option \"{name}\""));
                return Err(match nearest(name, KNOWN.iter().copied()) {
                    Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
                    None => error.with_hint(format!("the options are {}", KNOWN.join(", "))),
                });
            }
        }
        Ok(())
    }

    pub fn timeout_ms(&self) -> u64 {
        self.timeout_ms.unwrap_or(TIMEOUT_DEFAULT_MS)
    }

    /// The columns that the answer shows; None for all.
    ///
    /// Errors: `Argument`, `NoSuchColumn`.
    pub fn projection(&self, layout: &Layout) -> Result<Option<Projection>> {
        let Some(bytes) = self.fields else { return Ok(None) };
        let malformed = |_| Error::new(Code::Argument, "option \"fields\" is an array of column names");
        let mut reader = Reader::new(bytes);
        let len = reader.array_len().map_err(malformed)?;
        if len > model::table::COLUMNS_MAX {
            return Err(Error::new(Code::LimitExceeded, format!("option \"fields\" names {len} columns")));
        }
        let mut columns = Vec::with_capacity(len);
        for _ in 0..len {
            columns.push(layout.require_column(reader.str().map_err(malformed)?)?);
        }
        Ok(Some(Projection { metadata: encode_metadata(&layout.table, &columns), columns }))
    }
}

/// Some columns of a table, in the order in which the answer has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projection {
    pub columns: Vec<usize>,
    /// MessagePack of `[{name=, type=}, ...]`.
    pub metadata: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::msgpack;
    use proptest::prelude::*;

    fn options(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        msgpack::write_map_len(&mut out, entries.len());
        for (name, value) in entries {
            msgpack::write_str(&mut out, name);
            out.extend_from_slice(value);
        }
        out
    }

    fn read(bytes: &[u8]) -> Result<Options<'_>> {
        Options::read(bytes)
    }

    #[test]
    fn arguments_are_named_when_they_are_wrong() {
        let refuse = |bytes: &[u8]| {
            let mut args = Args::new("picodata.crud.get", bytes)?;
            args.text("the table")?;
            args.required("the key")?;
            args.options().map(|_| ())
        };
        let message = |bytes: &[u8]| refuse(bytes).unwrap_err().message;
        assert_eq!(message(&[0x90]), "argument 1 of picodata.crud.get, the table, is missing");
        assert_eq!(message(&[0x91, 1]), "argument 1 of picodata.crud.get, the table, is not a string");
        assert_eq!(message(&[0x92, 0xa1, b't', 0xc0]), "argument 2 of picodata.crud.get, the key, is missing");
        assert_eq!(message(&[0x93, 0xa1, b't', 1, 1]), "the options are a map");
        assert_eq!(
            message(&[0x94, 0xa1, b't', 1, 0xc0, 1]),
            "picodata.crud.get takes at most 3 arguments, 4 are given"
        );
        assert_eq!(message(&[1]), "picodata.crud.get takes an array of arguments in valid MessagePack");
        for good in [&[0x92, 0xa1, b't', 1][..], &[0x93, 0xa1, b't', 1, 0x90], &[0x93, 0xa1, b't', 1, 0x80]] {
            assert_eq!(refuse(good), Ok(()));
        }
    }

    #[test]
    fn options_are_checked_by_name_and_type() {
        let good = options(&[("timeout", &[2]), ("noreturn", &[0xc3]), ("bucket_id", &[7]), ("first", &[0xff])]);
        let expected = Options { timeout_ms: Some(2000), noreturn: true, first: Some(-1), ..Options::default() };
        assert_eq!(read(&good), Ok(expected));
        let error = |entries: &[(&str, &[u8])]| read(&options(entries)).unwrap_err().to_string();
        assert_eq!(error(&[("timeuot", &[1])]), "there is no option \"timeuot\" (hint: did you mean \"timeout\"?)");
        assert_eq!(error(&[("timeout", &[0xff])]), "option \"timeout\" is a number of seconds that is not negative");
        assert_eq!(error(&[("noreturn", &[1])]), "option \"noreturn\" is true or false");
        assert_eq!(read(&options(&[("timeout", &[0xc0])])), Ok(Options::default()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(mut args) = Args::new("f", &bytes) {
                let _ = args.text("a");
                let _ = args.options();
            }
            let _ = Options::read(&bytes);
        }
    }
}
