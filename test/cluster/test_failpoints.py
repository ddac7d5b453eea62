"""A process dies between any two steps of a failover, a schema change, an entry, a snapshot, an acknowledgement, a
move, a joining: nothing that was acknowledged is lost, and the cluster serves on.

The points are those of the module's sources; each is reached by doing again and again what leads there, under load.
"""

import contextlib
import itertools
import pathlib
import re
import threading
import time

import pytest
import tarantool
from harness import ROOT, wait_until

POINT = re.compile(r'failpoint::reach\("([a-z_.]+)"\)')
SOURCES = pathlib.Path(ROOT) / "src" / "module" / "src"
POINTS = sorted({point for file in SOURCES.rglob("*.rs") for point in POINT.findall(file.read_text())})
# These are reached when the majority is lost, or a log, or by the first member of a replicaset: test_majority_lost.py,
# test_power_loss.py, test_bootstrap.py.
POINTS = [p for p in POINTS if not p.startswith("recover.") and p not in ("start.log_cleared", "start.storage_empty")]
POINTS_MIN = 30
REACH_S = 60
SETTLE_S = 60
# Rows of a global table go through Raft's log, which is compacted at 16 MiB.
BIG_ROWS, BIG_BYTES = 30, 200_000
FAULTS = (tarantool.error.Error, OSError, AssertionError)


class Writer(threading.Thread):
    """Inserts rows through anybody who runs, and remembers which were acknowledged."""

    def __init__(self, cluster, first):
        super().__init__(daemon=True)
        self.cluster, self.keys = cluster, itertools.count(first)
        self.acknowledged, self.done = [], threading.Event()

    def run(self):
        connections = {}
        while not self.done.is_set():
            instance = next(iter(self.cluster.running()), None)
            if instance is None:
                time.sleep(0.01)
                continue
            key = next(self.keys)
            try:
                connection = connections.get(instance.name) or instance.connect(timeout_s=20)
                connections[instance.name] = connection
                connection.call("picodata.crud.insert", ("t", [key, key]))
                self.acknowledged.append(key)
            except (tarantool.error.Error, OSError):
                connections.pop(instance.name, None)
                time.sleep(0.005)

    def end(self):
        self.done.set()
        self.join()


class Scene:
    """Two replicasets of two, whose processes look at one file for points to die at."""

    def __init__(self, cluster, file):
        self.cluster, self.file = cluster, file
        self.first, self.turn = 1, itertools.count()

    def is_reached(self):
        return not self.file.exists()

    def anybody(self):
        return next(iter(self.cluster.running()))

    def record(self, name):
        return next(r for r in self.anybody().status()["replicasets"] if r["name"] == name)

    def wait_for_the_dying(self):
        """Who takes the file ends a moment later."""
        for taken in self.file.parent.glob(f"{self.file.name}.*"):
            for instance in self.cluster:
                if taken.suffix == f".{instance.process.pid}":
                    instance.process.wait(SETTLE_S)
            taken.unlink()

    def start_the_dead(self):
        for instance in self.cluster:
            if not instance.is_running():
                instance.disconnect()
                instance.start()

    def revive(self):
        self.start_the_dead()
        self.cluster.wait_whole(SETTLE_S)
        wait_until(self.are_in_sync, "all to be in sync", SETTLE_S)

    def revive_or_reach(self):
        """The point may be on the way back: then the cluster does not become whole."""
        self.start_the_dead()
        wait_until(
            lambda: self.is_reached() or (self.cluster.is_whole() and self.are_in_sync()),
            "all to be back, or the point to be reached",
            SETTLE_S,
        )

    def are_in_sync(self):
        return all(len(r["in_sync"]) == 2 for r in self.anybody().status()["replicasets"])

    def pair(self):
        """The master and the replica of one replicaset after the other."""
        status = self.anybody().status()
        names = sorted(r["name"] for r in status["replicasets"])
        name = names[next(self.turn) % len(names)]
        master = self.cluster.by_name(self.record(name)["master"])
        members = [i["name"] for i in status["instances"] if i["replicaset"] == name]
        return name, master, self.cluster.by_name(next(m for m in members if m != master.name))

    def switch_over(self):
        name, _, _ = self.pair()
        self.anybody().call("switchover", name)

    def pause_a_master(self):
        name, master, replica = self.pair()
        master.pause()
        try:
            wait_until(lambda: self.as_seen(replica, name) == replica.name, "another master")
        finally:
            master.resume()

    @staticmethod
    def as_seen(instance, name):
        return next(r["master"] for r in instance.status()["replicasets"] if r["name"] == name)

    def kill_the_leader(self):
        self.restart(self.cluster.leader())

    def restart(self, instance):
        instance.kill()
        instance.start()

    def restart_a_replica(self):
        _, _, replica = self.pair()
        self.restart(replica)
        wait_until(self.are_in_sync, "the replica to be in sync", 10)

    def change_schema(self):
        asked = self.anybody()
        name = f"x{next(self.turn)}"
        asked.sql(f"CREATE TABLE {name} (id INT PRIMARY KEY, v INT)")
        asked.sql(f"INSERT INTO {name} VALUES (1, 1), (2, 2)")
        asked.sql(f"CREATE INDEX i ON {name} (v)")
        asked.sql(f"TRUNCATE TABLE {name}")
        asked.sql(f"DROP TABLE {name}")

    def change_a_setting(self):
        self.anybody().call("set_setting", "sql_timeout_s", 30 + next(self.turn) % 10)

    def fill_the_log(self):
        asked = self.anybody()
        for i in range(BIG_ROWS):
            asked.call("crud.replace", "big", [i % 3, "x" * BIG_BYTES])

    def leave_one_behind(self):
        leader = self.cluster.leader()
        behind = next(i for i in self.cluster if i is not leader)
        behind.kill()
        try:
            for _ in range(4):
                self.fill_the_log()
        finally:
            behind.start()
        wait_until(self.are_in_sync, "the one that was behind to be in sync", 10)

    def write_a_tail_without_note(self):
        """It learns from its rows alone that it has a tail."""
        self.write_a_tail(is_noted=False)

    def write_a_tail(self, is_noted=True):
        """A master with a row that nobody else has dies, comes back, and throws its data away."""
        name, master, replica = self.pair()
        replica.eval("box.cfg{replication = {}}")
        master.eval(
            """
            local before = box.info.lsn
            require('fiber').create(function() box.space._pico_probe:insert{box.NULL, 1} end)
            while box.info.lsn == before do require('fiber').sleep(0.001) end"""
        )
        master.kill()
        if not is_noted:
            (master.folder / "data" / "picodata.followed").unlink()
        wait_until(lambda: self.record(name)["master"] == replica.name, "the replica to be master")
        master.start()
        wait_until(self.are_in_sync, "the old master to be in sync", 20)

    def move_buckets(self):
        names = sorted(r["name"] for r in self.anybody().status()["replicasets"])
        for weight in (0, 1):
            self.anybody().call("set_weight", names[0], weight)
            wait_until(self.are_moved, "the buckets to be where they belong", 20)

    def are_moved(self):
        status = self.anybody().status()
        wanted = {r["name"]: r["weight"] for r in status["replicasets"]}
        is_even = all((r["buckets"] > 0) == (wanted[r["name"]] > 0) for r in status["replicasets"])
        return not status["moves"] and is_even


