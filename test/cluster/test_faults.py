"""What clients see while instances die, stop or shut down under them."""

import threading

import pytest
import tarantool
from harness import wait_until

SCHEMA_ABORTED = 20311
ROWS = 500


@pytest.fixture
def cluster(workshop):
    """With `ROWS` rows."""
    cluster = workshop.pairs()
    cluster[0].call("crud.insert_many", "t", [[i, i] for i in range(ROWS)])
    return cluster


def test_a_schema_change_that_can_not_be_everywhere_is_undone_everywhere(cluster):
    _, *members, alive = cluster.pick()
    for member in members:
        member.pause()
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
    _, master, _, asked = cluster.pick()
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
