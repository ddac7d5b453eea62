"""`picodata.crud`, `picodata.call` and `picodata.bucket_id`, asked of every instance over IPROTO."""

import itertools

import pytest
import tarantool
from harness import wait_until

LIMIT_EXCEEDED = 20200

_names = itertools.count(1)


@pytest.fixture(params=["memtx", "vinyl"])
def table(cluster, request):
    """A fresh sharded table (id, name, stock)."""
    name = f"t{next(_names)}"
    columns = [["id", "int"], ["name", "text"], {"name": "stock", "type": "int", "nullable": True}]
    options = {"name": name, "columns": columns, "primary_key": ["id"], "engine": request.param}
    assert cluster[0].call("create_table", options) is True
    return name


def rows(instance, function, *args):
    """The rows of a result."""
    return instance.call(function, *args)["rows"]


def error_of(action, *args):
    with pytest.raises(tarantool.error.DatabaseError) as raised:
        action(*args)
    return raised.value.args[0], raised.value.args[1]


def test_every_instance_reads_what_any_wrote(cluster, table):
    for i, instance in enumerate(cluster):
        instance.call("crud.insert", table, [i, f"name {i}", i * 10])
    for instance in cluster:
        for i in range(len(cluster)):
            assert rows(instance, "crud.get", table, i) == [[i, f"name {i}", i * 10]]
        assert rows(instance, "crud.get", table, 99) == []


def test_insert_refuses_a_key_that_is_there(cluster, table):
    cluster[0].call("crud.insert", table, [1, "a", 1])
    for instance in cluster:
        code, message = error_of(instance.call, "crud.insert", table, [1, "b", 2])
        assert code == 20109, message
    assert rows(cluster[0], "crud.get", table, 1) == [[1, "a", 1]]


def test_replace_update_upsert_delete(cluster, table):
    a, b, c, d = cluster
    a.call("crud.replace", table, [1, "a", 1])
    b.call("crud.replace", table, [1, "b", 2])
    assert rows(c, "crud.update", table, 1, [["+", "stock", 5], ["=", "name", "c"]]) == [[1, "c", 7]]
    assert rows(c, "crud.update", table, 2, [["+", "stock", 5]]) == []
    d.call("crud.upsert", table, [1, "new", 0], [["-", "stock", 7]])
    d.call("crud.upsert", table, [2, "new", 3], [["-", "stock", 7]])
    assert rows(a, "crud.get", table, 1) == [[1, "c", 0]]
    assert rows(a, "crud.get", table, 2) == [[2, "new", 3]]
    assert rows(b, "crud.delete", table, 1) == [[1, "c", 0]]
    assert rows(b, "crud.delete", table, 1) == []
    assert rows(a, "crud.get", table, 1) == []


def test_a_result_names_its_columns(cluster, table):
    result = cluster[0].call("crud.insert_object", table, {"name": "a", "id": 1})
    names = [(column["name"], column["type"]) for column in result["metadata"]]
    assert names == [("id", "integer"), ("name", "text"), ("stock", "integer")]
    assert result["rows"] == [[1, "a", None]]
    result = cluster[1].call("crud.get", table, 1, {"fields": ["name", "id"]})
    assert [column["name"] for column in result["metadata"]] == ["name", "id"]
    assert result["rows"] == [["a", 1]]
    assert cluster[2].call("crud.replace", table, [1, "b", 1], {"noreturn": True}) is None


def test_many_rows(cluster, table):
    many = [[i, f"n{i % 7}", i] for i in range(1000)]
    assert rows(cluster[0], "crud.insert_many", table, many) == many
    for instance in cluster:
        assert instance.call("crud.count", table, []) == 1000
        assert instance.call("crud.count", table, [["==", "name", "n3"]]) == len([r for r in many if r[1] == "n3"])
    cluster[1].call("crud.replace_many", table, [[i, "new", -1] for i in range(500, 1500)])
    assert cluster[2].call("crud.count", table, []) == 1500
    assert cluster[3].call("crud.count", table, [["==", "stock", -1]]) == 1000
    cluster[3].call("crud.upsert_many", table, [[[i, "ups", 0], [["=", "stock", 7]]] for i in (1, 5000)])
    assert rows(cluster[0], "crud.get", table, 1) == [[1, "n1", 7]]
    assert rows(cluster[0], "crud.get", table, 5000) == [[5000, "ups", 0]]


