//! What a node bounds: the size of a proposal, what waits for a majority, what one message or one `Ready` carries.

mod common;

use common::{Cluster, Disk};
use consensus::{Config, Log, Node};
use model::Code;
use prost::Message as _;
use raft::eraftpb::Message;

/// The leader of two voters, the other of which never answers again.
fn lonely_leader(tune: fn(&mut Config)) -> Node {
    let mut cluster = Cluster { tune: Some(tune), ..Cluster::default() };
    cluster.bootstrap(1);
    cluster.start(2, Disk::default());
    cluster.node(1).campaign().unwrap();
    cluster.stabilize();
    cluster.node(1).propose_members(&[1, 2], &[], Vec::new()).unwrap();
    cluster.stabilize();
    cluster.instances.remove(&1).unwrap().node
}

#[test]
fn a_proposal_is_bounded() {
    let mut node = lonely_leader(|config| config.entry_bytes_max = 10);
    assert_eq!(node.propose(vec![0; 8], vec![0; 3]).unwrap_err().code, Code::LimitExceeded);
    node.propose(vec![0; 8], vec![0; 2]).unwrap();
}

#[test]
fn what_waits_for_a_majority_is_bounded() {
    let mut node = lonely_leader(|config| config.uncommitted_bytes_max = 100);
    let accepted = (0..20).take_while(|_| node.propose(vec![0; 10], Vec::new()).is_ok()).count();
    assert_eq!(accepted, 10);
    assert_eq!(node.propose(vec![0; 10], Vec::new()).unwrap_err().code, Code::NoLeader);
}

fn propose_20(node: &mut Node) {
    for _ in 0..20 {
        node.propose(vec![0; 30], Vec::new()).unwrap();
    }
}

#[test]
fn messages_and_what_is_handed_out_are_bounded() {
    let mut node = lonely_leader(|config| config.message_bytes_max = 100);
    propose_20(&mut node);
    let ready = node.ready().unwrap();
    let appends: Vec<Message> =
        ready.messages.iter().map(|message| Message::decode(message.bytes.as_slice()).unwrap()).collect();
    assert!(appends.iter().all(|message| message.entries.len() <= 3), "{appends:?}");

    let mut alone = Node::new(Config { committed_bytes_max: 100, ..Config::new(1, 1) }, Log::bootstrap(1).0).unwrap();
    alone.campaign().unwrap();
    propose_20(&mut alone);
    let mut batches = Vec::new();
    while alone.has_ready() {
        let ready = alone.ready().unwrap();
        batches.push(ready.committed.len());
        alone.persisted(ready.number).unwrap();
    }
    assert_eq!(batches.iter().sum::<usize>(), 21);
    assert!(batches.iter().all(|entries| *entries <= 5), "{batches:?}");
}

#[test]
fn settings_that_can_not_be_are_refused() {
    let refused = |config: Config| Node::new(config, Log::empty()).err().map(|error| error.code) == Some(Code::Config);
    let good = || Config::new(1, 1);
    assert!(!refused(good()));
    assert!(refused(Config { raft_id: 0, ..good() }));
    assert!(refused(Config { heartbeat_ticks: 0, ..good() }));
    assert!(refused(Config { election_ticks: 2, ..good() }));
    assert!(refused(Config { snapshot_ticks: 10, ..good() }));
    assert!(refused(Config { inflight_messages_max: 0, ..good() }));
    assert!(refused(Config { uncommitted_bytes_max: 1, ..good() }));
}
