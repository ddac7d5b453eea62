//! The newcomer's part: it fetches the snapshot and puts its own UUID into the head of it.

use super::{BEGIN_DOOR, READ_DOOR, check_name};
use crate::host::{Deadline, clock, failpoint};
use crate::net::{CallError, Pool, SERVICE_USER};
use crate::node;
use crate::start::folder::Folder;
use boot::{Address, Config};
use model::msgpack::{Reader, write_array_len, write_str, write_uint};
use model::{Code, Error, Result};
use std::rc::Rc;
use std::time::Duration;

/// How long the master may take for an answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(35);
/// The line of a snapshot's head that says whose it is; an empty line ends the head.
const OWNER: &[u8] = b"\nInstance: ";
const END_OF_HEAD: &[u8] = b"\n\n";

/// Fetches what the master at `donor` has into an empty folder, as the storage of the instance `uuid`.
///
/// Errors: `NoMaster`, `Unreachable` and others after which another master may be asked; `Storage`.
pub fn copy(config: &Config, folder: &Folder, uuid: &str, donor: &Address) -> Result<()> {
    failpoint::reach("copy.begins");
    let began_s = clock::now_s();
    let pool = Pool::new(SERVICE_USER, &config.cluster_secret)?;
    let fetched = fetch(&pool, folder, uuid, donor);
    pool.close();
    let size = fetched?;
    log::info!("copying: {size} bytes came from {donor} in {:.3} s", clock::now_s() - began_s);
    failpoint::reach("copy.kept");
    Ok(())
}

/// Answers the number of bytes.
fn fetch(pool: &Rc<Pool>, folder: &Folder, uuid: &str, donor: &Address) -> Result<u64> {
    let mut args = Vec::new();
    write_array_len(&mut args, 1);
    write_str(&mut args, uuid);
    let answer = ask(pool, donor, BEGIN_DOOR, &args)?;
    let mut reader = Reader::new(&answer);
    reader.array_len()?;
    let (name, size) = (reader.str()?.to_owned(), reader.uint()?);
    check_name(&name)?;
    let mut file = folder.incoming(&name)?;
    let mut offset = 0;
    while offset < size {
        args.clear();
        write_array_len(&mut args, 2);
        write_str(&mut args, &name);
        write_uint(&mut args, offset);
        let answer = ask(pool, donor, READ_DOOR, &args)?;
        let part = Reader::new(&answer).bin()?.to_vec();
        if part.is_empty() {
            return Err(Error::new(
                Code::Storage,
                format!("the snapshot {name} of {donor} ends at {offset} of {size} bytes"),
            ));
        }
        match offset {
            0 => file.write(&owned_by(uuid, &part)?)?,
            _ => file.write(&part)?,
        }
        offset += part.len() as u64;
        failpoint::reach("copy.written");
    }
    file.keep()?;
    Ok(size)
}

fn ask(pool: &Rc<Pool>, donor: &Address, door: &str, args: &[u8]) -> Result<Vec<u8>> {
    node::call(pool, donor, door, args, Deadline::after(ASK_TIMEOUT)).map_err(CallError::for_read)
}

/// The beginning of a snapshot, as one of this instance.
fn owned_by(uuid: &str, part: &[u8]) -> Result<Vec<u8>> {
    let find = |what: &[u8], from: usize| Some(from + part.get(from..)?.windows(what.len()).position(|at| at == what)?);
    let strange = || Error::new(Code::Corrupted, "the head of the copied snapshot is none that this host writes");
    let owner = find(OWNER, 0).ok_or_else(strange)? + OWNER.len();
    let end = find(b"\n", owner).ok_or_else(strange)?;
    if find(END_OF_HEAD, 0).is_none_or(|head| head < end) {
        return Err(strange());
    }
    Ok([&part[..owner], uuid.as_bytes(), &part[end..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "SNAP\n0.13\nVersion: 2.6.0\nInstance: aaaa\nVClock: {1: 2}\n\nrows\nInstance: b";

    #[test]
    fn the_owner_of_a_snapshot_is_replaced_in_its_head_only() {
        let owned = owned_by("cc", HEAD.as_bytes()).unwrap();
        assert_eq!(owned, HEAD.replacen("aaaa", "cc", 1).into_bytes());
        assert_eq!(owned_by("cc", b"SNAP\n0.13\n\nrows\nInstance: b\n").unwrap_err().code, Code::Corrupted);
        assert_eq!(owned_by("cc", b"").unwrap_err().code, Code::Corrupted);
    }
}
