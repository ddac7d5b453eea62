"""What a change of master keeps is all that there is afterwards: nobody brings back what it left behind."""

import concurrent.futures
import re
import time

import msgpack
import pytest
import tarantool
from harness import wait_until

TIMEOUT = 20201
ROWS = 1000
BULK = 20_000


def uuid(instance):
    return instance.eval("return box.info.uuid")[0]


@pytest.fixture
def cluster(workshop):
    return workshop.pairs()


def key_of(instance, name):
    """A key that lives on the replicaset, of which `instance` is the master."""
    rows = instance.eval("""
        for id = 1, 10000 do
            if box.space.t:get({require('picodata').bucket_id('t', id), id}) ~= nil then return id end
        end""")
    assert rows, f"no row of t is on {name}"
    return rows[0]


def write_a_tail(master, replicas, key, value):
    """Has the master take a write that nobody else has, nor gets."""
    for replica in replicas:
        replica.eval("box.cfg{replication = {}}")
    master.eval(
        """
        local key, value = ...
        local before = box.info.lsn
        require('fiber').create(function() require('picodata').crud.replace('t', {key, value}) end)
        while box.info.lsn == before do require('fiber').sleep(0.001) end
        """,
        key,
        value,
    )


def test_a_write_that_nobody_acknowledged_never_comes_back_over_one_that_was(cluster):
    asked_rows = [[i, 0] for i in range(1, ROWS)]
    cluster[0].call("crud.insert_many", "t", asked_rows)
    name, a, b, asked = cluster.pick()
    key, old_uuid = key_of(a, name), uuid(a)
    write_a_tail(a, [b], key, 1)
    a.kill()
    wait_until(lambda: asked.replicaset(name)["master"] == b.name, "the replica to be master")
    asked.call("crud.replace", "t", [key, 2])
    a.start()
    wait_until(lambda: asked.in_sync(name) == {a.name, b.name}, "the old master to be in sync again")
    assert uuid(a) != old_uuid, "its data was thrown away"
    b.kill()
    wait_until(lambda: asked.replicaset(name)["master"] == a.name, "the old master to be master again")
    assert asked.call("crud.get", "t", key)["rows"] == [[key, 2]]
    b.start()
    wait_until(lambda: asked.in_sync(name) == {a.name, b.name}, "both to be in sync again")
    assert asked.call("crud.get", "t", key)["rows"] == [[key, 2]]
    counts = [i.eval("return box.space.t:count()")[0] for i in (a, b)]
    assert counts[0] == counts[1]
    voters = [i["name"] for i in asked.status()["instances"] if i["voter"]]
    assert len(voters) == 3, voters


def with_another(note, **values):
    """The note of whom an instance followed last, with other values."""
    return msgpack.packb({**msgpack.unpackb(note), **values})


# What happens to the note of an old master with a tail, and whether that is known before its rows are read.
NOTES = {
    "kept": (lambda note: note, True),
    "of a later term": (lambda note: with_another(note, term=1000), False),
    "of another start of the machine": (lambda note: with_another(note, machine=1), False),
    "of nobody, so that the peers are asked": (lambda note: with_another(note, members=[]), True),
    "cut off": (lambda note: note[:-2], False),
    "missing": (lambda note: None, False),
}


@pytest.mark.parametrize("change", NOTES)
def test_an_old_master_learns_that_it_has_a_tail_before_its_rows_are_read(workshop, change):
    """Or after that, when what it noted about itself says nothing."""
    cluster = workshop.cluster(3, replication_factor=3).start()
    cluster[0].sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    cluster.wait_in_sync()
    name = cluster[0].status()["replicasets"][0]["name"]
    old = cluster.master_of(name)
    others = [i for i in cluster if i is not old]
    write_a_tail(old, others, 1, 1)
    old.kill()
    note = old.folder / "data" / "picodata.followed"
    edit, is_early = NOTES[change]
    edited = edit(note.read_bytes())
    note.unlink()
    if edited is not None:
        note.write_bytes(edited)
    wait_until(lambda: others[0].in_sync(name) == {i.name for i in others}, "another master")
    before = len(old.log())
    old.start()
    wait_until(lambda: others[0].in_sync(name) == {i.name for i in cluster}, "the old master to be in sync again")
    until_thrown_away = old.log()[before:].split("throws its data away")[0]
    assert ("recovery start" not in until_thrown_away) == is_early
    assert old.sql("SELECT count(*) FROM t") == [[0]]
    wait_until(lambda: all(i["voter"] for i in old.status()["instances"]), "all to vote again")


