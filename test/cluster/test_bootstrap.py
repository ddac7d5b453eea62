"""However instances are started, exactly one cluster comes of it, and it comes back after every kind of stop."""

import time

import ports
import pytest
from harness import wait_until


def cluster_ids(cluster):
    return {instance.status()["cluster_id"] for instance in cluster.running()}


def names(status):
    return sorted(i["name"] for i in status["instances"])


def test_all_at_once(workshop):
    cluster = workshop.cluster(4, replication_factor=2).start().wait_balanced()
    assert len(cluster_ids(cluster)) == 1
    for instance in cluster:
        status = instance.status()
        assert status["cluster"] == "test"
        assert names(status) == ["i1", "i2", "i3", "i4"]
        status = instance.status()
        assert sorted(r["buckets"] for r in status["replicasets"]) == [1500, 1500]
        masters = [i["name"] for i in status["instances"] if i["master"]]
        assert len(masters) == 2
        assert sorted(r["master"] for r in status["replicasets"]) == sorted(masters)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_one_by_one_in_any_order(workshop, order):
    cluster = workshop.cluster(3)
    for index in order:
        cluster[index].start()
        wait_until(cluster[index].is_listening, "a listener")
    cluster.wait_whole()
    assert len(cluster_ids(cluster)) == 1
    assert names(cluster[0].status()) == ["i1", "i2", "i3"]


def test_one_alone(workshop):
    cluster = workshop.cluster(1).start()
    assert cluster[0].sql("SELECT 1 + 1") == [[2]]


@pytest.mark.parametrize("first", ["of the cluster", "of a replicaset"])
@pytest.mark.parametrize("point", ["start.placed", "start.storage_empty", "start.storage_open"])
def test_a_first_member_that_dies_while_it_makes_its_storage_makes_it_again(workshop, first, point):
    cluster = workshop.cluster(2)
    # The smallest address founds the cluster.
    dying = cluster[0] if first == "of the cluster" else cluster[1]
    failpoint = workshop.folder / "failpoint"
    failpoint.write_text(f"{point} exit\n")
    dying.env = {"PICODATA_FAILPOINTS": str(failpoint)}
    for instance in cluster:
        instance.start()
    wait_until(lambda: not dying.is_running(), f"the end at {point}")
    dying.start()
    cluster.wait_whole().wait_balanced()
    assert len(cluster_ids(cluster)) == 1
    cluster[1].sql("CREATE TABLE t (id INT PRIMARY KEY)")
    cluster[0].sql("INSERT INTO t VALUES (1), (2), (3)")
    assert cluster[1].sql("SELECT count(*) FROM t") == [[3]]


