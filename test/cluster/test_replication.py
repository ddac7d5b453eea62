"""What is acknowledged is in the log of every member in sync, and survives the death of its master."""

import threading

import pytest
import tarantool
from harness import wait_until

TIMEOUT, UNKNOWN = 20201, 20202
WRITES_BEFORE = 200
WRITES_AFTER = 200


# Of each connection of a process the port at the other end, TCP_NODELAY, TCP_QUICKACK and TCP_USER_TIMEOUT.
CONNECTIONS = """
    local ffi = require('ffi')
    pcall(ffi.cdef, [[
        int test_getsockopt(int fd, int level, int name, void *value, unsigned *size) __asm__("getsockopt");
        int test_getpeername(int fd, void *name, unsigned *size) __asm__("getpeername");
    ]])
    local found = {}
    for fd = 0, 1023 do
        local value, name = ffi.new('int[1]'), ffi.new('unsigned char[128]')
        local function get(option)
            return ffi.C.test_getsockopt(fd, 6, option, value, ffi.new('unsigned[1]', 4)) == 0 and value[0] or nil
        end
        if ffi.C.test_getpeername(fd, name, ffi.new('unsigned[1]', 128)) == 0 and get(1) then
            table.insert(found, {name[2] * 256 + name[3], get(1), get(12), get(18)})
        end
    end
    return found
"""


def connections(instance):
    """The last number of each is 0 for those that the host has made."""
    return instance.eval(CONNECTIONS)[0]


@pytest.fixture
def cluster(workshop):
    return workshop.pairs()


class Writer(threading.Thread):
    """Inserts rows 0, step, 2 * step, ... shifted by its number, and remembers which were acknowledged."""

    def __init__(self, instance, number, step):
        super().__init__(daemon=True)
        self.connection, self.number, self.step = instance.connect(timeout_s=60), number, step
        self.acknowledged, self.done = [], threading.Event()

    def run(self):
        key = self.number
        while not self.done.is_set():
            try:
                self.connection.call("picodata.crud.insert", ("t", [key, key]))
                self.acknowledged.append(key)
            except tarantool.error.DatabaseError:
                pass  # Not acknowledged: it may be there or not.
            key += self.step


def test_rows_share_packets_on_the_way_to_a_follower_and_nowhere_else(workshop):
    cluster = workshop.cluster(2, replication_factor=2).start()
    cluster.wait_in_sync()
    master = cluster.master_of(cluster[0].status()["replicasets"][0]["name"])
    follower = next(i for i in cluster if i is not master)

    master.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")

    def is_so():
        # Answers go with acknowledgements from now on, unless the kernel is asked for others again and again.
        for key in range(50):
            master.call("crud.replace_many", "t", [[key, 1], [key + 50, 1]])
        without_delay = [[nodelay for _, nodelay, _, _ in connections(i)].count(0) for i in (master, follower)]
        from_master = [c for c in connections(follower) if c[0] == master.port and c[3] == 0]
        return without_delay == [1, 0] and [quickack for _, _, quickack, _ in from_master] == [1]

    wait_until(is_so, "the follower to be known")
    follower.kill()
    follower.start()
    wait_until(is_so, "the follower to follow again")


def test_replicas_have_what_was_acknowledged(cluster):
    asked = cluster[0]
    for key in range(100):
        asked.call("crud.insert", "t", [key, key])
        rows = sum(i.eval("return box.space.t:count()")[0] for i in cluster)
        assert rows == 2 * (key + 1), "both members of a replicaset have the row when it is acknowledged"


def test_nobody_follows_a_replica(cluster):
    """So that what only an old master has is never brought to the others when it comes back."""
    follows = "local n = 0 for _, m in pairs(box.info.replication) do n = n + (m.upstream and 1 or 0) end return n"
    masters = {r["master"] for r in cluster[0].status()["replicasets"]}

    def is_star():
        return all(i.eval(follows)[0] == (0 if i.name in masters else 1) for i in cluster)

    wait_until(is_star, "replicas to follow their masters only")
    _, master, replica, _ = cluster.pick()
    master.kill()
    wait_until(lambda: replica.name in {r["master"] for r in replica.status()["replicasets"]}, "a new master")
    master.start()
    cluster.wait_whole()
    masters = {r["master"] for r in replica.status()["replicasets"]}
    wait_until(is_star, "the old master to follow the new one, and not the other way round")


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_no_acknowledged_write_is_lost_with_its_master(cluster, fault):
    name, master, replica, asked = cluster.pick()
    writers = [Writer(asked, number, 8) for number in range(8)]
    for writer in writers:
        writer.start()

    def written():
        return sum(len(w.acknowledged) for w in writers)

    wait_until(lambda: written() > WRITES_BEFORE, "writes before the fault")
    master.kill() if fault == "kill" else master.pause()
    wait_until(lambda: asked.replicaset(name)["master"] == replica.name, "the replica to be master")
    before = written()
    wait_until(lambda: written() > before + WRITES_AFTER, "writes after it")
    for writer in writers:
        writer.done.set()
    for writer in writers:
        writer.join()
    found = {row[0] for row in asked.sql("SELECT id FROM t")}
    lost = [key for writer in writers for key in writer.acknowledged if key not in found]
    assert lost == []


def bucket_of(instance, key):
    return instance.call("bucket_id", "t", key)


def test_a_write_that_too_few_have_is_unknown_and_reads_go_on(workshop):
    cluster = workshop.cluster(3, replication_factor=3).start()
    asked = cluster[0]
    name = asked.status()["replicasets"][0]["name"]
    asked.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    cluster.wait_in_sync()
    asked.call("set_setting", "min_in_sync", 3)
    asked.call("set_setting", "ack_timeout_ms", 200)
    master = cluster.master_of(name)
    replica = next(i for i in cluster if i is not master and i is not cluster.leader())
    replica.pause()
    with pytest.raises(tarantool.error.DatabaseError) as raised:
        master.call("crud.insert", "t", [1, 1])
    assert raised.value.args[0] == UNKNOWN and replica.name in raised.value.args[1]
    with pytest.raises(tarantool.error.DatabaseError) as raised:
        master.call("crud.get", "t", 1)
    assert raised.value.args[0] == TIMEOUT, "it could be lost with the master, so it is not shown"
    other = next(key for key in range(2, 100) if bucket_of(master, key) != bucket_of(master, 1))
    assert master.call("crud.get", "t", other)["rows"] == [], "reads of others go on"
    replica.resume()
    wait_until(lambda: master.call("crud.replace", "t", [1, 2]), "writes to be acknowledged again")
    assert master.call("crud.get", "t", 1)["rows"] == [[1, 2]]
