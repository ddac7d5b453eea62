//! What a seed stands for: how large the cluster is, how bad its network, its disks and its luck.

use crate::network::Quality;
use consensus::Rng;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub seed: u64,
    /// Something built wrongly on purpose, to prove that the invariants notice.
    pub defect: Option<Defect>,
    /// Whether the trace is kept for reading.
    pub is_traced: bool,
}

impl Options {
    pub fn new(seed: u64) -> Self {
        Self { seed, defect: None, is_traced: false }
    }
}

/// Mistakes that a driver of the consensus room could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// A restarted node does not know whom it voted for.
    ForgetsVote,
    /// Acknowledges entries before they are on disk.
    SendsBeforeDurable,
    /// The disk says that it has written what it has not.
    LosesSyncedWrites,
    /// Reads are answered from the state at hand.
    ReadsAtOnce,
    /// A command has another effect on one instance than on the others.
    AppliesDifferently,
    /// What a restarted instance had applied is applied to its state again.
    AppliesTwice,
    /// Restarts on an empty disk under its old number.
    ComesBackEmpty,
    /// Nobody's clock ticks any more once the faults have stopped.
    ClockStops,
    /// A master answers a write when its own disk has it.
    AcknowledgesAlone,
    /// Nobody looks whether rows are of the replicaset's history.
    ForgetsCuts,
    /// A member follows the master of a term before it knows what that term kept.
    FollowsEarly,
    /// Monotonic clocks go back and forth, which none may.
    ClockLeaps,
    /// A process goes by the incarnation that it was first told.
    KeepsIncarnation,
    /// The source of a move takes writes while the destination may own the bucket any moment.
    WritesWhileClosed,
    /// A stray instance throws its data away by what it knows of its vote, though it was ready and may get one.
    WipesAtOnce,
    /// A later life of a process takes itself for the first as long as it finds itself joining.
    ForgetsEarlierLives,
    /// A leader that has just taken office takes everybody for offline from whom it has not heard yet.
    JudgesUnheard,
    /// A leader goes by whom a master waited for before the catalog changed.
    TrustsOldPromises,
}

/// The numbers of one run, drawn from its seed. Times are in microseconds of the pretended clock.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub instances: u64,
    pub quality: Quality,
    pub disk_latency_max_us: u64,
    /// How many writes take twenty times as long, and all behind them wait.
    pub disk_stall_permille: u64,
    pub faults_every_us: u64,
    pub clients_every_us: u64,
    pub members_every_us: u64,
    pub faulty_us: u64,
    /// How many entries an instance keeps in its log.
    pub log_entries_max: u64,
    pub message_bytes_max: u64,
    pub committed_bytes_max: u64,
    pub inflight_messages_max: usize,
}

impl Scenario {
    pub fn draw(rng: &mut Rng) -> Self {
        let quality = Quality {
            loss_permille: *rng.pick(&[0, 10, 50, 200]).unwrap_or(&0),
            duplicate_permille: *rng.pick(&[0, 10, 100]).unwrap_or(&0),
            delay_min_us: 100,
            delay_max_us: *rng.pick(&[1_000, 5_000, 50_000, 200_000]).unwrap_or(&0),
            straggler_permille: *rng.pick(&[0, 5, 50]).unwrap_or(&0),
        };
        Self {
            instances: rng.range(1, 8),
            quality,
            disk_latency_max_us: *rng.pick(&[100, 2_000, 30_000]).unwrap_or(&0),
            disk_stall_permille: *rng.pick(&[0, 10, 50]).unwrap_or(&0),
            faults_every_us: *rng.pick(&[300_000, 800_000, 2_000_000]).unwrap_or(&0),
            clients_every_us: *rng.pick(&[10_000, 40_000, 100_000]).unwrap_or(&0),
            members_every_us: *rng.pick(&[500_000, 2_000_000, 6_000_000]).unwrap_or(&0),
            faulty_us: *rng.pick(&[10_000_000, 20_000_000, 40_000_000]).unwrap_or(&0),
            log_entries_max: *rng.pick(&[5, 30, 200]).unwrap_or(&0),
            message_bytes_max: *rng.pick(&[500, 4_000, 1 << 20]).unwrap_or(&0),
            committed_bytes_max: *rng.pick(&[100, 1000, 4 << 20]).unwrap_or(&0),
            inflight_messages_max: *rng.pick(&[1, 4, 64]).unwrap_or(&1),
        }
    }
}
