"""A replicaset that joins later takes its share of the buckets while readers and writers go on."""

import threading
import time

import tarantool
from harness import wait_until

KEYS = 2000
RETRYABLE = {20201, 20300, 20301, 20302, 20303, 20304, 20305, 20306}


class Worker(threading.Thread):
    """Repeats one action until it is told to stop; what goes wrong ends it and is kept."""

    def __init__(self, action):
        super().__init__(daemon=True)
        self.action, self.failure, self.rounds, self.done = action, None, 0, threading.Event()

    def run(self):
        while not self.done.is_set():
            try:
                self.action(self.rounds)
                self.rounds += 1
            except Exception as error:  # Kept for the test to raise.
                self.failure = error
                return

    def finish(self):
        self.done.set()
        self.join()
        if self.failure:
            raise self.failure


def retrying(action):
    """Runs an action that may meet a moment without a master or with a locked bucket, as its error codes allow."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return action()
        except tarantool.error.DatabaseError as error:
            if error.args[0] not in RETRYABLE or time.monotonic() > deadline:
                raise


def test_a_late_replicaset_takes_its_share_under_load(workshop):
    cluster = workshop.cluster(2).start()
    first, second = cluster
    first.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    first.call("crud.insert_many", "t", [[i, 0] for i in range(KEYS)])
    written = [0] * KEYS
    reader, counter, writer = first.connect(timeout_s=30), second.connect(timeout_s=30), second.connect(timeout_s=30)

    def read(round_number):
        key = round_number * 7919 % KEYS
        least = written[key]
        rows = retrying(lambda: reader.call("picodata.crud.get", ("t", key)))[0]["rows"]
        assert len(rows) == 1 and rows[0][0] == key and rows[0][1] >= least, (key, rows, least)

    def count(_):
        answer = retrying(lambda: counter.call("picodata.sql", ("SELECT count(*), count(DISTINCT id) FROM t", [])))[0]
        assert answer["rows"] == [[KEYS, KEYS]], answer["rows"]

    def write(round_number):
        key = round_number * 6007 % KEYS
        value = written[key] + 1
        retrying(lambda: writer.call("picodata.crud.replace", ("t", [key, value])))
        written[key] = value

    workers = [Worker(action) for action in (read, count, write)]
    for worker in workers:
        worker.start()

    def failed():
        return any(w.failure for w in workers)

    wait_until(lambda: failed() or all(w.rounds > 20 for w in workers), "work before the move")
    late = cluster.add().start()
    before = [w.rounds for w in workers]

    def shares():
        return sorted(r["buckets"] for r in first.status()["replicasets"])

    wait_until(lambda: failed() or shares() == [1000, 1000, 1000], "equal shares", timeout_s=90)
    after = [w.rounds for w in workers]
    wait_until(lambda: failed() or all(w.rounds > r + 20 for w, r in zip(workers, after, strict=True)), "work after")
    for worker in workers:
        worker.finish()
    assert all(b < a for b, a in zip(before, after, strict=True)), "readers and writers went on during the move"
    rows = late.sql("SELECT id, v FROM t ORDER BY id")
    assert rows == [[key, written[key]] for key in range(KEYS)]
    # Nothing is left behind: each row is in one space only, once the donors have cleaned up.
    wait_until(lambda: sum(i.eval("return box.space.t:count()")[0] for i in cluster) == KEYS, "donors to be clean")
    assert late.eval("return box.space.t:count()")[0] > KEYS // 6


def test_weights_say_how_the_buckets_are_shared(workshop):
    cluster = workshop.cluster(2).start()
    names = [r["name"] for r in cluster[0].status()["replicasets"]]
    cluster[0].sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    cluster[0].call("crud.insert_many", "t", [[i, i] for i in range(KEYS)])
    cluster[1].call("set_weight", names[0], 2)

    def buckets():
        return {r["name"]: r["buckets"] for r in cluster[0].status()["replicasets"]}

    wait_until(lambda: buckets() == {names[0]: 2000, names[1]: 1000}, "shares of two and one", timeout_s=90)
    assert cluster[1].sql("SELECT count(*), sum(v) FROM t") == [[KEYS, KEYS * (KEYS - 1) // 2]]
