//! About how many rows each table has in the whole cluster, by which the engine orders joins.
//!
//! An instance with buckets of a tier counts the rows that it has itself: its share of the buckets says how many there are
//! elsewhere. One without asks a master that has some, when a statement is about to be planned and the last answer is old.
//! Only the first statement waits for that, and not for long: it can be planned without.

use super::{fragments, schema};
use crate::host::{Call, Deadline, clock, fiber};
use crate::net::CallError;
use crate::node;
use crate::storage;
use catalog::State;
use model::msgpack::{Reader, write_array_len, write_str, write_uint};
use model::{Distribution, ReplicasetName, Result, TableId, TierName};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

pub const DOOR: &str = "picodata.peer.row_counts";

/// The age at which an answer is old.
const AGE_MAX_S: f64 = 5.0;
/// How long the first statement waits, and the others' answers may take.
const FIRST_TIMEOUT_MS: u64 = 200;
const TIMEOUT_MS: u64 = 2_000;

type Counts = HashMap<TableId, u64>;

/// What another instance said, and how the last question went.
#[derive(Default)]
struct Told {
    counts: Counts,
    /// When it was asked, and at which version of the tables.
    asked_s: f64,
    version: u64,
    is_asking: bool,
    /// Questions in a row that nobody answered.
    failures: usize,
}

thread_local! {
    static TOLD: RefCell<HashMap<TierName, Told>> = RefCell::default();
}

/// Brings the estimates up to date, for the statement that is planned next. May yield.
///
/// Errors: `NotReady` before this instance has a storage.
pub fn refresh(deadline: Deadline) -> Result<()> {
    let Some(schema) = schema::current() else { return Ok(()) };
    let state = &schema.state;
    let (mut counts, elsewhere) = counts_here(state)?;
    for tier in elsewhere {
        ask_in_time(state, &tier, deadline);
        TOLD.with_borrow(|told| {
            let of_tier = told.get(&tier).into_iter().flat_map(|told| &told.counts);
            counts.extend(of_tier.map(|(table, rows)| (*table, *rows)));
        });
    }
    schema::publish_rows(counts);
    Ok(())
}

/// The estimates that can be made of the rows here, and the tiers of the other tables.
fn counts_here(state: &State) -> Result<(Counts, Vec<TierName>)> {
    let storage = storage::get()?;
    let me = node::get()?.me.name.clone();
    let replicaset = state.topology.instances.get(&me).map(|instance| &instance.replicaset);
    let share_of = |tier: &TierName| {
        let map = state.placement.map(tier)?;
        let owned = replicaset.map_or(0, |replicaset| map.count_of(replicaset));
        Some((u64::from(owned), u64::from(map.bucket_count())))
    };
    let mut shares: HashMap<TierName, Option<(u64, u64)>> = HashMap::new();
    let mut counts = Counts::new();
    for layout in storage.tables().iter() {
        let table = &layout.table;
        let Ok(here) = storage.row_count(table.id) else { continue };
        let Distribution::Sharded { tier, .. } = &table.distribution else {
            counts.insert(table.id, here);
            continue;
        };
        if !shares.contains_key(tier) {
            shares.insert(tier.clone(), share_of(tier));
        }
        if let Some(Some((owned @ 1.., all))) = shares.get(tier) {
            counts.insert(table.id, here.saturating_mul(*all) / owned);
        }
    }
    let elsewhere = shares.into_iter().filter(|(_, share)| matches!(share, Some((0, _))));
    Ok((counts, elsewhere.map(|(tier, _)| tier).collect()))
}

/// Asks when there is no answer yet, and waits for it; when it is old, and does not wait.
fn ask_in_time(state: &State, tier: &TierName, deadline: Deadline) {
    let now_s = clock::now_s();
    let version = state.schema.version;
    let due = TOLD.with_borrow_mut(|told| {
        let is_first = !told.contains_key(tier);
        let told = told.entry(tier.clone()).or_default();
        let is_known = told.version == version && now_s - told.asked_s < AGE_MAX_S;
        if told.is_asking || (is_known && !is_first) {
            return None;
        }
        (told.asked_s, told.version, told.is_asking) = (now_s, version, true);
        Some((is_first, told.failures))
    });
    let Some((is_first, failures)) = due else { return };
    let tier = tier.clone();
    let Some(owner) = owner_of_most(state, &tier, failures) else { return note(&tier, None) };
    if is_first {
        // The statement needs its time for itself.
        let share = Deadline::after(Duration::from_secs_f64(deadline.left_s().max(0.0) / 4.0));
        ask(&owner, &tier, Deadline::after_ms(FIRST_TIMEOUT_MS).min(share));
    } else {
        let of = tier.clone();
        if fiber::spawn("pico_counts", move || ask(&owner, &of, Deadline::after_ms(TIMEOUT_MS))).is_err() {
            note(&tier, None);
        }
    }
}