def test_many_rows_that_fail_are_named_and_the_others_written(cluster, table):
    cluster[0].call("crud.insert", table, [2, "there", 0])
    many = [[i, "new", i] for i in range(1, 101)]
    code, message = error_of(cluster[1].call, "crud.insert_many", table, many)
    assert code == 20109 and message.startswith("1 of 100 rows were not written: row 2: "), message
    assert cluster[2].call("crud.count", table, []) == 100
    code, message = error_of(cluster[1].call, "crud.insert_many", table, [[200, "a", 0], [201, None, 0]])
    assert code == 20108 and message.startswith("row 2: "), message
    assert cluster[2].call("crud.count", table, []) == 100
    options = {"rollback_on_error": True}
    more = [[i, "new", i] for i in range(100, 200)]
    code, message = error_of(cluster[1].call, "crud.insert_many", table, more, options)
    assert code == 20109 and "not written, because another row failed" in message, message
    assert cluster[2].call("crud.count", table, []) < 199


def test_select_orders_and_limits(cluster, table):
    cluster[0].call("crud.insert_many", table, [[i, "x", i % 10] for i in range(200)])
    for instance in cluster:
        page = rows(instance, "crud.select", table, [[">=", "id", 50]], {"first": 5})
        assert page == [[i, "x", i % 10] for i in range(50, 55)]
        page = rows(instance, "crud.select", table, [[">=", "id", 50]], {"first": 5, "after": page[-1]})
        assert [row[0] for row in page] == list(range(55, 60))
        page = rows(instance, "crud.select", table, [[">=", "id", 50]], {"first": -3, "after": page[0]})
        assert [row[0] for row in page] == [52, 53, 54]
        found = rows(instance, "crud.select", table, [["==", "stock", 3], ["<", "id", 40]])
        assert found == [[i, "x", 3] for i in (33, 23, 13, 3)]
        assert rows(instance, "crud.min", table)[0][0] == 0
        assert rows(instance, "crud.max", table)[0][0] == 199


def test_an_index_orders_and_pages(cluster, table):
    cluster[0].call("create_index", table, {"name": f"{table}_stock", "columns": ["stock"]})
    cluster[0].call("crud.insert_many", table, [[i, "x", i % 5] for i in range(100)])
    for instance in cluster:
        found = []
        while page := rows(
            instance,
            "crud.select",
            table,
            [["<=", "stock", 3]],
            {"first": 7, **({"after": found[-1]} if found else {})},
        ):
            found += page
        assert sorted(found) == sorted([i, "x", i % 5] for i in range(100) if i % 5 <= 3)
        assert [row[2] for row in found] == sorted((row[2] for row in found), reverse=True)
        assert rows(instance, "crud.max", table, f"{table}_stock", {"fields": ["stock"]}) == [[4]]


def test_global_tables_are_written_everywhere(cluster):
    name = f"t{next(_names)}"
    nullable = [
        {"name": "name", "type": "text", "nullable": True},
        {"name": "stock", "type": "smallint", "nullable": True},
    ]
    options = {"name": name, "columns": [["id", "int"], *nullable], "primary_key": ["id"], "distribution": "global"}
    cluster[0].call("create_table", options)
    a, b, c, d = cluster
    a.call("crud.insert", name, [1, "a", 1])
    assert error_of(b.call, "crud.insert", name, [1, "b", 1])[0] == 20109
    assert rows(c, "crud.update", name, 1, [["+", "stock", 4]]) == [[1, "a", 5]]
    assert error_of(c.call, "crud.update", name, 1, [["+", "stock", 40_000]])[0] == 20110
    d.call("crud.upsert", name, [2, "d", 2], [["+", "stock", 1]])
    d.call("crud.upsert", name, [2, "d", 2], [["+", "stock", 1]])
    for instance in cluster:
        wait_until(
            lambda instance=instance: (
                rows(instance, "crud.select", name, [[">=", "id", 0]]) == [[1, "a", 5], [2, "d", 3]]
            ),
            "the rows to arrive",
        )
    assert rows(b, "crud.delete", name, 1) == [[1, "a", 5]]
    wait_until(lambda: a.call("crud.count", name, []) == 1, "the row to go")


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
        (["crud.get", "{t}", 1, {"tiemout": 1}], 20002, ["tiemout", "timeout"]),
        (["crud.update", "{t}", 1, [["!", "stock", 2]]], 20004, []),
        (["crud.insert_many", "{t}", []], 20002, []),
        (["crud.insert_object", "{t}", {"id": 1, "nam": "a"}], 20102, ["nam", "name"]),
        (["crud.select", "{t}", [["=", "id", 1]], {"first": -1}], 20002, ["after"]),
        (["crud.select", "{t}", [["=", "stok", 1]]], 20102, ["stock"]),
        (["crud.max", "{t}", "by_stock"], 20103, ["by_stock"]),
        (["call", "{t}", 1, "maybe", "f", []], 20002, ["maybe"]),
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


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ({"name": "a", "type": "int", "default": 1}, ["default", "nullable"]),
        ({"name": "a"}, ["type"]),
        (["a"], ["2"]),
        ("a", ["{name=, type=, nullable=}"]),
        ({"name": "a", "type": "int", "nullable": "yes"}, ["create_table"]),
    ],
)
def test_a_column_is_described_by_what_is_known(cluster, column, words):
    options = {"name": "described", "columns": [column], "primary_key": ["a"]}
    error = error_of(cluster[0].call, "create_table", options)
    assert error[0] == 20002 and all(word in error[1] for word in words), error


