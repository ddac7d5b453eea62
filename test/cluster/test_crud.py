"""`picodata.crud`, `picodata.call` and `picodata.bucket_id`, asked of every instance over IPROTO."""

import itertools

import pytest
import tarantool
from harness import wait_until

_names = itertools.count(1)


@pytest.fixture(params=["memtx", "vinyl"])
def table(cluster, request):
    """A fresh sharded table (id, name, stock)."""
    name = f"t{next(_names)}"
    ddl = f"CREATE TABLE {name} (id INT PRIMARY KEY, name TEXT NOT NULL, stock INT) USING {request.param}"
    cluster[0].sql(ddl)
    return name


def error_of(action, *args):
    with pytest.raises(tarantool.error.DatabaseError) as raised:
        action(*args)
    return raised.value.args[0], raised.value.args[1]


def test_every_instance_reads_what_any_wrote(cluster, table):
    for i, instance in enumerate(cluster):
        instance.call("crud.insert", table, [i, f"name {i}", i * 10])
    for instance in cluster:
        for i in range(len(cluster)):
            assert instance.call("crud.get", table, i) == [i, f"name {i}", i * 10]
        assert instance.call("crud.get", table, 99) is None


def test_insert_refuses_a_key_that_is_there(cluster, table):
    cluster[0].call("crud.insert", table, [1, "a", 1])
    for instance in cluster:
        code, message = error_of(instance.call, "crud.insert", table, [1, "b", 2])
        assert code == 20109, message
    assert cluster[0].call("crud.get", table, 1) == [1, "a", 1]


def test_replace_update_upsert_delete(cluster, table):
    a, b, c, d = cluster
    a.call("crud.replace", table, [1, "a", 1])
    b.call("crud.replace", table, [1, "b", 2])
    assert c.call("crud.update", table, 1, [["+", "stock", 5], ["=", "name", "c"]]) == [1, "c", 7]
    assert c.call("crud.update", table, 2, [["+", "stock", 5]]) is None
    d.call("crud.upsert", table, [1, "new", 0], [["-", "stock", 7]])
    d.call("crud.upsert", table, [2, "new", 3], [["-", "stock", 7]])
    assert a.call("crud.get", table, 1) == [1, "c", 0]
    assert a.call("crud.get", table, 2) == [2, "new", 3]
    assert b.call("crud.delete", table, 1) == [1, "c", 0]
    assert b.call("crud.delete", table, 1) is None
    assert a.call("crud.get", table, 1) is None


def test_many_rows(cluster, table):
    rows = [[i, f"n{i % 7}", i] for i in range(1000)]
    cluster[0].call("crud.insert_many", table, rows)
    for instance in cluster:
        assert instance.call("crud.count", table, []) == 1000
        assert instance.call("crud.count", table, [["==", "name", "n3"]]) == len([r for r in rows if r[1] == "n3"])
    cluster[1].call("crud.replace_many", table, [[i, "new", -1] for i in range(500, 1500)])
    assert cluster[2].call("crud.count", table, []) == 1500
    assert cluster[3].call("crud.count", table, [["==", "stock", -1]]) == 1000


def test_select_orders_and_limits(cluster, table):
    cluster[0].call("crud.insert_many", table, [[i, "x", i % 10] for i in range(200)])
    for instance in cluster:
        rows = instance.call("crud.select", table, [[">=", "id", 50]], {"first": 5})
        assert rows == [[i, "x", i % 10] for i in range(50, 55)]
        rows = instance.call("crud.select", table, [["==", "stock", 3], ["<", "id", 40]])
        assert rows == [[i, "x", 3] for i in (3, 13, 23, 33)]


def test_a_row_lives_once(cluster, table):
    cluster[0].call("crud.insert_many", table, [[i, "x", 0] for i in range(300)])
    status = cluster[0].status()
    counts = []
    for replicaset in status["replicasets"]:
        master = cluster.by_name(replicaset["master"])
        counts.append(master.eval(f"return box.space['{table}']:count()")[0])
    assert sum(counts) == 300
    assert all(count > 50 for count in counts)


def test_bucket_ids_agree_everywhere(cluster, table):
    for key in range(50):
        buckets = {instance.call("bucket_id", table, key) for instance in cluster}
        assert len(buckets) == 1
        assert 1 <= buckets.pop() <= 3000


def test_procedures_run_where_the_key_lives(cluster, table):
    for instance in cluster:
        instance.eval("function where_am_i(greeting) return greeting .. ' from ' .. box.info.uuid end")
    masters = set()
    for key in range(40):
        answers = {instance.call("call", table, key, "write", "where_am_i", ["hello"]) for instance in cluster}
        assert len(answers) == 1, answers
        masters |= answers
    assert len(masters) == 2
    code, message = error_of(cluster[0].call, "call", table, 1, "write", "no_such_procedure", [])
    assert "no_such_procedure" in message
    for instance in cluster:
        instance.eval("function fails() error('on purpose') end")
    code, message = error_of(cluster[0].call, "call", table, 1, "write", "fails", [])
    assert code == 20402 and "on purpose" in message


@pytest.mark.parametrize(
    "args, code, words",
    [
        (["crud.insert", "{t}", [1, None, 0]], 20108, ["name"]),
        (["crud.insert", "{t}", [None, "a", 0]], 20108, ["id"]),
        (["crud.insert", "{t}", ["one", "a", 0]], 20107, ["integer"]),
        (["crud.insert", "{t}", [1 << 40, "a", 0]], 20110, []),
        (["crud.insert", "{t}", [1]], 20002, []),
        (["crud.insert", "{t}", [1, "a", 0, 5]], 20002, []),
        (["crud.insert", "nowhere", [1]], 20101, ["nowhere"]),
        (["crud.get", "{t}", [1, 2]], 20002, []),
        (["crud.get", "{t}", "x"], 20107, []),
        (["crud.update", "{t}", 1, [["+", "stok", 1]]], 20102, ["stok", "stock"]),
        (["crud.update", "{t}", 1, [["?", "stock", 1]]], 20002, []),
        (["crud.update", "{t}", 1, [["=", "id", 2]]], 20002, ["id"]),
        (["crud.select", "{t}", [["~", "id", 2]]], 20002, []),
        (["crud.insert"], 20002, []),
        (["crud.insert", 5, 6], 20002, []),
        (["crud.get", "{t}", 1, {"tiemout": 1}], 20002, ["tiemout"]),
        (["bucket_id", "nowhere", 1], 20101, []),
    ],
)
def test_bad_input_is_refused(cluster, table, args, code, words):
    function, *args = [a.replace("{t}", table) if isinstance(a, str) else a for a in args]
    for instance in cluster:
        found, message = error_of(instance.call, function, *args)
        assert found == code, message
        for word in words:
            assert word in message
        assert instance.call("crud.count", table, []) == 0


def test_writes_go_on_when_a_replica_dies(workshop):
    cluster = workshop.cluster(4, replication_factor=2).start()
    cluster[0].sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    masters = {r["master"] for r in cluster[0].status()["replicasets"]}
    replica = next(i for i in cluster if i.name not in masters and i is not cluster.leader())
    replica.kill()
    asked = next(i for i in cluster if i.is_running())
    for i in range(100):
        wait_until(lambda i=i: asked.call("crud.replace", "t", [i, i]) is not None, "a write")
    assert asked.call("crud.count", "t", []) == 100
    replica.start()
    cluster.wait_whole()
    assert replica.sql("SELECT count(*) FROM t") == [[100]]
