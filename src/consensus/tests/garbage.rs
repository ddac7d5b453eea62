//! Whatever arrives, no node panics: messages of a living cluster, changed at random, and plain garbage.

mod common;

use common::{Cluster, Disk};
use consensus::{Outgoing, Rng, Role};
use model::{Code, RaftId};
use prost::Message as _;
use raft::eraftpb::{ConfState, Entry, Message, Snapshot, SnapshotMetadata};

fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    cluster.bootstrap(1);
    (2..=4).for_each(|raft_id| cluster.start(raft_id, Disk::default()));
    cluster.node(1).campaign().unwrap();
    cluster.stabilize();
    cluster.node(1).propose_members(&[1, 2, 3], &[4], Vec::new()).unwrap();
    cluster.stabilize();
    cluster
}

/// A message that differs from an honest one in a few places.
fn distort(rng: &mut Rng, bytes: &[u8]) -> Vec<u8> {
    if rng.chance(1, 4) {
        let mut bytes = bytes.to_vec();
        let at = rng.range(0, bytes.len() as u64) as usize;
        bytes[at] = rng.draw() as u8;
        return bytes;
    }
    let Ok(mut message) = Message::decode(bytes) else { return Vec::new() };
    for _ in 0..rng.range(1, 4) {
        let number = *rng.pick(&[0, 1, 2, 3, 5, 6, 7, 8, 20, (1 << 62) - 1, u64::MAX]).unwrap();
        match rng.range(0, 16) {
            0 => message.msg_type = rng.range(0, 22) as i32,
            1 => message.term = number,
            2 => message.log_term = number,
            3 => message.index = number,
            4 => message.commit = number,
            5 => message.commit_term = number,
            6 => message.reject = !message.reject,
            7 => message.reject_hint = number,
            8 => message.request_snapshot = number % 2,
            9 => message.from = number % 6,
            10 => message.entries.clear(),
            11 => message.entries.push(distorted_entry(rng, number)),
            12 => message.entries.iter_mut().for_each(|entry| entry.index = entry.index.wrapping_add(number)),
            13 => message.context = vec![7; number as usize % 30],
            14 => message.priority = number as i64,
            _ => message.snapshot = Some(distorted_snapshot(rng, number)),
        }
    }
    message.encode_to_vec()
}

fn distorted_entry(rng: &mut Rng, number: u64) -> Entry {
    let data = vec![rng.draw() as u8; rng.range(0, 9) as usize];
    Entry { entry_type: rng.range(0, 4) as i32, index: number, term: rng.range(0, 4), data, ..Entry::default() }
}

fn distorted_snapshot(rng: &mut Rng, number: u64) -> Snapshot {
    let ids = |rng: &mut Rng| (0..rng.range(0, 4)).map(|_| rng.range(0, 6)).collect::<Vec<u64>>();
    let conf_state = ConfState {
        voters: ids(rng),
        learners: ids(rng),
        voters_outgoing: if rng.chance(1, 2) { ids(rng) } else { Vec::new() },
        learners_next: if rng.chance(1, 4) { ids(rng) } else { Vec::new() },
        auto_leave: rng.chance(1, 2),
    };
    let metadata = SnapshotMetadata { conf_state: Some(conf_state), index: number, term: rng.range(0, 4) };
    Snapshot { data: Vec::new(), metadata: Some(metadata) }
}

/// Lives on for a while, with every message followed by distorted ones. The members may end up anywhere, as liars among
/// them can always have it: what may not be is a panic.
fn live(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut cluster = cluster();
    for step in 0..60 {
        let raft_id: RaftId = rng.range(1, 5);
        match rng.range(0, 8) {
            0 => drop(cluster.node(raft_id).propose(format!("p{step}").into_bytes(), Vec::new())),
            1 => drop(cluster.node(raft_id).read_index(step)),
            2 => drop(cluster.node(raft_id).campaign()),
            3 => drop(cluster.node(raft_id).transfer_leader(rng.range(1, 5))),
            4 => drop(cluster.node(raft_id).propose_members(&[1, raft_id.max(2)], &[], Vec::new())),
            5 => {
                let applied = cluster.node(raft_id).status().applied;
                cluster.node(raft_id).compact(applied).unwrap();
            }
            _ => (0..12).for_each(|_| cluster.node(raft_id).tick().unwrap()),
        }
        let busy: Vec<RaftId> = cluster.instances.keys().copied().filter(|_| rng.chance(3, 4)).collect();
        for raft_id in busy {
            while cluster.ready(raft_id) || cluster.persist(raft_id) {}
        }
        for _ in 0..rng.range(0, 12) {
            let Some((_, Outgoing { to, bytes, .. })) = cluster.queue.pop_front() else { break };
            let bytes = if rng.chance(1, 3) { distort(&mut rng, &bytes) } else { bytes };
            if let Some(instance) = cluster.instances.get_mut(&to) {
                let _ = instance.node.step(&bytes);
            }
        }
    }
}

#[test]
fn distorted_messages_never_panic() {
    (0..400).for_each(live);
}