def test_a_master_that_comes_back_with_nothing_but_what_was_kept_keeps_its_data(cluster):
    cluster[0].call("crud.insert_many", "t", [[i, 0] for i in range(1, ROWS)])
    name, a, b, asked = cluster.pick()
    before = uuid(a)
    a.kill()
    wait_until(lambda: asked.replicaset(name)["master"] == b.name, "the replica to be master")
    a.start()
    wait_until(lambda: asked.in_sync(name) == {a.name, b.name}, "the old master to be in sync again")
    assert uuid(a) == before


def test_a_master_that_was_stopped_and_finds_another_in_its_place_begins_anew(cluster):
    """Also without a restart: it wakes up as the master that it was."""
    cluster[0].call("crud.insert_many", "t", [[i, 0] for i in range(1, ROWS)])
    name, a, b, asked = cluster.pick()
    key, pid = key_of(a, name), a.process.pid
    write_a_tail(a, [b], key, 1)
    a.pause()
    wait_until(lambda: asked.replicaset(name)["master"] == b.name, "the replica to be master")
    asked.call("crud.replace", "t", [key, 2])
    a.resume()
    wait_until(lambda: asked.in_sync(name) == {a.name, b.name}, "the old master to be in sync again")
    assert a.process.pid == pid and a.is_running()
    # It had called itself ready: it might have been on its way to a vote that it had not heard of.
    assert "begins anew" in a.log() and "begins another life" in a.log()
    stored = [a.call("bucket_id", "t", key), key]
    assert a.eval("return box.space.t:get(...).v", stored)[0] == 2


def test_an_instance_that_begins_anew_copies_its_rows_in_seconds(workshop):
    """The figure stands in the record on failover; here only that it ends and others go on meanwhile."""
    cluster = workshop.cluster(3, replication_factor=3, memtx_memory=256 << 20).start()
    asked = cluster[0]
    asked.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    cluster.wait_in_sync()
    for start in range(0, BULK, 10_000):
        asked.call("crud.insert_many", "t", [[i, 0] for i in range(start, start + 10_000)])
    name = asked.status()["replicasets"][0]["name"]
    old = cluster.master_of(name)
    others = [i for i in cluster if i is not old]
    write_a_tail(old, others, 1, 1)
    old.kill()
    wait_until(lambda: others[0].replicaset(name)["master"] in {i.name for i in others}, "another master")
    began = time.monotonic()
    old.start()
    wait_until(lambda: old.name in others[0].in_sync(name), "the old master to be in sync again")
    print(f"in sync {time.monotonic() - began:.2f} s after its start")
    assert old.eval("return box.space.t:count()")[0] == BULK
    assert old.call("crud.get", "t", 1)["rows"] == [[1, 0]]


def test_a_replica_that_can_not_follow_is_counted_out_and_begins_anew(cluster):
    name, master, replica, asked = cluster.pick()
    cluster[0].call("crud.insert_many", "t", [[i, 0] for i in range(1, ROWS)])
    key = key_of(master, name)
    asked.call("crud.delete", "t", key)
    stored = [asked.call("bucket_id", "t", key), key, 7]
    # A row that only the replica has, in the way of one that the master writes.
    replica.eval("local row = ... box.cfg{read_only = false} box.space.t:insert(row) box.cfg{read_only = true}", stored)
    before = uuid(replica)
    asked.call("crud.insert", "t", [key, 1])
    # The master answered, so it knows; another may hear of it a moment later.
    assert master.in_sync(name) == {master.name}, "the write did not wait for it any longer"
    wait_until(lambda: uuid(replica) != before, "the replica to begin anew")
    wait_until(lambda: asked.in_sync(name) == {master.name, replica.name}, "the replica to be in sync again")
    assert "begun again" in replica.log()
    assert replica.eval("return box.space.t:get(...)", stored[:2])[0][2] == 1


