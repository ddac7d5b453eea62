"""A replicaset that joins later takes its share of the buckets while readers and writers go on."""

import time

import pytest
from harness import wait_until
from workers import Worker, retrying

KEYS = 2000


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


@pytest.mark.parametrize(
    "statement",
    ["UPDATE t SET v = v + 1", "INSERT INTO t SELECT id, v + 1 FROM t ON CONFLICT DO REPLACE"],
    ids=["update", "insert-select"],
)
def test_large_statements_go_on_while_buckets_move_under_them(workshop, statement):
    rows = 20_000
    cluster = workshop.cluster(2).start()
    first = cluster[0]
    first.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    first.call("crud.insert_many", "t", [[i, 0] for i in range(rows)])
    # Many moves, so that a statement meets several.
    first.call("set_setting", "move_buckets_max", 20)
    slowest = [0.0]
    connection = cluster[1].connect(timeout_s=60)

    def change(_):
        began = time.monotonic()
        answer = connection.call("picodata.sql", (statement, []))[0]
        slowest[0] = max(slowest[0], time.monotonic() - began)
        assert answer["row_count"] == rows

    worker = Worker(change)
    worker.start()
    wait_until(lambda: worker.failure or worker.rounds > 2, "changes before the move")
    cluster.add().start()
    shares = [1000, 1000, 1000]
    wait_until(
        lambda: worker.failure or sorted(r["buckets"] for r in first.status()["replicasets"]) == shares,
        "equal shares",
        timeout_s=90,
    )
    worker.finish()
    print(f"{worker.rounds} changes, the slowest took {slowest[0]:.2f} s")
    for instance in cluster:
        assert instance.sql("SELECT count(*), min(v), max(v) FROM t") == [[rows, worker.rounds, worker.rounds]]


def test_a_truncate_during_a_move_takes_what_came_before_it_and_nothing_else(workshop):
    cluster = workshop.cluster(2).start()
    first, second = cluster
    first.sql("CREATE TABLE t (id INT PRIMARY KEY, v TEXT)")
    text = "x" * 2000
    first.call("crud.insert_many", "t", [[i, text] for i in range(KEYS)])
    writer, emptier = first.connect(timeout_s=30), second.connect(timeout_s=60)
    acknowledged, kept_from = [KEYS - 1], [0]

    def write(_):
        first_key = acknowledged[-1] + 1
        rows = [[first_key + i, text] for i in range(20)]
        retrying(lambda: writer.call("picodata.crud.replace_many", ("t", rows)))
        acknowledged.append(first_key + 19)

    def empty(_):
        before = acknowledged[-1]
        emptier.call("picodata.crud.truncate", ("t",))
        # Rows of a request that began before the answer may be gone with it.
        kept_from[0] = acknowledged[-1] + 21
        wait_until(lambda: acknowledged[-1] > kept_from[0], "rows from after it")
        written = acknowledged[-1]
        kept = [row[0] for row in second.sql("SELECT id FROM t ORDER BY id")]
        assert kept[0] > before, (kept[0], before)
        missing = set(range(kept_from[0], written + 1)) - set(kept)
        assert not missing, sorted(missing)[:10]

    workers = [Worker(action) for action in (write, empty)]
    for worker in workers:
        worker.start()

    def failed():
        return any(w.failure for w in workers)

    wait_until(lambda: failed() or all(w.rounds > 2 for w in workers), "work before the move")
    cluster.add().start()
    wait_until(
        lambda: failed() or sorted(r["buckets"] for r in first.status()["replicasets"]) == [1000, 1000, 1000],
        "equal shares",
        timeout_s=90,
    )
    # Who empties waits for rows of who writes.
    for worker in reversed(workers):
        worker.finish()
    kept = {row[0] for row in first.sql("SELECT id FROM t")}
    assert set(range(kept_from[0], acknowledged[-1] + 1)) <= kept
    wait_until(lambda: sum(i.eval("return box.space.t:count()")[0] for i in cluster) == len(kept), "donors to be clean")


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
