//! The router: from a key to the instance that owns it, with patience for what passes.
//!
//! In come operations with their bucket; they run in this instance's own storage when it is the bucket's master, and
//! leave for that master otherwise. A snapshot of the catalog, made ready for look-ups, is replaced as a whole when the
//! catalog changes; a request looks at the present one each time that it tries.

pub mod changes;
pub mod execute;
pub mod global;
pub mod peer;
pub mod rows;
pub mod scatter;
pub mod transaction;

use crate::host::{Deadline, Event};
use crate::net::{Peer, Pool};
use crate::storage::{self, TableSet};
use catalog::State;
use crud::{Layout, RowWriter};
use foldhash::{HashMap, HashMapExt};
use model::error::nearest;
use model::{BucketId, Code, Error, InstanceName, ReplicasetName, Result, TableId, TierName};
use sharding::BucketRange;
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

/// A replicaset as a router sees it.
pub struct Target {
    pub replicaset: ReplicasetName,
    /// Of the tier's buckets, in order.
    pub ranges: Vec<BucketRange>,
    pub master: Option<Master>,
}

pub enum Master {
    /// This instance.
    Here,
    At(Rc<Peer>),
}

/// The buckets of a tier and who owns them.
pub struct TierRoute {
    pub bucket_count: u32,
    /// For each bucket, counted from 0, its number in `targets`.
    owners: Rc<[u16]>,
    pub targets: Vec<Rc<Target>>,
}

impl TierRoute {
    /// The owner of a bucket.
    #[inline]
    pub fn target(&self, bucket: BucketId) -> Option<&Rc<Target>> {
        let owner = self.owners.get(bucket.checked_sub(1)? as usize)?;
        self.targets.get(usize::from(*owner))
    }
}

/// A table and the way to its rows.
pub struct TableRoute {
    pub layout: Arc<Layout>,
    /// None for a global table.
    pub tier: Option<Rc<TierRoute>>,
}

impl TableRoute {
    pub fn writer(&self) -> RowWriter<'_> {
        RowWriter::new(&self.layout, self.tier.as_ref().map_or(0, |tier| tier.bucket_count))
    }
}

/// One version of the catalog, ready for look-ups.
#[derive(Default)]
pub struct Snapshot {
    pub version: u64,
    /// The version that last changed a table: what is compiled from definitions holds as long as this.
    pub schema_version: u64,
    by_name: HashMap<Box<str>, Rc<TableRoute>>,
    by_id: HashMap<TableId, Rc<TableRoute>>,
    tiers: HashMap<TierName, Rc<TierRoute>>,
}

impl Snapshot {
    /// A table by its name.
    ///
    /// Errors: `NoSuchTable` with the nearest name.
    pub fn table(&self, name: &str) -> Result<&Rc<TableRoute>> {
        self.by_name.get(name).ok_or_else(|| {
            let error = Error::new(Code::NoSuchTable, format!("there is no table \"{name}\""));
            match nearest(name, self.by_name.keys().map(AsRef::as_ref)) {
                Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
                None => error,
            }
        })
    }

    /// A table by its id.
    ///
    /// Errors: `SchemaChanged` when it was dropped.
    pub fn table_by_id(&self, id: TableId) -> Result<&Rc<TableRoute>> {
        self.by_id
            .get(&id)
            .ok_or_else(|| Error::new(Code::SchemaChanged, "the table was dropped while a request used it"))
    }

    fn new(state: &State, ways: &Ways<'_>, tables: &TableSet, before: &Snapshot) -> Result<Snapshot> {
        let mut tiers = HashMap::new();
        for tier in state.placement.maps.keys() {
            let route = tier_route(state, ways, tier, before.tiers.get(tier))?;
            tiers.extend(route.map(|route| (tier.clone(), Rc::new(route))));
        }
        let mut snapshot =
            Snapshot { version: state.version, schema_version: state.schema.version, tiers, ..Snapshot::default() };
        for layout in tables.iter() {
            let tier = match &layout.table.distribution {
                model::Distribution::Global => None,
                model::Distribution::Sharded { tier, .. } => match snapshot.tiers.get(tier) {
                    Some(route) => Some(Rc::clone(route)),
                    None => continue,
                },
            };
            let route = Rc::new(TableRoute { layout: Arc::clone(layout), tier });
            snapshot.by_name.insert(layout.table.name.as_str().into(), Rc::clone(&route));
            snapshot.by_id.insert(layout.table.id, route);
        }
        Ok(snapshot)
    }
}

/// What turns a master's name into a way to it.
struct Ways<'a> {
    me: &'a InstanceName,
    pool: &'a Pool,
}

