//! Calls from Rust into the few Lua functions that this module carries with it (`setup.lua`).
//!
//! Arguments and results travel as MessagePack, so that one bridge serves all functions; a Lua error comes back as a
//! `model::Error` with the host's words.

use model::{Code, Error, Result};
use tlua::{AnyLuaString, LuaFunction};

/// Keeps the functions in `package.loaded`, so that the text is compiled once a process.
const BRIDGE: &str = r#"
    local name, args, source = ...
    local loaded = package.loaded
    local functions = loaded['picodata.setup']
    if functions == nil then
        functions = loadstring(source, 'picodata.setup')()
        loaded['picodata.setup'] = functions
    end
    local msgpack = require('msgpack')
    local ok, result = pcall(functions[name], unpack(msgpack.decode(args), 1, 8))
    if ok then
        return true, msgpack.encode(result), ''
    end
    return false, '', tostring(result)
"#;

/// Calls `setup.<name>` with the elements of the MessagePack array `args` (8 at most). May yield.
///
/// Errors: `Storage` with the host's words.
pub fn call(name: &str, args: &[u8]) -> Result<Vec<u8>> {
    let broken = |e: &dyn std::fmt::Display| Error::internal(format!("the Lua part of the module: {e}"));
    let bridge = LuaFunction::load(tarantool::lua_state(), BRIDGE).map_err(|e| broken(&e))?;
    let setup = include_str!("setup.lua");
    let answer: std::result::Result<(bool, AnyLuaString, String), _> =
        bridge.call_with_args((name, AnyLuaString(args.to_vec()), setup));
    match answer {
        Ok((true, result, _)) => Ok(result.0),
        Ok((false, _, message)) => Err(Error::new(Code::Storage, message)),
        Err(e) => Err(broken(&e)),
    }
}
