//! The moments of queries that have several parts here: kept by the query's key until its router says that it is over, or
//! its time is.

use super::scans;
use crate::host::{Call, Deadline, fiber, inbox};
use crate::node;
use model::msgpack::{Reader, write_array_len, write_str, write_uint};
use model::{ReplicasetName, Result, TableId};
use sql::cluster::{Moment, QueryKey};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};
use tokio::task::AbortHandle;

pub const END_DOOR: &str = "picodata.peer.moment_end";

/// How long a storage may take to hear that a query is over.
const END_TIMEOUT_MS: u64 = 1_000;

static SHARED: Mutex<Option<HashMap<QueryKey, Kept>>> = Mutex::new(None);
static LAST_MOMENT: AtomicU64 = AtomicU64::new(0);
static LAST_QUERY: AtomicU64 = AtomicU64::new(0);

/// A moment that waits for further parts of its query, and what ends it at the query's deadline.
struct Kept {
    moment: Arc<Moment>,
    expiry: AbortHandle,
}

fn shared<T>(f: impl FnOnce(&mut HashMap<QueryKey, Kept>) -> T) -> T {
    f(SHARED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

/// How many moments of queries with several parts are kept here.
pub fn count() -> usize {
    shared(|moments| moments.len())
}

/// A number for a query that no earlier life of this process has given.
pub fn next_query() -> u64 {
    if LAST_QUERY.load(Ordering::Relaxed) == 0 {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let first = since_1970.as_nanos() as u64;
        // Another thread may have been first.
        let _ = LAST_QUERY.compare_exchange(0, first, Ordering::Relaxed, Ordering::Relaxed);
    }
    LAST_QUERY.fetch_add(1, Ordering::Relaxed)
}

/// A new moment, or the one that the query has here already. Called on a worker thread.
///
/// A router cancels the parts of a query before it says that the query is over. So what begins for a part that `is_wanted`
/// no more may come after that word, and is not kept: nobody would end it.
pub fn begin(
    tables: Vec<TableId>,
    scans: usize,
    query: Option<(QueryKey, Instant)>,
    is_wanted: impl FnOnce() -> bool,
) -> Arc<Moment> {
    let fresh = |scans| {
        let number = LAST_MOMENT.fetch_add(1, Ordering::Relaxed) + 1;
        Arc::new(Moment::new(number, tables, scans, scans::end_moment))
    };
    let Some((key, deadline)) = query else { return fresh(scans) };
    shared(|moments| {
        if let Some(kept) = moments.get(&key) {
            return Arc::clone(&kept.moment);
        }
        // How many parts are still to come is not known.
        let moment = fresh(usize::MAX);
        // Asked with the moments locked: who ends them comes before this or after it.
        if !is_wanted() {
            return moment;
        }
        let ending = key.clone();
        let expiry = tokio::spawn(async move {
            tokio::time::sleep_until(deadline.into()).await;
            end(&ending);
        });
        moments.insert(key, Kept { moment: Arc::clone(&moment), expiry: expiry.abort_handle() });
        moment
    })
}

fn end(key: &QueryKey) {
    if let Some(kept) = shared(|moments| moments.remove(key)) {
        kept.expiry.abort();
    }
}

/// The query is over: ends its moments here and at the masters of these replicasets.
pub fn end_everywhere(key: &QueryKey, replicasets: Vec<ReplicasetName>) {
    end(key);
    if replicasets.is_empty() {
        return;
    }
    let mut args = Vec::new();
    write_array_len(&mut args, 2);
    write_str(&mut args, key.router.as_str());
    write_uint(&mut args, key.number);
    inbox::post(move || {
        let tell = move || {
            let Ok(node) = node::get() else { return };
            for replicaset in replicasets {
                // A storage that does not hear it ends the moment at the query's deadline.
                let _ = super::fragments::master_of(&replicaset)
                    .map(|address| node.call(&address, END_DOOR, &args, Deadline::after_ms(END_TIMEOUT_MS)));
            }
        };
        let _ = fiber::spawn("pico_moment_end", tell);
    });
}

/// `picodata.peer.moment_end(router, number)`.
pub fn serve_end(call: &mut Call<'_>) -> Result<()> {
    let mut reader = Reader::new(call.args());
    reader.array_len()?;
    end(&QueryKey { router: reader.str()?.into(), number: reader.uint()? });
    Ok(())
}
