//! A cluster in memory that answers statements over pipes, for the differential tester (`test/differential`).
//!
//! Arguments: the number of replicasets, and `engine` to leave the point path out. In: a length of four bytes (most
//! significant first) and so many bytes of SQL, one statement after the other. Out: a length, and MessagePack
//! `[true, {metadata, rows} | {row_count}]` or `[false, code, message]`. Statements go from node to node.

use model::Result;
use model::msgpack::{write_array_len, write_bool, write_str};
use sql::engine::runtime;
use sql::front::Answer;
use sql::testing::Session;
use std::io::{self, Read, Write};
use std::sync::Arc;

/// The next statement; None at the end of the input.
fn next(input: &mut impl Read) -> io::Result<Option<String>> {
    let mut length = [0; 4];
    match input.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut text = vec![0; u32::from_be_bytes(length) as usize];
    input.read_exact(&mut text)?;
    String::from_utf8(text).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn encoded(answer: &Result<Answer>) -> Vec<u8> {
    let mut out = Vec::new();
    match answer {
        Ok(answer) => {
            write_array_len(&mut out, 2);
            write_bool(&mut out, true);
            answer.write(&mut out);
        }
        Err(error) => {
            write_array_len(&mut out, 3);
            write_bool(&mut out, false);
            write_str(&mut out, error.code.name());
            write_str(&mut out, &error.message);
        }
    }
    out
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let replicasets = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(3);
    let session = Arc::new(Session::new(replicasets, arguments.next().as_deref() != Some("engine")));
    let runtime = runtime(1).map_err(io::Error::other)?;
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut number = 0;
    while let Some(text) = next(&mut input)? {
        let session = session.clone();
        number += 1;
        // On a thread of the runtime: planning needs a deep stack.
        let answer = runtime.block_on(runtime.spawn(async move { encoded(&session.run(number, &text).await) }));
        let answer = answer.map_err(io::Error::other)?;
        output.write_all(&(answer.len() as u32).to_be_bytes())?;
        output.write_all(&answer)?;
        output.flush()?;
    }
    Ok(())
}
