//! What a seed stands for: the cluster's size and settings, and how bad things get.

use crate::network::Quality;
use catalog::TierSpec;
use consensus::Rng;
use model::Value;
use std::collections::BTreeMap;

pub const BUCKETS: u32 = 8;
pub const KEYS: u64 = 12;

/// Times are in microseconds of the pretended clock.
#[derive(Clone, Debug)]
pub struct Terms {
    pub nodes: u64,
    pub tier: TierSpec,
    pub settings: BTreeMap<String, Value>,
    pub quality: Quality,
    pub disk_latency_max_us: u64,
    pub disk_stall_permille: u64,
    pub faults_every_us: u64,
    pub clients_every_us: u64,
    pub operator_every_us: u64,
    pub faulty_us: u64,
    pub log_entries_max: u64,
    pub message_bytes_max: u64,
}

impl Terms {
    pub fn draw(rng: &mut Rng) -> Self {
        let quality = Quality {
            loss_permille: *rng.pick(&[0, 5, 20]).unwrap_or(&0),
            duplicate_permille: *rng.pick(&[0, 10, 50]).unwrap_or(&0),
            delay_min_us: 100,
            delay_max_us: *rng.pick(&[1_000, 5_000, 40_000]).unwrap_or(&0),
            straggler_permille: *rng.pick(&[0, 5, 20]).unwrap_or(&0),
        };
        let replication_factor = rng.range(2, 4) as u32;
        let replicasets = if replication_factor == 2 { 2 } else { rng.range(1, 3) };
        let min_in_sync = *rng.pick(&[1, 1, 2]).unwrap_or(&1);
        let mut settings = BTreeMap::from([("min_in_sync".to_owned(), Value::Integer(min_in_sync))]);
        settings.insert("move_buckets_max".into(), Value::Integer(2));
        settings.insert("ack_timeout_ms".into(), Value::Integer(3_000));
        Self {
            nodes: u64::from(replication_factor) * replicasets,
            tier: TierSpec { name: "default".into(), replication_factor, bucket_count: BUCKETS, can_vote: true },
            settings,
            quality,
            disk_latency_max_us: *rng.pick(&[100, 2_000, 20_000]).unwrap_or(&0),
            disk_stall_permille: *rng.pick(&[0, 5, 20]).unwrap_or(&0),
            faults_every_us: *rng.pick(&[500_000, 1_500_000, 3_000_000]).unwrap_or(&0),
            clients_every_us: *rng.pick(&[5_000, 20_000, 50_000]).unwrap_or(&0),
            operator_every_us: 4_000_000,
            faulty_us: *rng.pick(&[15_000_000, 25_000_000, 40_000_000]).unwrap_or(&0),
            log_entries_max: *rng.pick(&[10, 50, 200]).unwrap_or(&0),
            message_bytes_max: *rng.pick(&[4_000, 1 << 20]).unwrap_or(&0),
        }
    }
}
