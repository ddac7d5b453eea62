//! Errors on their way in and out of the host: ours are raised through its diagnostics area with their own codes, its
//! own are mapped to ours.

use model::{Code, Error};
use std::ffi::{CStr, c_int};
use tarantool::error::TarantoolErrorCode as Host;
use tarantool::ffi::tarantool as ffi;

/// How a hint is appended to a message where the host has only one text. `split_hint` takes it apart again.
const HINT_OPEN: &str = " (hint: ";

/// Makes `error` the host's last error. A C procedure that then returns -1 fails with it, over IPROTO and in Lua.
pub fn raise(error: &Error) -> c_int {
    let mut text = error.to_string().into_bytes();
    text.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
    text.push(0);
    // SAFETY: all texts end in a zero byte and the format consumes exactly one of them; the host copies it.
    unsafe { ffi::box_error_set(c"picodata".as_ptr(), 0, error.number(), c"%s".as_ptr(), text.as_ptr()) }
}

/// The error that the last failed call of the host left behind.
pub fn last() -> Error {
    // SAFETY: the error lives until the next call of the host, and both of its texts are copied before.
    unsafe {
        let error = ffi::box_error_last();
        if error.is_null() {
            return Error::internal("the host reported a failure without an error");
        }
        let message = CStr::from_ptr(ffi::box_error_message(error)).to_string_lossy();
        from_wire(ffi::box_error_code(error), &message)
    }
}

/// An error as IPROTO and the host's diagnostics carry it. Our codes stay; the host's are mapped, and its words kept.
pub fn from_wire(number: u32, message: &str) -> Error {
    match Code::from_number(number) {
        Some(code) => split_hint(code, message),
        None => {
            // What it goes on with is an option that is none of ours.
            let message = message.split(" Check '").next().unwrap_or(message);
            Error { hint: hint_for(number).map(str::to_owned), ..Error::new(map_code(number), message) }
        }
    }
}

/// What helps against the host's errors that an operator meets.
fn hint_for(number: u32) -> Option<&'static str> {
    const WAL_IO: u32 = Host::WalIo as u32;
    const MEMORY: u32 = Host::MemoryIssue as u32;
    const MEMTX_TUPLE: u32 = Host::MemtxMaxTupleSize as u32;
    const VINYL_TUPLE: u32 = Host::VinylMaxTupleSize as u32;
    match number {
        WAL_IO => Some("make room on the disk of the instance's data_dir; writes go on by themselves then"),
        MEMORY => Some("delete rows, or start the instance with a larger memtx_memory"),
        MEMTX_TUPLE | VINYL_TUPLE => Some("a row has at most 1 MiB: divide it into several"),
        _ => None,
    }
}

fn split_hint(code: Code, message: &str) -> Error {
    match message.strip_suffix(')').and_then(|text| text.rsplit_once(HINT_OPEN)) {
        Some((message, hint)) => Error::new(code, message).with_hint(hint),
        None => Error::new(code, message),
    }
}

/// Our code for one of the host's.
fn map_code(number: u32) -> Code {
    const TABLE: &[(Code, &[Host])] = &[
        (Code::DuplicateKey, &[Host::TupleFound]),
        (Code::WrongType, &[Host::KeyPartType, Host::FieldType, Host::UpdateArgType]),
        (Code::NullViolation, &[Host::FieldMissing]),
        (
            Code::Argument,
            &[
                Host::IllegalParams,
                Host::ExactMatch,
                Host::InvalidMsgpack,
                Host::TupleNotArray,
                Host::KeyPartCount,
                Host::PartialKey,
                Host::ExactFieldCount,
                Host::UnknownUpdateOp,
                Host::NoSuchFieldNo,
            ],
        ),
        (Code::ValueOutOfRange, &[Host::UpdateIntegerOverflow, Host::KeyPartIsTooLong]),
        (Code::LimitExceeded, &[Host::MemtxMaxTupleSize, Host::VinylMaxTupleSize, Host::TupleFormatLimit]),
        (Code::NoSuchTable, &[Host::NoSuchSpace]),
        (Code::NoSuchIndex, &[Host::NoSuchIndexID, Host::NoSuchIndexName]),
        (Code::NoSuchFunction, &[Host::NoSuchProc, Host::NoSuchFunction, Host::LoadFunction]),
        (
            Code::AlreadyExists,
            &[Host::SpaceExists, Host::UserExists, Host::FunctionExists, Host::RoleExists, Host::IndexExists],
        ),
        (Code::AccessDenied, &[Host::AccessDenied, Host::NoSuchUser, Host::PasswordMismatch]),
        (Code::Storage, &[Host::MemoryIssue, Host::WalIo, Host::System]),
        (Code::NoMaster, &[Host::NonMaster, Host::Readonly]),
        (Code::Unreachable, &[Host::NoConnection]),
        (Code::Timeout, &[Host::Timeout]),
        (Code::NotReady, &[Host::Loading]),
        (Code::Conflict, &[Host::TransactionConflict]),
        (Code::Procedure, &[Host::ProcLua, Host::ProcC]),
        (Code::Unsupported, &[Host::Unsupported, Host::UnsupportedIndexFeature]),
    ];
    let is_listed = |(_, hosts): &&(Code, &[Host])| hosts.iter().any(|host| *host as u32 == number);
    TABLE.iter().find(is_listed).map_or(Code::Internal, |(code, _)| *code)
}