def test_a_row_beyond_what_the_storage_takes_is_refused(cluster, table):
    for instance in cluster:
        code, message = error_of(instance.call, "crud.insert", table, [1, "x" * (2 << 20), 0])
        assert code == LIMIT_EXCEEDED, message
        code, message = error_of(instance.sql, f"INSERT INTO {table} VALUES (1, ?, 0)", "x" * (2 << 20))
        assert code == LIMIT_EXCEEDED, message
        assert instance.call("crud.count", table, []) == 0


def test_a_selection_beyond_what_one_answer_holds_is_refused(cluster, table):
    rows = 160
    for first in range(0, rows, 16):
        cluster[0].call("crud.insert_many", table, [[i, "x" * 900_000, 0] for i in range(first, first + 16)])
    for instance in cluster:
        code, message = error_of(instance.call, "crud.select", table, [])
        assert code == LIMIT_EXCEEDED and "first" in message, message
        assert len(instance.call("crud.select", table, [], {"first": 3})["rows"]) == 3
    cluster[0].call("crud.truncate", table)


def test_writes_go_on_when_a_replica_dies(workshop):
    cluster = workshop.cluster(4, replication_factor=2).start()
    cluster[0].call("create_table", {"name": "t", "columns": [["id", "int"], ["v", "int"]], "primary_key": ["id"]})
    masters = {r["master"] for r in cluster[0].status()["replicasets"]}
    replica = next(i for i in cluster if i.name not in masters and i is not cluster.leader())
    replica.kill()
    asked = next(i for i in cluster if i.is_running())
    for i in range(100):
        asked.call("crud.replace", "t", [i, i], {"timeout": 30})
    assert asked.call("crud.count", "t", []) == 100
    replica.start()
    cluster.wait_whole()
    assert replica.call("crud.count", "t", []) == 100


def test_every_key_is_found_on_every_way_to_it(cluster):
    cluster[0].sql("CREATE TABLE every_key (id BIGINT PRIMARY KEY, v INT)")
    keys = list(range(1000))
    for instance, ids in ((cluster[0], keys[:500]), (cluster[1], keys[500:])):
        instance.call("crud.insert_many", "every_key", [[i, i] for i in ids[::2]])
        for i in ids[1::2]:
            instance.sql("INSERT INTO every_key VALUES (?, ?)", i, i)
    ways = {
        "crud.get": lambda i: cluster[2].call("crud.get", "every_key", i)["rows"],
        "a point statement": lambda i: cluster[2].sql("SELECT * FROM every_key WHERE id = ?", i),
        "the engine": lambda i: cluster[2].sql("SELECT * FROM every_key WHERE id = ? OR id = -1", i),
        "an update": lambda i: [[i, i]] * cluster[2].sql("UPDATE every_key SET v = ? WHERE id = ?", i, i),
    }
    for way, find in ways.items():
        assert [i for i in keys if find(i) != [[i, i]]] == [], way
    # A procedure of a user reads the space by the keys that it sees.
    unseen = """
        local unseen = 0
        for _, tuple in box.space.every_key:pairs() do
            if box.space.every_key:get({tuple[1], tuple[2]}) == nil then
                unseen = unseen + 1
            end
        end
        return unseen
    """
    assert [instance.eval(unseen)[0] for instance in cluster] == [0] * len(cluster)
