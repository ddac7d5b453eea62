"""What a newcomer takes from its master: a snapshot as a file, in parts, and nothing that is the master's own."""

import os
import threading

import pytest
import tarantool
from harness import wait_until

# Of bytes that can not be made shorter, so that the snapshot has several parts.
ROWS, ROW_BYTES = 60, 100_000


class Writer(threading.Thread):
    """Inserts rows until it is told to end."""

    def __init__(self, instance):
        super().__init__(daemon=True)
        self.connection, self.ids, self.done = instance.connect(timeout_s=30), [], threading.Event()

    def run(self):
        key = 1_000
        while not self.done.is_set():
            self.connection.call("picodata.crud.insert", ("t", [key, b"new"]))
            self.ids.append(key)
            key += 1


def test_a_newcomer_has_all_rows_and_nothing_that_is_its_masters_own(workshop):
    cluster = workshop.cluster(1, replication_factor=2).start()
    master = cluster[0]
    master.sql("CREATE TABLE t (id INT PRIMARY KEY, v VARBINARY)")
    for key in range(ROWS):
        master.call("crud.insert", "t", [key, os.urandom(ROW_BYTES)])
    writer = Writer(master)
    writer.start()
    wait_until(lambda: len(writer.ids) > 20, "rows before the newcomer")
    replica = cluster.add().start()
    cluster.wait_whole()
    cluster.wait_in_sync()
    before = len(writer.ids)
    wait_until(lambda: len(writer.ids) > before + 20, "rows after it")
    writer.done.set()
    writer.join()
    count = "return box.space.t:count()"
    wait_until(lambda: replica.eval(count) == master.eval(count), "the last rows")
    assert master.eval(count)[0] == ROWS + len(writer.ids)
    assert replica.call("crud.get", "t", 0) == master.call("crud.get", "t", 0)
    states = [{row[0]: row[1] for row in i.eval("return box.space._pico_raft_state:select()")[0]} for i in cluster]
    assert states[0] and states[1] and states[0] != states[1]
    uuids = [i.eval("return box.info.uuid")[0] for i in cluster]
    assert uuids[0] != uuids[1]
    assert sorted(row[1] for row in replica.eval("return box.space._cluster:select()")[0]) == sorted(uuids)
    # It is a member of its own: it comes back from what it has.
    replica.kill()
    replica.start()
    cluster.wait_whole()
    assert "copying:" not in replica.log().split("recovery start")[-1]
    wait_until(lambda: replica.eval(count) == master.eval(count), "all rows")


@pytest.mark.parametrize(
    "name",
    ["", "picodata.identity", "../i1.log", "0000000000000000000x.snap", "00000000000000000000.xlog", "1.snap"],
)
def test_no_other_file_is_read(cluster, name):
    with pytest.raises(tarantool.error.DatabaseError) as raised:
        cluster[0].call("peer.copy_read", name, 0)
    assert "is not the name of a snapshot" in raised.value.args[1]


def test_what_is_not_there_is_refused(cluster):
    with pytest.raises(tarantool.error.DatabaseError) as raised:
        cluster[0].call("peer.copy_read", "9" * 20 + ".snap", 0)
    assert "can not be read" in raised.value.args[1]
    for uuid in ["", "x", cluster[0].eval("return require('uuid').str()")[0]]:
        with pytest.raises(tarantool.error.DatabaseError) as raised:
            cluster[0].call("peer.copy_begin", uuid)
        assert "is not the master" in raised.value.args[1]


def test_an_instance_that_lost_its_data_never_goes_on_with_its_masters_log(workshop):
    """It keeps its identity, and dies when it has a copy in which Raft's rows are still its master's.

    Raft counts on its log under its old number: it takes another.
    """
    failpoint = workshop.folder / "failpoint"
    cluster = workshop.cluster(2, replication_factor=2, env={"PICODATA_FAILPOINTS": str(failpoint)}).start()
    cluster[0].sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    cluster[0].call("crud.insert_many", "t", [[key, key] for key in range(ROWS)])
    cluster.wait_in_sync()
    name = cluster[0].status()["replicasets"][0]["name"]
    replica = next(i for i in cluster if i is not cluster.master_of(name))
    numbers = {i["name"]: i["raft_id"] for i in cluster[0].status()["instances"]}
    replica.kill()
    for file in (replica.folder / "data").iterdir():
        if file.suffix in (".snap", ".xlog"):
            file.unlink()
    failpoint.write_text("copy.kept exit")
    replica.start()
    assert replica.process.wait(60) == 137
    replica.disconnect()
    replica.start()
    cluster.wait_whole()
    cluster.wait_in_sync()
    assert replica.log().count("bytes came from") == 3
    now = {i["name"]: i["raft_id"] for i in replica.status()["instances"]}
    assert now[replica.name] != numbers[replica.name]
    assert replica.eval("return box.space.t:count()")[0] == ROWS


def test_a_founder_that_lost_its_data_joins_the_cluster_that_it_founded(workshop):
    cluster = workshop.cluster(3, replication_factor=3).start()
    founder, other = cluster[0], cluster[1]
    other.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    other.call("crud.insert_many", "t", [[key, key] for key in range(ROWS)])
    cluster.wait_in_sync()
    founded = other.status()["cluster_id"]
    founder.kill()
    for file in (founder.folder / "data").iterdir():
        if file.suffix in (".snap", ".xlog"):
            file.unlink()
    founder.start()
    cluster.wait_whole().wait_in_sync()
    assert founder.status()["cluster_id"] == founded
    assert founder.eval("return box.space.t:count()")[0] == ROWS


def test_a_newcomer_that_asks_again_is_given_the_same_snapshot(workshop):
    failpoint = workshop.folder / "failpoint"
    cluster = workshop.cluster(1, replication_factor=2, env={"PICODATA_FAILPOINTS": str(failpoint)}).start()
    master = cluster[0]
    master.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    master.call("crud.insert_many", "t", [[key, key] for key in range(ROWS)])
    failpoint.write_text("copy.written exit")
    replica = cluster.add().start()
    assert replica.process.wait(60) == 137
    replica.disconnect()
    replica.start()
    cluster.wait_whole()
    cluster.wait_in_sync()
    assert master.log().count("is made for newcomers") == 1
    assert replica.eval("return box.space.t:count()")[0] == ROWS