#[test]
fn messages_that_are_not_for_this_node_or_no_node_s_to_send_are_refused() {
    let mut cluster = cluster();
    let honest = Message { msg_type: 8, to: 1, from: 2, term: 2, ..Message::default() };
    let heartbeat = |message: Message| message.encode_to_vec();
    cluster.node(1).step(&heartbeat(honest.clone())).unwrap();
    let refused = [
        Message { to: 2, ..honest.clone() },
        Message { from: 0, ..honest.clone() },
        Message { from: 1, ..honest.clone() },
        Message { term: 0, ..honest.clone() },
        Message { term: u64::MAX, ..honest.clone() },
        Message { msg_type: 0, ..honest.clone() },
        Message { msg_type: 2, ..honest.clone() },
        Message { msg_type: 12, ..honest.clone() },
        Message { msg_type: 13, ..honest.clone() },
        Message { msg_type: 99, ..honest.clone() },
    ];
    for message in refused {
        let error = cluster.node(1).step(&heartbeat(message.clone())).unwrap_err();
        assert_eq!(error.code, Code::Argument, "{message:?}");
    }
    assert_eq!(cluster.node(1).step(b"\xff\xff").unwrap_err().code, Code::Argument);
}

/// A node that comes back with an empty disk under its old number is told so, instead of taking part with a log that others
/// have counted on.
#[test]
fn a_node_that_lost_its_log_says_so() {
    let mut cluster = cluster();
    cluster.start(3, Disk::default());
    (0..2).for_each(|_| cluster.node(1).tick().unwrap());
    while cluster.ready(1) || cluster.persist(1) {}
    let refusals: Vec<Code> = std::iter::from_fn(|| cluster.queue.pop_front())
        .filter(|(_, message)| message.to == 3)
        .filter_map(|(_, message)| cluster.instances.get_mut(&3).unwrap().node.step(&message.bytes).err())
        .map(|error| error.code)
        .collect();
    assert_eq!(refusals, [Code::Corrupted]);
}

/// The only voter comes back without entries that its learner has applied, and appends others in their place.
#[test]
fn a_learner_notices_that_its_leader_lost_what_was_committed() {
    let mut cluster = Cluster::default();
    cluster.bootstrap(1);
    cluster.start(2, Disk::default());
    cluster.node(1).campaign().unwrap();
    cluster.stabilize();
    cluster.node(1).propose_members(&[1], &[2], Vec::new()).unwrap();
    cluster.stabilize();
    let before = cluster.instances[&1].disk.clone();
    for _ in 0..3 {
        cluster.node(1).propose(b"lost".to_vec(), Vec::new()).unwrap();
    }
    cluster.stabilize();
    cluster.start(1, before);
    cluster.node(1).campaign().unwrap();
    let mut refusals = Vec::new();
    for _ in 0..10 {
        cluster.node(1).tick().unwrap();
        while cluster.ready(1) || cluster.persist(1) {}
        while let Some((_, message)) = cluster.queue.pop_front() {
            let node = &mut cluster.instances.get_mut(&message.to).unwrap().node;
            refusals.extend(node.step(&message.bytes).err().map(|error| (message.to, error.code)));
        }
        while cluster.ready(2) || cluster.persist(2) {}
    }
    assert!(refusals.contains(&(2, Code::Corrupted)), "{refusals:?}");
}

/// A snapshot has arrived and is not on disk yet: the entries there, which another leader never committed, are not what is
/// committed here, when an append that the snapshot overtook has others in their place.
#[test]
fn entries_that_a_snapshot_replaces_do_not_count_as_committed() {
    let mut cluster = cluster();
    cluster.isolated = [2, 3].into();
    let tail = cluster.node(1).propose(b"tail".to_vec(), Vec::new()).unwrap();
    cluster.stabilize();
    cluster.isolated = [1, 4].into();
    while cluster.node(2).role() != Role::Leader {
        [2, 3].iter().for_each(|raft_id| cluster.node(*raft_id).tick().unwrap());
        cluster.node(2).campaign().unwrap();
        cluster.stabilize();
    }
    for _ in 0..3 {
        cluster.node(2).propose(b"kept".to_vec(), Vec::new()).unwrap();
    }
    cluster.stabilize();
    cluster.isolated = [1].into();
    let (mut overtaken, mut has_snapshot) = (None, false);
    for _ in 0..100 {
        cluster.node(2).tick().unwrap();
        for raft_id in [2, 3, 4] {
            while !has_snapshot && (cluster.ready(raft_id) || cluster.persist(raft_id)) {}
        }
        while let Some((_, Outgoing { to, bytes, is_snapshot })) = cluster.queue.pop_front() {
            let message = Message::decode(bytes.as_slice()).unwrap();
            if to == 4 && message.entries.iter().any(|entry| entry.index == tail.index && entry.term > tail.term) {
                overtaken = Some(bytes);
                let applied = cluster.node(2).status().applied;
                cluster.node(2).compact(applied).unwrap();
                continue;
            }
            has_snapshot |= to == 4 && is_snapshot;
            cluster.node(to).step(&bytes).unwrap();
        }
    }
    assert!(has_snapshot);
    cluster.node(4).step(&overtaken.unwrap()).unwrap();
}
