//! `picodata.peer.procedure`: a user's Lua function, run on the master that owns the bucket of a key.

use super::Storage;
use crate::acks;
use crate::host::Call;
use crud::row::bucket_of_stored;
use model::msgpack::{self, Reader};
use model::{BucketId, Code, Error, Result};
use sharding::BucketRange;
use tlua::{AnyLuaString, LuaFunction};

pub const DOOR: &str = "picodata.peer.procedure";

/// Calls the function in the protected mode of Lua; kept in `package.loaded`, so that it is compiled once a process.
/// Answers what happened, a code or 0, and the result's MessagePack or the message.
const RUNNER: &str = r#"
    local msgpack = require('msgpack')
    local function find(name)
        local value = _G
        for part in name:gmatch('[^.]+') do
            if type(value) ~= 'table' then return nil end
            value = value[part]
        end
        return value
    end
    return function(name, args, count)
        local func = find(name)
        if type(func) ~= 'function' then return 'missing', 0, '' end
        local ok, result = pcall(func, unpack((msgpack.decode(args)), 1, count))
        if not ok then
            local is_box_error = type(result) == 'cdata' and box.error.is(result)
            return 'error', is_box_error and result.code or 0, is_box_error and result.message or tostring(result)
        end
        local packed, bytes = pcall(msgpack.encode, result)
        if packed then return 'done', 0, bytes end
        return 'error', 0, 'what it returned can not be packed: ' .. tostring(bytes)
    end
"#;

const BRIDGE: &str = r#"
    local name, args, count, source = ...
    local runner = package.loaded['picodata.procedure']
    if runner == nil then
        runner = loadstring(source, 'picodata.procedure')()
        package.loaded['picodata.procedure'] = runner
    end
    return runner(name, args, count)
"#;

/// Arguments: the stored key, whether it writes, the function's name, its arguments. Answers what the function returned
/// first.
pub fn serve(call: &mut Call<'_>) -> Result<()> {
    let args = call.copy();
    let reply = answer(&args)?;
    call.reply(&reply)
}

/// What `serve` answers, for a caller in this process.
pub fn answer(args: &[u8]) -> Result<Vec<u8>> {
    let mut reader = Reader::new(args);
    if reader.array_len()? != 4 {
        return Err(Error::new(Code::Argument, "picodata.peer.procedure takes four arguments"));
    }
    let (key, is_write, name, arguments) = (reader.raw()?, reader.bool()?, reader.str()?, reader.raw()?);
    super::get()?.run_procedure(bucket_of_stored(key)?, is_write, name, arguments)
}

impl Storage {
    /// Runs a function while this instance owns the bucket; a function that writes keeps the bucket from moving.
    ///
    /// Errors: `NoMaster`, `WrongBucket`, `BucketLocked`, `NotReady`, and those of `run`.
    pub fn run_procedure(&'static self, bucket: BucketId, is_write: bool, name: &str, args: &[u8]) -> Result<Vec<u8>> {
        self.look_at_lease();
        // Which tables a function uses is not known.
        if !self.serves_all() {
            return Err(Error::new(Code::NotReady, "a table of this instance is being emptied"));
        }
        if !is_write {
            self.guard.borrow().check_read(bucket, false)?;
            let result = run(name, args)?;
            self.settle(&[BucketRange::new(bucket, bucket)])?;
            return Ok(result);
        }
        acks::check_in_sync()?;
        self.guard.borrow_mut().begin_write(bucket)?;
        let function = acks::begin_function();
        let result = run(name, args);
        drop(function);
        // Also after an error: the function may have committed before it failed.
        let acknowledged = acks::await_in_sync();
        match &acknowledged {
            Err(error) if error.code == Code::Unknown => self.guard.borrow_mut().end_in_doubt(bucket),
            _ => self.guard.borrow_mut().end_write(bucket),
        }
        self.quiet.notify_all();
        let result = result?;
        acknowledged?;
        Ok(result)
    }
}

/// Runs a Lua function by its global name, which may have dots. May yield.
///
/// Errors: `NoSuchFunction`, `Procedure` with what the function raised; an error of ours that it passes on keeps its
/// code.
pub fn run(name: &str, args: &[u8]) -> Result<Vec<u8>> {
    let broken = |error: &dyn std::fmt::Display| Error::internal(format!("the Lua part of the module: {error}"));
    let count = Reader::new(args)
        .array_len()
        .map_err(|_| Error::new(Code::Argument, format!("the arguments of {name} are an array")))?;
    // Each call has a Lua thread of its own, so that functions that yield do not disturb each other.
    let bridge = LuaFunction::load(tarantool::lua_state(), BRIDGE).map_err(|error| broken(&error))?;
    let arguments = (name, AnyLuaString(args.to_vec()), count as u32, RUNNER);
    let answer: std::result::Result<(String, u32, AnyLuaString), _> = bridge.call_with_args(arguments);
    let (what, number, bytes) = answer.map_err(|error| broken(&error))?;
    match what.as_str() {
        "done" => Ok(bytes.0),
        "missing" => Err(Error::new(Code::NoSuchFunction, format!("there is no Lua function {name} on this instance"))
            .with_hint("define it as a global function on every instance that can be a master")),
        _ => {
            let message = String::from_utf8_lossy(&bytes.0).into_owned();
            match Code::from_number(number) {
                Some(code) => Err(Error::new(code, message)),
                None => Err(Error::new(Code::Procedure, format!("{name}: {message}"))),
            }
        }
    }
}

/// Writes the arguments of `serve`.
pub fn write_args(key: &[u8], is_write: bool, name: &str, args: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    msgpack::write_array_len(&mut out, 4);
    out.extend_from_slice(key);
    msgpack::write_bool(&mut out, is_write);
    msgpack::write_str(&mut out, name);
    out.extend_from_slice(args);
    out
}