def test_an_instance_whose_copy_fails_tries_again(workshop):
    """It was told whom to copy, and that one is gone."""
    failpoint = workshop.folder / "failpoint"
    cluster = workshop.cluster(3, replication_factor=3, env={"PICODATA_FAILPOINTS": str(failpoint)}).start()
    asked = cluster[0]
    asked.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    cluster.wait_in_sync()
    asked.call("crud.insert_many", "t", [[i, 0] for i in range(1, ROWS)])
    name = asked.status()["replicasets"][0]["name"]
    old = cluster.master_of(name)
    others = [i for i in cluster if i is not old]
    write_a_tail(old, others, 1, 1)
    old.kill()
    wait_until(lambda: others[0].in_sync(name) == {i.name for i in others}, "the others to be in sync")
    # Of the two that are left only the leader of Raft votes, which is therefore not the one that dies.
    wait_until(lambda: others[0].status()["leader"] in {i.name for i in others}, "a leader of Raft among them")
    rest = cluster.leader()
    donor = next(i for i in others if i is not rest)
    rest.call("switchover", name, donor.name)
    failpoint.write_text("copy.begins stall 3000")
    old.start()
    wait_until(lambda: not failpoint.exists(), "it to have its place, and no copy yet")
    assert "throws its data away" in old.log()
    donor.kill()
    wait_until(lambda: rest.replicaset(name)["master"] == rest.name, "a third master")
    wait_until(lambda: rest.in_sync(name) == {rest.name, old.name}, "the old master in sync", 60)
    assert old.eval("return box.space.t:count()")[0] == ROWS - 1
    assert "is tried again" in old.log()


def expel_the_leader(cluster):
    """The leader of Raft, made a master first."""
    leader = cluster.leader()
    asked = next(i for i in cluster.running() if i is not leader)
    home = next(i["replicaset"] for i in asked.status()["instances"] if i["name"] == leader.name)
    if asked.replicaset(home)["master"] != leader.name:
        asked.call("switchover", home, leader.name)
    asked.call("expel", leader.name)
    leader.exit_code()
    wait_until(lambda: asked.replicaset(home)["master"] not in (None, leader.name), "another master")
    return asked


def test_the_leader_of_raft_can_be_expelled_while_it_is_a_master(workshop):
    cluster = workshop.cluster(6, replication_factor=3).start().wait_balanced()
    cluster[0].sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    cluster.wait_in_sync()
    cluster[0].call("crud.insert_many", "t", [[i, i] for i in range(ROWS)])
    for _ in range(2):
        assert expel_the_leader(cluster).sql("SELECT count(*) FROM t") == [[ROWS]]


def test_a_new_master_does_not_show_what_others_in_sync_may_lack(workshop):
    """It would be lost with this master if one of the others were the next."""
    cluster = workshop.cluster(3, replication_factor=3).start()
    cluster[0].sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    cluster.wait_in_sync()
    cluster[0].call("set_setting", "min_in_sync", 3)
    cluster[0].call("set_setting", "ack_timeout_ms", 300)
    name = cluster[0].status()["replicasets"][0]["name"]
    old = cluster.master_of(name)
    heir, other = [i for i in cluster if i is not old]
    write_a_tail(old, [other], 1, 1)
    wait_until(lambda: heir.eval("return box.space.t:count()")[0] == 1, "one of them to have the row")
    old.kill()
    wait_until(lambda: heir.replicaset(name)["master"] == heir.name, "another master")
    for ask in (lambda: heir.call("crud.get", "t", 1), lambda: heir.sql("SELECT v FROM t")):
        with pytest.raises(tarantool.error.DatabaseError) as raised:
            ask()
        assert raised.value.args[0] == TIMEOUT, "the old master is in sync still, and nobody knows what it has"
    heir.call("set_setting", "min_in_sync", 1)
    wait_until(lambda: heir.in_sync(name) == {heir.name, other.name}, "the others to be in sync")
    assert heir.sql("SELECT v FROM t") == [[1]]