impl Ways<'_> {
    fn to_master(&self, state: &State, replicaset: &ReplicasetName) -> Result<Option<Master>> {
        let master = state.topology.replicasets.get(replicaset).and_then(|replicaset| replicaset.master.as_ref());
        let Some(name) = master else { return Ok(None) };
        if name == self.me {
            return Ok(Some(Master::Here));
        }
        let Some(instance) = state.topology.instances.get(name) else { return Ok(None) };
        Ok(Some(Master::At(self.pool.peer(&instance.address)?)))
    }
}

fn tier_route(
    state: &State,
    ways: &Ways<'_>,
    tier: &TierName,
    before: Option<&Rc<TierRoute>>,
) -> Result<Option<TierRoute>> {
    let Some(map) = state.placement.map(tier) else { return Ok(None) };
    let mut targets: Vec<Target> = Vec::new();
    let mut owners: Vec<u16> = Vec::with_capacity(map.bucket_count() as usize);
    for range in map.ranges() {
        let at = match targets.iter().position(|target| target.replicaset == range.replicaset) {
            Some(at) => at,
            None => {
                let replicaset = range.replicaset.clone();
                targets.push(Target { master: ways.to_master(state, &replicaset)?, replicaset, ranges: Vec::new() });
                targets.len() - 1
            }
        };
        add_range(&mut targets[at].ranges, range.buckets);
        // There are fewer replicasets than instances, and far fewer of those than 65,536.
        owners.extend(std::iter::repeat_n(at as u16, range.buckets.count() as usize));
    }
    let owners: Rc<[u16]> = match before {
        Some(before) if *before.owners == *owners => Rc::clone(&before.owners),
        _ => owners.into(),
    };
    let targets = targets.into_iter().map(Rc::new).collect();
    Ok(Some(TierRoute { bucket_count: map.bucket_count(), owners, targets }))
}

/// Adds a range behind the others, joined to the last one where they touch.
fn add_range(ranges: &mut Vec<BucketRange>, range: BucketRange) {
    match ranges.last_mut() {
        Some(last) if last.last + 1 == range.first => last.last = range.last,
        _ => ranges.push(range),
    }
}

/// The router of this process.
pub struct Router {
    snapshot: RefCell<Rc<Snapshot>>,
    /// Fires when the catalog, a connection or this instance's part changed: whoever waits tries again.
    pub changed: Event,
}

thread_local! {
    static ROUTER: OnceCell<&'static Router> = const { OnceCell::new() };
}

/// This instance's router. It knows no table before the first `install`.
///
/// Errors: `Storage` when there is no memory.
pub fn get() -> Result<&'static Router> {
    ROUTER.with(|cell| match cell.get() {
        Some(router) => Ok(*router),
        None => {
            let router: &'static Router =
                Box::leak(Box::new(Router { snapshot: RefCell::default(), changed: Event::new()? }));
            Ok(*cell.get_or_init(|| router))
        }
    })
}

/// Tells storage and router what the catalog says now: after each change of it, and when this instance becomes writable
/// (`is_writable`: box takes writes) or ceases to be.
///
/// Errors: `Storage` when there is no memory.
pub fn install(state: &State, me: &InstanceName, is_writable: bool, pool: &Pool) -> Result<()> {
    let storage = storage::get()?;
    storage.install(state, me, is_writable);
    let router = get()?;
    let snapshot = Snapshot::new(state, &Ways { me, pool }, &storage.tables(), &router.snapshot())?;
    *router.snapshot.borrow_mut() = Rc::new(snapshot);
    router.changed.notify_all();
    Ok(())
}

/// A connection to another instance stands: what waited for it can go on.
pub fn connected() {
    ROUTER.with(|cell| {
        if let Some(router) = cell.get() {
            router.changed.notify_all();
        }
    });
}

impl Router {
    /// The present snapshot. A holder keeps its version while the catalog goes on.
    pub fn snapshot(&self) -> Rc<Snapshot> {
        Rc::clone(&self.snapshot.borrow())
    }

    /// Waits for something to change that an attempt may depend on, until the catalog here has `version`, at most
    /// `pause_ms`. False when the deadline has passed.
    fn wait_for_change(&self, version: u64, pause_ms: u64, deadline: Deadline) -> bool {
        let pause = deadline.min(Deadline::after_ms(pause_ms));
        loop {
            let parked = self.changed.wait(pause);
            if self.snapshot.borrow().version >= version || parked != crate::host::Parked::Woken {
                return !deadline.has_passed() && !crate::host::fiber::is_cancelled();
            }
        }
    }
}