DEEDS = {
    "ack": Scene.restart_a_replica,
    "anew": Scene.write_a_tail_without_note,
    "apply": Scene.change_a_setting,
    "compact": Scene.fill_the_log,
    "copy": Scene.write_a_tail,
    "depose": Scene.pause_a_master,
    "early": Scene.write_a_tail,
    "fence": Scene.switch_over,
    "follow": Scene.switch_over,
    "governor": Scene.kill_the_leader,
    "history": Scene.write_a_tail,
    "join": Scene.write_a_tail,
    "lead": Scene.switch_over,
    "move": Scene.move_buckets,
    "raft": Scene.change_a_setting,
    "schema": Scene.change_schema,
    "snapshot": Scene.leave_one_behind,
    "start": Scene.restart_a_replica,
    "start.cleared": Scene.write_a_tail,
    "start.copy_cleared": Scene.write_a_tail,
    "truncate": Scene.change_schema,
}


@pytest.fixture(scope="module")
def scene(shared_workshop):
    file = shared_workshop.folder / "failpoint"
    env = {"PICODATA_FAILPOINTS": str(file)}
    cluster = shared_workshop.cluster(4, replication_factor=2, env=env).start().wait_balanced()
    cluster[0].sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    cluster[0].sql("CREATE TABLE big (id INT PRIMARY KEY, v TEXT) DISTRIBUTED GLOBALLY")
    scene = Scene(cluster, file)
    wait_until(scene.are_in_sync, "all to be in sync")
    for name in {r["name"] for r in cluster[0].status()["replicasets"]}:
        make = "box.schema.space.create('_pico_probe', {id = 601}):create_index('primary', {sequence = true})"
        cluster.master_of(name).eval(make)
    return scene


def test_there_are_points_for_every_step():
    assert len(POINTS) >= POINTS_MIN
    assert {point.split(".")[0] for point in POINTS} <= set(DEEDS)


@pytest.fixture
def writer(scene):
    scene.revive()
    writer = Writer(scene.cluster, scene.first)
    writer.start()
    yield writer
    writer.end()
    scene.first = next(writer.keys)


@pytest.mark.parametrize("point", POINTS)
def test_nothing_acknowledged_is_lost_when_a_process_dies_at(scene, writer, point):
    wait_until(lambda: len(writer.acknowledged) > 5, "writes before", SETTLE_S)
    deed = DEEDS.get(point) or DEEDS[point.split(".")[0]]
    (scene.file.parent / "next").write_text(f"{point} exit\n")
    (scene.file.parent / "next").rename(scene.file)
    deadline = time.monotonic() + REACH_S
    while not scene.is_reached() and time.monotonic() < deadline:
        # Whoever comes to the point may do so at any of these steps.
        with contextlib.suppress(*FAULTS):
            deed(scene)
        with contextlib.suppress(*FAULTS):
            scene.revive_or_reach()
    is_reached = scene.is_reached()
    scene.file.unlink(missing_ok=True)
    assert is_reached, f"{point} is not reached by {deed.__name__}"
    scene.wait_for_the_dying()
    scene.revive()
    before = len(writer.acknowledged)
    wait_until(lambda: len(writer.acknowledged) > before + 5, "writes after", SETTLE_S)
    writer.end()
    found = {row[0] for row in scene.anybody().sql("SELECT id FROM t")}
    assert [key for key in writer.acknowledged if key not in found] == []
    scene.change_schema()