def test_join_later(workshop):
    cluster = workshop.cluster(2).start()
    cluster[0].sql("CREATE TABLE t (id INT PRIMARY KEY, v TEXT)")
    cluster[0].sql("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    late = cluster.add().start()
    cluster.wait_whole()
    assert names(late.status()) == ["i1", "i2", "i3"]
    assert late.sql("SELECT * FROM t ORDER BY id") == [[1, "a"], [2, "b"], [3, "c"]]


def test_restart_of_one(workshop):
    cluster = workshop.cluster(3).start()
    cluster[0].sql("CREATE TABLE t (id INT PRIMARY KEY, v TEXT)")
    cluster[0].call("crud.insert_many", "t", [[i, "x"] for i in range(100)])
    for instance in cluster:
        before = instance.status()
        instance.stop()
        instance.start()
        cluster.wait_whole()
        assert instance.status()["cluster_id"] == before["cluster_id"]
        assert instance.sql("SELECT count(*), min(v) FROM t") == [[100, "x"]]


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_restart_of_all(workshop, how):
    cluster = workshop.cluster(4, replication_factor=2).start()
    cluster[0].sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    cluster[0].sql("CREATE TABLE g (id INT PRIMARY KEY, v INT) DISTRIBUTED GLOBALLY")
    cluster[1].call("crud.insert_many", "t", [[i, i] for i in range(1, 1001)])
    cluster[2].sql("INSERT INTO g VALUES (1, 1), (2, 2)")
    ids = cluster_ids(cluster)
    cluster.stop() if how == "stop" else cluster.kill()
    cluster.start()
    assert cluster_ids(cluster) == ids
    for instance in cluster:
        assert instance.sql("SELECT count(*), sum(v) FROM t") == [[1000, 500500]]
        assert instance.sql("SELECT * FROM g ORDER BY id") == [[1, 1], [2, 2]]


def test_a_killed_leader_is_replaced(workshop):
    cluster = workshop.cluster(3).start()
    cluster[0].sql("CREATE TABLE g (id INT PRIMARY KEY) DISTRIBUTED GLOBALLY")
    old = cluster.leader()
    old.kill()
    killed = time.monotonic()
    others = cluster.running()
    wait_until(lambda: all(i.status()["leader"] not in (None, old.name) for i in others), "a new leader")
    print(f"a new leader after {time.monotonic() - killed:.2f} s")
    assert others[0].sql("INSERT INTO g VALUES (1)") == 1
    old.start()
    cluster.wait_whole()
    assert old.sql("INSERT INTO g VALUES (2)") == 1
    for instance in cluster:
        wait_until(lambda i=instance: i.sql("SELECT count(*) FROM g") == [[2]], "the rows everywhere")


def test_a_late_joiner_gets_a_snapshot(workshop):
    cluster = workshop.cluster(1).start()
    first = cluster[0]
    first.sql("CREATE TABLE g (id INT PRIMARY KEY, v TEXT) DISTRIBUTED GLOBALLY")
    # Each row is an entry of the log; it is compacted when it holds 16 MB.
    rows = 0
    while first.status()["raft_first_index"] < 100:
        first.sql("INSERT INTO g VALUES (?, ?)", rows, "x" * 200_000)
        rows += 1
        assert rows < 200, "the log is never compacted"
    assert first.status()["snapshots_sent"] == 0
    late = cluster.add().start()
    cluster.wait_whole()
    wait_until(lambda: late.sql("SELECT count(*) FROM g") == [[rows]], "all rows of the global table")
    assert late.status()["snapshots_installed"] == 1
    assert late.status()["raft_first_index"] >= first.status()["raft_first_index"]
    wait_until(lambda: first.status()["snapshots_sent"] == 1, "the word that the snapshot has arrived")
    late.stop()
    first.sql("INSERT INTO g VALUES (?, ?)", rows, "after")
    late.start()
    cluster.wait_whole()
    wait_until(lambda: late.sql("SELECT count(*) FROM g") == [[rows + 1]], "the row written meanwhile")
    assert late.status()["snapshots_installed"] == 0, "one that was away for a moment catches up by the log"


def test_expelled_instances_are_gone(workshop):
    cluster = workshop.cluster(3, replication_factor=3).start()
    leader = cluster.leader()
    masters = [r["master"] for r in leader.status()["replicasets"]]
    victim = next(i for i in cluster if i is not leader and i.name not in masters)
    rest = [i for i in cluster if i is not victim]
    rest[0].call("expel", victim.name)
    wait_until(lambda: rest[0].state_of(victim) == "Expelled", "the instance to be expelled")
    assert victim.exit_code() == 0
    assert "was expelled" in victim.log()
    victim.start()
    assert victim.exit_code() != 0
    assert "start it with an empty data_dir" in victim.log()
    assert rest[1].sql("SELECT 1") == [[1]]


def move(instance):
    """Gives an instance that has ended another address."""
    instance.port = ports.take()
    instance.address = f"127.0.0.1:{instance.port}"
    instance.config["listen"] = instance.address
    return instance


def knows(asked, moved):
    return {i["name"]: i["address"] for i in asked.status()["instances"]}[moved.name] == moved.address


@pytest.mark.parametrize("size", [2, 3])
def test_an_instance_comes_back_at_another_address(workshop, size):
    """Of two voters neither is a majority: the one that stayed answers where it is asked from."""
    cluster = workshop.cluster(size, replication_factor=size).start().wait_balanced()
    cluster[0].sql("CREATE TABLE t (id INT PRIMARY KEY)")
    cluster.wait_in_sync()
    for instance in cluster:
        instance.stop()
        move(instance).start()
        for other in cluster:
            cluster.wait_on(other, lambda i, moved=instance: knows(i, moved), "the address to be known")
        cluster.wait_whole()
        cluster.wait_in_sync()
    assert [i.sql("INSERT INTO t VALUES (?)", at) for at, i in enumerate(cluster)] == [1] * size
    assert cluster[0].sql("SELECT count(*) FROM t") == [[size]]


def test_status_says_who_is_leaving(workshop):
    """The last member of a replicaset whose buckets may not move can not go yet."""
    cluster = workshop.cluster(2).start().wait_balanced()
    cluster[0].call("set_setting", "balance", False)
    assert not any(i["leaving"] for i in cluster[0].status()["instances"])
    cluster[0].call("expel", "i2")
    leaving = {i["name"]: (i["state"], i["leaving"]) for i in cluster[0].status()["instances"]}
    assert leaving == {"i1": ("Online", False), "i2": ("Online", True)}
    cluster[0].call("set_setting", "balance", True)
    wait_until(lambda: cluster[0].state_of(cluster[1]) == "Expelled", "the instance to be expelled")
    assert not any(i["leaving"] for i in cluster[0].status()["instances"])