/// The replicaset with most buckets of a tier, whose estimates are the best; after failures another one.
fn owner_of_most(state: &State, tier: &TierName, failures: usize) -> Option<ReplicasetName> {
    let map = state.placement.map(tier)?;
    let names: BTreeSet<&ReplicasetName> = map.ranges().iter().map(|range| &range.replicaset).collect();
    let mut owners: Vec<&ReplicasetName> = names.into_iter().collect();
    owners.sort_by_key(|owner| std::cmp::Reverse(map.count_of(owner)));
    owners.get(failures % owners.len().max(1)).map(|owner| (*owner).clone())
}

/// Asks a master, and notes what it says. One that does not answer is no reason to fail: the statement is planned without.
fn ask(owner: &ReplicasetName, tier: &TierName, deadline: Deadline) {
    match counts_at(owner, tier, deadline) {
        Ok(counts) => note(tier, Some(counts)),
        Err(error) => {
            let is_news = TOLD.with_borrow(|told| told.get(tier).is_none_or(|told| told.failures == 0));
            if is_news {
                log::info!("the sizes of the tables of tier \"{tier}\" are not heard of: {error}");
            }
            note(tier, None);
        }
    }
}

/// A question is over. What was known stays when there is no answer, or one of a master that has no bucket any more.
fn note(tier: &TierName, answer: Option<Counts>) {
    TOLD.with_borrow_mut(|told| {
        let told = told.entry(tier.clone()).or_default();
        told.is_asking = false;
        match answer {
            Some(counts) if !counts.is_empty() => (told.counts, told.failures) = (counts, 0),
            _ => told.failures += 1,
        }
    });
}

fn counts_at(owner: &ReplicasetName, tier: &TierName, deadline: Deadline) -> Result<Counts> {
    let address = fragments::master_of(owner)?;
    let mut args = Vec::new();
    write_array_len(&mut args, 1);
    write_str(&mut args, tier.as_str());
    let answer = node::get()?.call(&address, DOOR, &args, deadline).map_err(CallError::for_read)?;
    let mut reader = Reader::new(&answer);
    let mut counts = Counts::new();
    for _ in 0..reader.array_len()? {
        reader.array_len()?;
        let (table, rows) = (reader.uint()?, reader.uint()?);
        // No table has the number of a later version's.
        counts.extend(TableId::try_from(table).map(|table| (table, rows)));
    }
    Ok(counts)
}

/// `picodata.peer.row_counts(tier)`: `[[table id, rows], ...]` of the tier's tables, as this instance estimates them from
/// its own rows; nothing when it has no bucket of the tier.
pub fn serve(call: &mut Call<'_>) -> Result<()> {
    let mut reader = Reader::new(call.args());
    reader.array_len()?;
    let tier: TierName = reader.str()?.into();
    let Some(schema) = schema::current() else { return call.reply(&[0x90]) };
    let (counts, _) = counts_here(&schema.state)?;
    let is_of_tier = |table: &TableId| {
        let distribution = schema.state.schema.table_by_id(*table).map(|table| &table.distribution);
        matches!(distribution, Some(Distribution::Sharded { tier: of, .. }) if *of == tier)
    };
    let of_tier: Vec<_> = counts.iter().filter(|(table, _)| is_of_tier(table)).collect();
    let mut out = Vec::with_capacity(of_tier.len() * 12 + 5);
    write_array_len(&mut out, of_tier.len());
    for (table, rows) in of_tier {
        write_array_len(&mut out, 2);
        write_uint(&mut out, u64::from(*table));
        write_uint(&mut out, *rows);
    }
    call.reply(&out)
}