def test_a_replica_that_stays_connected_and_acknowledges_nothing_is_counted_out(workshop):
    """Writes go on without it; it is counted in again when it has what they wrote."""
    cluster, relay, master, replica = workshop.pair_behind_relay()
    name = master.status()["replicasets"][0]["name"]
    for instance in cluster:
        instance.eval("box.cfg{replication_timeout = 600}")
    relay.flowing.clear()
    try:
        master.call("crud.replace", "t", [1, 1])
        assert master.in_sync(name) == {master.name}
        assert replica.eval("return box.space.t:count()") == [0]
        master.call("crud.replace", "t", [2, 2])
        assert master.in_sync(name) == {master.name}
        assert master.eval("return box.info.replication[2].downstream.status") == ["follow"]
    finally:
        relay.flowing.set()
    cluster.wait_in_sync()
    assert replica.eval("return box.space.t:count()") == [2]


def taken_for_offline(leader):
    """Whom this instance took for offline as the leader."""
    return set(re.findall(r"governor: liveness: propose: (\w+) is Offline", leader.log()))


def test_a_new_leader_takes_nobody_for_offline_whom_it_has_not_heard_yet(workshop):
    cluster = workshop.cluster(5, replication_factor=5).start()
    cluster.wait_in_sync()
    old = cluster.leader()
    old.kill()
    rest = [i for i in cluster if i is not old]
    wait_until(lambda: rest[0].state_of(old) == "Offline", "the old leader to be offline")
    wait_until(lambda: rest[0].status()["leader"] in {i.name for i in rest}, "a leader")
    assert {old.name} == set().union(*(taken_for_offline(i) for i in rest))


def test_a_leader_that_stood_still_takes_nobody_for_offline(workshop):
    """It is the only voter, so nobody else leads meanwhile."""
    cluster = workshop.cluster(2, replication_factor=2).start()
    cluster.wait_in_sync()
    leader = cluster.leader()
    other = next(i for i in cluster if i is not leader)
    leader.pause()
    time.sleep(2)  # So long it stands still, which is longer than `offline_after_ms`.
    leader.resume()
    # It has governed since: this takes a change of the catalog, and a step of the governor.
    other.sql("CREATE TABLE t (id INT PRIMARY KEY)")
    assert taken_for_offline(leader) == set()


def test_a_write_is_not_answered_for_fewer_members_than_min_in_sync_wants(cluster):
    """Its replica, the old master, has a tail: it is not in sync any more as it begins anew."""
    cluster[0].call("crud.insert_many", "t", [[i, 0] for i in range(1, ROWS)])
    name, a, b, asked = cluster.pick()
    key = key_of(a, name)
    asked.call("set_setting", "min_in_sync", 2)
    asked.call("set_setting", "ack_timeout_ms", 60_000)
    write_a_tail(a, [b], key, 1)
    a.kill()
    wait_until(lambda: asked.replicaset(name)["master"] == b.name, "the replica to be master")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        writing = pool.submit(asked.connect(timeout_s=90).call, "picodata.crud.replace", ("t", [key, 2]))
        row = f"local row = box.space.t:get{{require('picodata').bucket_id('t', {key}), {key}}} return row[#row]"
        wait_until(lambda: b.eval(row) == [2], "the write to be in the log of its master")
        a.start()
        writing.result()
        assert asked.in_sync(name) == {a.name, b.name}
