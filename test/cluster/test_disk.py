"""A full disk: writes are refused with the reason, reads go on, and everything goes on by itself when there is room."""

import contextlib
import os
import subprocess
import time

import pytest
import tarantool
from harness import wait_until

STORAGE = 20400
DISK_MB = 48

# Writes until not even the smallest row fits: the host takes disk space in larger pieces.
FILL = """
    local digest = require('digest')
    if not box.space.filler then
        box.schema.space.create('filler', {id = 600, is_local = true}):create_index('primary')
    end
    for _, size in ipairs({10000, 1000, 100, 1}) do
        local n = 0
        repeat n = n + 1 until not pcall(box.space.filler.replace, box.space.filler, {n, digest.urandom(size)})
    end
"""


class SmallDisk:
    """A file system of its own that can be filled."""

    def __init__(self, path):
        self.path = path
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", path], check=True)

    def fill(self, instance):
        with open(self.path / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(bytes(1 << 16)):
                pass
        instance.eval(FILL)

    def free(self):
        (self.path / "filler").unlink()


@pytest.fixture
def disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can make a small file system to fill")
    disk = SmallDisk(tmp_path / "disk")
    yield disk
    subprocess.run(["umount", "--lazy", disk.path], check=True)


def refused(instance, function, *args):
    """The message of a refusal for want of disk space, and how long it took."""
    began = time.monotonic()
    with pytest.raises(tarantool.error.DatabaseError) as raised:
        instance.call(function, *args)
    assert raised.value.args[0] == STORAGE, raised.value
    assert "data_dir" in raised.value.args[1], raised.value
    return time.monotonic() - began


def test_an_instance_with_a_full_disk_refuses_writes_and_goes_on_when_there_is_room(workshop, disk):
    instance = workshop.cluster(1, data_dir=str(disk.path / "data")).start()[0]
    instance.sql("CREATE TABLE t (id INT PRIMARY KEY, v TEXT)")
    instance.sql("CREATE TABLE v (id INT PRIMARY KEY, v TEXT) USING vinyl")
    instance.sql("CREATE TABLE g (id INT PRIMARY KEY, v TEXT) DISTRIBUTED GLOBALLY")
    for table in "tvg":
        instance.sql(f"INSERT INTO {table} VALUES (1, 'a'), (2, 'b')")
    disk.fill(instance)
    text = "x" * 100
    for table in "tv":
        refused(instance, "crud.replace", table, [1, text])
        refused(instance, "crud.replace_many", table, [[1, text], [3, text]])
        refused(instance, "sql", f"INSERT INTO {table} VALUES (3, ?)", [text])
        refused(instance, "sql", f"UPDATE {table} SET v = v || ?", [text])
        refused(instance, "sql", f"DELETE FROM {table} WHERE v = 'a'")
    # What needs Raft is refused as soon as Raft knows.
    for _ in range(2):
        with pytest.raises(tarantool.error.DatabaseError):
            instance.call("crud.replace", "g", [1, text])
    assert refused(instance, "crud.replace", "g", [1, text]) < 5
    assert refused(instance, "sql", "CREATE TABLE more (id INT PRIMARY KEY)") < 5
    assert refused(instance, "set_setting", "sql_rows_max", 1000) < 5
    for table in "tvg":
        assert instance.sql(f"SELECT * FROM {table} ORDER BY id") == [[1, "a"], [2, "b"]]
        assert instance.call("crud.get", table, 1)["rows"] == [[1, "a"]]
        assert instance.call("crud.len", table) == 2
    assert instance.status()["leader"] is None
    disk.free()
    wait_until(lambda: instance.call("crud.replace", "g", [3, "c"]), "Raft to go on")
    instance.sql("CREATE TABLE more (id INT PRIMARY KEY)")
    for table in "tv":
        assert instance.sql(f"INSERT INTO {table} VALUES (3, 'c')") == 1
    for table in "tv":
        assert instance.sql(f"SELECT * FROM {table} ORDER BY id") == [[1, "a"], [2, "b"], [3, "c"]]
    instance.kill()
    instance.start()
    wait_until(lambda: instance.sql("SELECT count(*) FROM more") == [[0]], "the instance to be back")
    for table in "tv":
        assert instance.sql(f"SELECT * FROM {table} ORDER BY id") == [[1, "a"], [2, "b"], [3, "c"]]


def test_a_cluster_goes_on_without_the_one_whose_disk_is_full(workshop, disk):
    cluster = workshop.cluster(3)
    cluster[0].config["data_dir"] = str(disk.path / "data")
    full = cluster[0]
    cluster.start()
    others = [cluster[1], cluster[2]]
    full.sql("CREATE TABLE g (id INT PRIMARY KEY, v TEXT) DISTRIBUTED GLOBALLY")
    assert cluster.leader() is full, "the instance with the smallest address founds the cluster, and leads it"
    disk.fill(full)
    text = "x" * 100

    def stands_still():
        try:
            full.call("crud.replace", "g", [0, text])
        except tarantool.error.DatabaseError as error:
            return error.args[0] == STORAGE
        return False

    wait_until(stands_still, "Raft to stand still on the full disk")
    wait_until(lambda: all(i.status()["leader"] not in (None, full.name) for i in others), "another leader")
    for i in range(1, 20):
        assert others[i % 2].sql("INSERT INTO g VALUES (?, ?)", i, text) == 1
    others[0].call("set_setting", "sql_rows_max", 1000)
    refused(full, "set_setting", "sql_rows_max", 2000)
    disk.free()
    wait_until(lambda: full.sql("SELECT count(*) FROM g WHERE id > 0") == [[19]], "the rows to arrive")
    cluster.wait_whole()
    assert full.sql("INSERT INTO g VALUES (20, 'z')") == 1
    rows = [i.sql("SELECT id, v FROM g ORDER BY id") for i in cluster]
    assert rows[0] == rows[1] == rows[2]


def test_a_replica_with_a_full_disk_is_counted_out_and_comes_back_with_its_data(workshop, disk):
    cluster = workshop.cluster(3, replication_factor=3)
    full, others = cluster[2], [cluster[0], cluster[1]]
    full.config["data_dir"] = str(disk.path / "data")
    cluster.start()

    def in_sync():
        return set(others[0].status()["replicasets"][0]["in_sync"])

    others[0].sql("CREATE TABLE t (id INT PRIMARY KEY, v TEXT)")
    wait_until(lambda: len(in_sync()) == 3, "all to be in sync")
    master = cluster.by_name(others[0].status()["replicasets"][0]["master"])
    assert master is not full, "the founder is the master"
    master.eval("box.schema.space.create('filler', {id = 600, is_local = true}):create_index('primary')")
    wait_until(lambda: full.eval("return box.space.filler ~= nil")[0], "the space to be there")
    before = full.eval("return box.info.uuid")[0]
    disk.fill(full)
    for i in range(100):
        master.call("crud.replace", "t", [i, "x" * 1000])
    assert in_sync() == {i.name for i in others}, "writes did not wait for it any longer"
    disk.free()
    wait_until(lambda: len(in_sync()) == 3, "it to be in sync again", 60)
    assert full.eval("return box.info.uuid")[0] == before, "its data was good"
    assert full.eval("return box.space.t:count()")[0] == 100


# Changes a row again and again, by the host's own hand or by picodata, while somebody reads it: how many of the changes
# were taken, and how many answers after a refusal have them nevertheless.
REFUSED_WRITES = """
    local by_hand, expected = ...
    local fiber, picodata = require('fiber'), require('picodata')
    local row = box.space.t:select({}, {limit = 1})[1]
    local function sum() return picodata.sql('SELECT sum(v) FROM t').rows[1][1] end
    local taken, wrong, running, readers = 0, 0, true, {}
    for at = 1, 8 do
        readers[at] = fiber.new(function() while running do pcall(sum) end end)
        readers[at]:set_joinable(true)
    end
    for _ = 1, 100 do
        local is_taken
        if by_hand then
            is_taken = pcall(box.space.t.update, box.space.t, {row[1], row[2]}, {{'+', 3, 1000000}})
        else
            is_taken = pcall(picodata.crud.update, 't', row[2], {{'+', 'v', 1000000}})
        end
        if is_taken then taken = taken + 1 end
        if sum() ~= expected then wrong = wrong + 1 end
    end
    running = false
    for _, reader in ipairs(readers) do reader:join() end
    return taken, wrong
"""


@pytest.mark.parametrize("by_hand", [True, False], ids=["by hand", "by picodata"])
def test_what_a_full_disk_took_back_is_not_in_the_columnar_copy(workshop, disk, by_hand):
    instance = workshop.cluster(1, data_dir=str(disk.path / "data")).start()[0]
    instance.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    for first in range(0, 12_000, 3000):
        instance.call("crud.insert_many", "t", [[id, 1] for id in range(first, first + 3000)])
    disk.fill(instance)

    def is_copied():
        assert instance.sql("SELECT sum(v) FROM t") == [[12_000]]
        return instance.call("queries")["instances"][0]["columnar_bytes"] > 0

    wait_until(is_copied, "the copy")
    assert instance.eval(REFUSED_WRITES, by_hand, 12_000) == [0, 0]
    disk.free()
    wait_until(lambda: instance.call("crud.update", "t", 7, [["=", "v", 2]]), "writes to be taken again")
    assert instance.sql("SELECT sum(v) FROM t") == [[12_001]]
