"""Moves whose answers are lost, or whose destination dies in the middle, lose no row and show none twice."""

import os
import random

import ports
import pytest
import tarantool
from harness import wait_until
from relay import Relay
from workers import Worker, retrying

KEYS = 3000
UNKNOWN = 20202
TEXT = "x" * 4000


class Load:
    """Readers and writers of table t. A write of which nothing is known leaves either value."""

    def __init__(self, reading, writing):
        self.values = [{0} for _ in range(KEYS)]
        self.reader, self.counter = reading.connect(timeout_s=60), reading.connect(timeout_s=60)
        self.writer = writing.connect(timeout_s=60)
        self.workers = [Worker(action) for action in (self.read, self.count, self.write)]

    def __enter__(self):
        for worker in self.workers:
            worker.start()
        wait_until(lambda: self.failed() or self.has_worked(5), "work before the move")
        return self

    def __exit__(self, *_):
        for worker in self.workers:
            worker.done.set()
        for worker in self.workers:
            worker.join()

    def failed(self):
        return any(worker.failure for worker in self.workers)

    def has_worked(self, rounds):
        return all(worker.rounds > rounds for worker in self.workers)

    def finish(self):
        for worker in self.workers:
            worker.finish()

    def read(self, round_number):
        key = round_number * 7919 % KEYS
        before = set(self.values[key])
        rows = retrying(lambda: self.reader.call("picodata.crud.get", ("t", key)))[0]["rows"]
        assert len(rows) == 1 and rows[0][0] == key, (key, rows)
        assert rows[0][1] in before | self.values[key], (key, rows[0][1], before)

    def count(self, _):
        query = ("SELECT count(*), count(DISTINCT id) FROM t", [])
        answer = retrying(lambda: self.counter.call("picodata.sql", query))[0]
        assert answer["rows"] == [[KEYS, KEYS]], answer["rows"]

    def write(self, round_number):
        key = round_number * 6007 % KEYS
        value = max(self.values[key]) + 1
        self.values[key] = self.values[key] | {value}
        try:
            retrying(lambda: self.writer.call("picodata.crud.replace", ("t", [key, value, TEXT])))
            self.values[key] = {value}
        except tarantool.error.DatabaseError as error:
            if error.args[0] != UNKNOWN:
                raise

    def check(self, cluster):
        rows = cluster[0].sql("SELECT id, v FROM t ORDER BY id")
        assert [row[0] for row in rows] == list(range(KEYS))
        wrong = [(key, value) for key, value in rows if value not in self.values[key]]
        assert not wrong
        wait_until(lambda: sum(i.eval("return box.space.t:count()")[0] for i in cluster) == KEYS, "donors to be clean")


def fill(instance, engine="memtx"):
    instance.sql(f"CREATE TABLE t (id INT PRIMARY KEY, v INT, filler TEXT) USING {engine}")
    for first in range(0, KEYS, 500):
        instance.call("crud.insert_many", "t", [[i, 0, TEXT] for i in range(first, first + 500)])


def shares(instance):
    return sorted(r["buckets"] for r in instance.status()["replicasets"])


@pytest.mark.parametrize("engine", ["memtx", "vinyl"])
def test_slices_whose_answers_are_lost_are_sent_again(workshop, engine):
    seed = int(os.environ.get("PICODATA_TEST_SEED", random.randrange(1 << 32)))
    print(f"PICODATA_TEST_SEED={seed}")
    taken = [ports.take() for _ in range(2)]
    relays = [Relay(port, seed + i) for i, port in enumerate(taken)]
    cluster = workshop.cluster(0)
    cluster.peers = [relay.address for relay in relays]
    for port, relay in zip(taken, relays, strict=True):
        cluster.add(listen=f"127.0.0.1:{port}", advertise=relay.address)
    cluster.start().wait_balanced()
    fill(cluster[0], engine)
    with Load(reading=cluster[0], writing=cluster[1]) as load:
        for relay in relays:
            relay.losing = True
        cluster.add().start()
        wait_until(lambda: load.failed() or shares(cluster[0]) == [1000, 1000, 1000], "equal shares", timeout_s=120)
        for relay in relays:
            relay.losing = False
        load.finish()
    load.check(cluster)
    broken = sum(relay.broken for relay in relays)
    again = sum(i.log().count("the latest slice is sent again") for i in cluster)
    print(f"{broken} connections broken, {again} slices sent again")
    assert again > 0
    for relay in relays:
        relay.close()


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_a_destination_that_dies_in_the_middle_begins_again(workshop, fault):
    cluster = workshop.cluster(2).start().wait_balanced()
    fill(cluster[0])
    with Load(reading=cluster[0], writing=cluster[1]) as load:
        late = cluster.add().start()
        for _ in range(3):
            # In the middle: some rows are there, and the move is not over.
            wait_until(
                lambda: load.failed() or late.eval("return box.space.t and box.space.t:count() or 0")[0] > 100,
                "rows to arrive",
            )
            if shares(cluster[0]) == [1000, 1000, 1000]:
                break
            if fault == "kill":
                late.kill()
                late.start()
            else:
                # Until it counts as offline; what it owns already can be read again afterwards.
                late.pause()
                wait_until(lambda: cluster[0].state_of(late) != "Online", "the others to notice")
                late.resume()
            cluster.wait_whole()
        wait_until(lambda: load.failed() or shares(cluster[0]) == [1000, 1000, 1000], "equal shares", timeout_s=120)
        load.finish()
    load.check(cluster)
