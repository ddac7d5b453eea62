"""What clients see while instances die, stop or shut down under them."""

import threading

import pytest
import tarantool
from harness import wait_until

SCHEMA_ABORTED = 20311
ROWS = 500


@pytest.fixture
def cluster(workshop):
    """Two replicasets of two, with a table of `ROWS` rows."""
    cluster = workshop.cluster(4, replication_factor=2).start().wait_balanced()
    cluster[0].sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    cluster[0].call("crud.insert_many", "t", [[i, i] for i in range(ROWS)])
    return cluster


def replicaset_without_leader(cluster):
    """A replicaset whose members can go while Raft keeps its leader, and these members."""
    leader = cluster.leader().name
    status = cluster[0].status()
    homes = {i["name"]: i["replicaset"] for i in status["instances"]}
    name = next(r["name"] for r in status["replicasets"] if r["name"] != homes[leader])
    return name, [i for i in cluster if homes[i.name] == name]


def test_a_schema_change_that_can_not_be_everywhere_is_undone_everywhere(cluster):
    _, members = replicaset_without_leader(cluster)
    for member in members:
        member.pause()
    alive = next(i for i in cluster if i not in members)
    with pytest.raises(tarantool.error.DatabaseError) as raised:
        alive.sql("CREATE TABLE half (id INT PRIMARY KEY) OPTION (TIMEOUT = 1)")
    assert raised.value.args[0] == SCHEMA_ABORTED, raised.value
    for member in members:
        member.resume()
    cluster.wait_whole()
    for instance in cluster:
        wait_until(lambda i=instance: i.eval("return box.space.half == nil")[0], "nothing to be left of the table")
    cluster[1].sql("CREATE TABLE half (id INT PRIMARY KEY)")
    assert cluster[2].sql("SELECT count(*) FROM half") == [[0]]


def test_statements_go_on_when_a_master_dies(cluster):
    name, _ = replicaset_without_leader(cluster)
    master = cluster.master_of(name)
    asked = next(i for i in cluster if i is not master)
    master.kill()
    # Both wait for the new master: nothing of them can have been done at the old one.
    assert asked.sql("SELECT count(*), sum(v) FROM t") == [[ROWS, ROWS * (ROWS - 1) // 2]]
    assert asked.sql("UPDATE t SET v = v + 1") == ROWS
    assert asked.sql("SELECT sum(v) FROM t") == [[ROWS * (ROWS - 1) // 2 + ROWS]]


def test_an_instance_shuts_down_in_the_middle_of_queries(cluster):
    instance = cluster[0]
    failures = []

    def ask(connection):
        while True:
            try:
                connection.call("picodata.sql", ("SELECT count(*) FROM t a, t b, t c WHERE a.v + b.v = c.v", []))
            except (tarantool.error.Error, OSError) as error:
                failures.append(error)
                return

    threads = [threading.Thread(target=ask, args=(instance.connect(timeout_s=60),), daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: instance.call("crud.get", "t", 1)["rows"], "the instance to serve beside the queries")
    instance.stop()
    assert instance.exit_code() == 0
    for thread in threads:
        thread.join()
    assert len(failures) == 3
    assert "panic" not in instance.log()
