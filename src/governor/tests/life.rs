//! Any life of a cluster: whatever happens to it, the governor comes to rest, proposes nothing that the catalog refuses,
//! and leaves things as they should be.

mod world;

use catalog::{InstanceState, Op, ReplicasetState};
use proptest::prelude::*;
use std::collections::BTreeSet;
use world::World;

/// Carries out one random event.
fn happen(world: &mut World, [kind, a, b, c]: [u8; 4]) {
    let names: Vec<String> = world.state.topology.instances.keys().map(ToString::to_string).collect();
    let name = names[usize::from(a) % names.len()].clone();
    let expelled = world.state.topology.instances[&name.as_str().into()].state == InstanceState::Expelled;
    let replicasets: Vec<String> = world.state.topology.replicasets.keys().map(ToString::to_string).collect();
    let mut said = String::new();
    match kind % 12 {
        0..=3 => _ = world.join(&format!("n{}", b % 12), ["", "a", "b", "c"][usize::from(c % 4)], "default"),
        // Those who lead Raft live: without a leader there is no governor.
        4 | 5 if names.len() > 1 && !world.leads(&name) => world.kill(&name),
        6 | 7 if !expelled => _ = world.restart(&name),
        8 => world.ask(world::expel(&name), &mut said).unwrap(),
        9 => {
            let replicaset = &replicasets[usize::from(b) % replicasets.len()];
            world.ask(world::weight(replicaset, u32::from(c % 3)), &mut said).unwrap();
        }
        10 => world.ask(world::create_table(&format!("t{}", b % 3)), &mut said).unwrap(),
        _ => {
            world.moves_held = b.is_multiple_of(2);
            world.write(&name, c.into());
        }
    }
    // Who has a tail throws its data away as soon as it does not vote.
    for name in world.strays() {
        if world.state.topology.instances[&name.as_str().into()].state != InstanceState::Expelled {
            world.wipe(&name).unwrap();
        }
    }
    world.pass(2000);
}

/// What holds when the governor has come to rest.
fn assert_in_order(world: &World, log: &str) {
    let topology = &world.state.topology;
    for replicaset in topology.replicasets.values() {
        let heirs =
            topology.members(&replicaset.name).filter(|m| m.is_online() && replicaset.in_sync.contains(&m.name));
        let master = replicaset.master.as_ref().map(|master| &topology.instances[master]);
        let fine = master.is_some_and(|master| master.is_online()) || heirs.count() == 0;
        assert!(fine, "{} could have a master\n{log}", replicaset.name);
    }
    assert!(world.raft.voters.len() % 2 == 1, "{:?}\n{log}", world.raft);
    let known = |i: &&catalog::Instance| i.state != InstanceState::Expelled;
    let members: BTreeSet<u64> = topology.instances.values().filter(known).map(|i| i.raft_id).collect();
    assert_eq!(world.raft.voters.union(&world.raft.learners).copied().collect::<BTreeSet<_>>(), members, "{log}");
    assert!(world.state.placement.maps.len() == 1, "nothing is distributed\n{log}");
    let all_online = topology.instances.values().filter(known).all(|i| i.is_online());
    if all_online && !world.moves_held {
        assert!(world.state.schema.pending.is_none(), "{log}");
        let map = world.state.placement.map(&"default".into()).unwrap();
        let leaving: Vec<_> = topology.instances.values().filter(|i| i.expelling && known(i)).collect();
        let heavy = |r: &catalog::Replicaset| r.weight > 0 && !topology.is_draining(&r.name);
        let nowhere_to = !topology.replicasets.values().any(heavy);
        assert!(leaving.is_empty() || nowhere_to, "{leaving:?}\n{log}");
        let weigh = |r: &&catalog::Replicaset| r.state == ReplicasetState::Ready && r.weight == 1;
        let counts: Vec<u32> = topology.replicasets.values().filter(weigh).map(|r| map.count_of(&r.name)).collect();
        let (least, most) = (counts.iter().min().unwrap_or(&0), counts.iter().max().unwrap_or(&0));
        assert!(most - least <= 1, "{counts:?}\n{log}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_governor_comes_to_rest(factor in 1u32..4, events in proptest::collection::vec(any::<[u8; 4]>(), 1..40)) {
        let mut world = World::default();
        world.bootstrap("i1", "", factor).unwrap();
        // Without it a move of few buckets at a time takes many steps.
        world.ask(Op::PutSetting { name: "move_buckets_max".into(), value: model::Value::Integer(100_000) }, &mut String::new()).unwrap();
        let mut log = String::new();
        for event in events {
            happen(&mut world, event);
            if let Err(error) = world.run_plans(None, &mut log) {
                world.show(&mut log).unwrap();
                panic!("{error}\n{log}");
            }
        }
        world.moves_held = false;
        world.pass(700_000);
        world.finish_moves(&mut log).unwrap();
        world.run_plans(None, &mut log).unwrap();
        world.show(&mut log).unwrap();
        assert_in_order(&world, &log);
    }
}
