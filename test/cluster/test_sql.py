"""SQL through the front door: answers, errors with codes and places, and limits that leave the instance serving."""

import decimal
import itertools
import uuid

import pytest
import tarantool
from harness import wait_until

_names = itertools.count(1)


@pytest.fixture(scope="module")
def shop(cluster):
    """Sharded orders and items, joined on the sharding key, and a global table of customers."""
    a = cluster[0]
    a.sql("CREATE TABLE customers (id INT PRIMARY KEY, name VARCHAR(20) NOT NULL) DISTRIBUTED GLOBALLY")
    a.sql(
        "CREATE TABLE orders (id INT NOT NULL, customer INT, total DECIMAL(12, 2), PRIMARY KEY (id))"
        " DISTRIBUTED BY (id)"
    )
    a.sql(
        "CREATE TABLE items (order_id INT NOT NULL, line INT NOT NULL, price DOUBLE, PRIMARY KEY (order_id, line))"
        " DISTRIBUTED BY (order_id)"
    )
    a.sql("INSERT INTO customers VALUES (1, 'Ann'), (2, 'Bob'), (3, 'Cid')")
    a.call("crud.insert_many", "orders", [[i, i % 3 + 1, i] for i in range(300)])
    a.call("crud.insert_many", "items", [[i, line, line * 1.5] for i in range(300) for line in range(3)])
    return cluster


def error_of(instance, text, *params):
    with pytest.raises(tarantool.error.DatabaseError) as raised:
        instance.sql(text, *params)
    return raised.value.args[0], raised.value.args[1]


def is_refused(instance, text, code):
    """Whether the statement is refused with this code; any other error is raised."""
    try:
        instance.sql(text)
    except tarantool.error.DatabaseError as error:
        if error.args[0] != code:
            raise
        return True
    return False


QUERIES = [
    ("SELECT count(*) FROM orders", [[300]]),
    ("SELECT id FROM orders WHERE id = 17", [[17]]),
    ("SELECT id, customer FROM orders ORDER BY id DESC LIMIT 3", [[299, 3], [298, 2], [297, 1]]),
    (
        "SELECT c.name, count(*), sum(o.total) FROM orders o JOIN customers c ON c.id = o.customer"
        " GROUP BY c.name ORDER BY c.name",
        [["Ann", 100, 14850], ["Bob", 100, 14950], ["Cid", 100, 15050]],
    ),
    ("SELECT count(*), sum(i.price) FROM orders o JOIN items i ON i.order_id = o.id", [[900, 1350.0]]),
    ("SELECT count(*) FROM orders a JOIN orders b ON a.customer = b.customer", [[30000]]),
    ("SELECT count(*) FROM orders WHERE id NOT IN (SELECT order_id FROM items WHERE order_id < 100)", [[200]]),
    (
        "SELECT name FROM customers WHERE id = 2 UNION ALL SELECT name FROM customers WHERE id = 3 ORDER BY 1",
        [["Bob"], ["Cid"]],
    ),
    ("SELECT customer, count(*) FROM orders GROUP BY customer HAVING min(id) > 0 ORDER BY 1", [[2, 100], [3, 100]]),
    ("WITH big AS (SELECT * FROM orders WHERE total > 290) SELECT count(*), min(id) FROM big", [[9, 291]]),
    (
        "SELECT id, row_number() OVER (PARTITION BY customer ORDER BY id DESC) AS r FROM orders ORDER BY r, id LIMIT 4",
        [[297, 1], [298, 1], [299, 1], [294, 2]],
    ),
]


@pytest.mark.parametrize("text, rows", QUERIES)
def test_every_instance_answers_alike(shop, text, rows):
    for instance in shop:
        assert instance.sql(text) == rows


def test_explain_shows_what_runs_where(shop):
    plan = "\n".join(row[0] for row in shop[1].sql("EXPLAIN SELECT customer, count(*) FROM orders GROUP BY customer"))
    final, gather, partial = (plan.index(words) for words in ("mode=Final", "Gather from", "mode=Partial"))
    assert final < gather < partial, plan
    names = [r["name"] for r in shop[1].status()["replicasets"]]
    assert all(name in plan for name in names), plan
    assert shop[1].sql("EXPLAIN ANALYZE SELECT count(*) FROM orders")


def test_parameters(shop):
    for instance in shop:
        assert instance.sql("SELECT id FROM orders WHERE id = ?", 5) == [[5]]
        assert instance.sql("SELECT count(*) FROM orders WHERE id >= $2 AND id < $1", 20, 10) == [[10]]
    code, message = error_of(shop[0], "SELECT id FROM orders WHERE id = ?")
    assert code == 20002, message
    code, message = error_of(shop[0], "SELECT id FROM orders WHERE id = ?", 1, 2)
    assert code == 20002, message


def test_metadata_names_and_types(shop):
    answer = shop[2].call("sql", "SELECT id, total, customer AS c FROM orders WHERE id = 1", [])
    assert answer["metadata"] == [
        {"name": "id", "type": "integer"},
        {"name": "total", "type": "decimal"},
        {"name": "c", "type": "integer"},
    ]


def test_every_type_round_trips(shop):
    columns = {
        "b": ("BOOLEAN", True),
        "s": ("SMALLINT", -5),
        "i": ("INT", 1 << 30),
        "l": ("BIGINT", -(1 << 60)),
        "d": ("DOUBLE", 0.1),
        "n": ("DECIMAL(20, 4)", decimal.Decimal("1234.5678")),
        "t": ("TEXT", "zażółć 'quoted'"),
        "v": ("VARCHAR(3)", "abc"),
        "u": ("UUID", uuid.UUID("64d22e4d-ac92-4a23-899a-e59f34af5479")),
        "da": ("DATE", "2024-02-29"),
        "ts": ("TIMESTAMP", "2024-02-29 12:34:56.789"),
    }
    shop[0].sql(f"CREATE TABLE types (id INT PRIMARY KEY, {', '.join(f'{k} {v[0]}' for k, v in columns.items())})")
    marks = ", ".join("?" for _ in columns)
    values = [v[1] for v in columns.values()]
    for i, instance in enumerate(shop):
        assert instance.sql(f"INSERT INTO types VALUES ({i}, {marks})", *values) == 1
    for instance in shop:
        for i in range(4):
            assert instance.sql("SELECT * FROM types WHERE id = ?", i) == [[i, *values]]
        assert instance.sql("SELECT * FROM types ORDER BY id") == [[i, *values] for i in range(4)]


def test_changes_count_rows_and_show_everywhere(shop):
    shop[0].sql("CREATE TABLE changes (id INT PRIMARY KEY, v INT)")
    assert shop[1].sql("INSERT INTO changes VALUES (1, 1), (2, 2), (3, 3), (4, 4)") == 4
    assert shop[2].sql("UPDATE changes SET v = v * 10 WHERE id > 1") == 3
    assert shop[3].sql("UPDATE changes SET v = v + 1 WHERE id = 1") == 1
    assert shop[0].sql("DELETE FROM changes WHERE v = 40") == 1
    assert shop[1].sql("DELETE FROM changes WHERE id = 99") == 0
    for instance in shop:
        assert instance.sql("SELECT * FROM changes ORDER BY id") == [[1, 2], [2, 20], [3, 30]]
    assert shop[1].sql("INSERT INTO changes SELECT id + 10, v FROM changes") == 3
    assert shop[2].sql("SELECT count(*) FROM changes") == [[6]]


def test_schema_changes_are_everywhere_when_answered(shop):
    for instance in shop:
        name = f"ddl{next(_names)}"
        instance.sql(f"CREATE TABLE {name} (id INT PRIMARY KEY, v INT)")
        for other in shop:
            assert other.sql(f"SELECT count(*) FROM {name}") == [[0]]
        instance.sql(f"CREATE INDEX {name}_v ON {name} (v)")
        instance.sql(f"DROP TABLE {name}")
        for other in shop:
            assert error_of(other, f"SELECT * FROM {name}")[0] == 20101


ERRORS = [
    ("SELEC 1", 20100, ["line 1"]),
    ("SELECT *\nFROM orders\nWHERE id === 3", 20100, ["line 3"]),
    ("SELECT 'open", 20100, []),
    ("", 20100, []),
    ("SELECT 1; SELECT 2", 20100, ["line 1, column 11"]),
    ("SELECT * FROM ordrs", 20101, ["ordrs", "orders"]),
    ("SELECT totl FROM orders", 20102, ["totl", "total"]),
    ("SELECT no_such_function(1)", 20104, ["no_such_function"]),
    ("DROP TABLE nowhere", 20101, ["nowhere"]),
    ("DROP INDEX nowhere", 20103, ["nowhere"]),
    ("CREATE TABLE orders (id INT PRIMARY KEY)", 20105, ["orders"]),
    ("CREATE TABLE keyed (id INT, PRIMARY KEY (id), PRIMARY KEY (id))", 20106, ["primary key"]),
    ("CREATE TABLE twice (id INT PRIMARY KEY, id INT)", 20106, ["id"]),
    ("CREATE TABLE sharded (a INT PRIMARY KEY, b INT) DISTRIBUTED BY (b)", 20106, ["primary key"]),
    ("INSERT INTO orders VALUES (1, 1, 1)", 20109, []),
    ("INSERT INTO orders VALUES (NULL, 1, 1)", 20108, ["id"]),
    ("INSERT INTO orders VALUES ('x', 1, 1)", 20107, []),
    ("INSERT INTO orders VALUES (99999999999, 1, 1)", 20110, []),
    ("INSERT INTO orders VALUES (1000, 1, 123456789012.5)", 20110, []),
    ("INSERT INTO customers VALUES (1000, 'more than its twenty characters')", 20110, ["name"]),
    ("INSERT INTO orders (id) VALUES (1, 2)", 20106, []),
    ("UPDATE orders SET nothing = 1", 20102, ["nothing"]),
    ("SELECT 1 / 0", 20111, []),
]


@pytest.mark.parametrize("text, code, words", ERRORS)
def test_errors_have_codes_and_say_what_and_where(shop, text, code, words):
    for instance in shop:
        found, message = error_of(instance, text)
        assert found == code, message
        for word in words:
            assert word.lower() in message.lower()
    assert shop[0].sql("SELECT count(*) FROM orders") == [[300]]


LARGE = {
    "10,000 ORs": "SELECT count(*) FROM orders WHERE " + " OR ".join(f"id = {i}" for i in range(10_000)),
    "500 parentheses": "SELECT " + "(" * 500 + "1" + ")" * 500,
    "100,000 parentheses": "SELECT " + "(" * 100_000 + "1" + ")" * 100_000,
    "100 nested subqueries": "SELECT * FROM " + "(SELECT * FROM " * 100 + "orders" + ")" * 100,
    "a list of 50,000": "SELECT count(*) FROM orders WHERE id IN (" + ", ".join(map(str, range(50_000))) + ")",
    "1,000 unary minuses": "SELECT " + "- " * 1000 + "1",
    "200 joins": "SELECT 1 FROM customers c0 "
    + " ".join(f"JOIN customers c{i} ON c{i}.id = c0.id" for i in range(1, 200)),
    "a megabyte literal": "SELECT length('" + "x" * (1 << 20) + "')",
}


@pytest.mark.parametrize("what", LARGE)
def test_monstrous_statements_get_an_answer_or_an_error(shop, what):
    try:
        assert isinstance(shop[1].call("sql", LARGE[what], [], {"timeout": 20})["rows"], list)
    except tarantool.error.DatabaseError as error:
        assert 20000 <= error.args[0] < 21000, error
    for instance in shop:
        assert instance.sql("SELECT count(*) FROM orders") == [[300]]


def test_a_result_beyond_the_limit_is_refused(shop):
    text = "SELECT a.id FROM orders a CROSS JOIN orders b"
    shop[0].call("set_setting", "sql_rows_max", 1000)
    try:
        for instance in shop:
            wait_until(lambda i=instance: is_refused(i, text, 20200), "the setting to arrive")
            assert len(instance.sql("SELECT * FROM items LIMIT 1000")) == 900
    finally:
        shop[0].call("set_setting", "sql_rows_max", None)
    wait_until(lambda: not is_refused(shop[1], text, 20200), "the default to be back")
    assert len(shop[1].sql(text)) == 90_000


def test_a_query_beyond_its_time_is_ended(shop):
    text = (
        "SELECT count(*) FROM items a CROSS JOIN items b CROSS JOIN items c CROSS JOIN items d"
        " WHERE a.price + b.price > c.price * d.price"
    )
    with pytest.raises(tarantool.error.DatabaseError) as raised:
        shop[0].call("sql", text, [], {"timeout": 0.3})
    assert raised.value.args[0] == 20201
    assert shop[0].sql("SELECT count(*) FROM orders") == [[300]]


def test_wrong_arguments_are_refused(shop):
    for args in [
        (),
        (1,),
        ("SELECT 1", 5),
        ("SELECT 1", [], 5),
        ("SELECT 1", [], {"tiemout": 1}),
        ("SELECT 1", [], {}, 1),
    ]:
        with pytest.raises(tarantool.error.DatabaseError) as raised:
            shop[0].call("sql", *args)
        assert raised.value.args[0] == 20002, args


def lookups(instance, text):
    """What each scan of a join's larger side looked up."""
    lines = [line for (line,) in instance.sql("EXPLAIN ANALYZE " + text)]
    return [line.split("lookups=")[1].split(",")[0] for line in lines if "lookups=" in line]


def test_an_instance_without_buckets_knows_how_large_tables_are(workshop):
    *storages, router = workshop.cluster(3).start().wait_balanced()
    mine = next(i["replicaset"] for i in router.status()["instances"] if i["name"] == router.name)
    router.call("set_weight", mine, 0)

    def owns_nothing():
        return [r["buckets"] for r in router.status()["replicasets"] if r["name"] == mine] == [0]

    wait_until(owns_nothing, "the router to own no bucket", timeout_s=60)
    router.sql("CREATE TABLE shop (id INT PRIMARY KEY, name TEXT) DISTRIBUTED GLOBALLY")
    router.sql("CREATE TABLE sale (id INT PRIMARY KEY, shop INT)")
    router.call("crud.insert_many", "shop", [[i, f"s{i}"] for i in range(20)])
    router.call("crud.insert_many", "sale", [[i, i % 20] for i in range(5000)])
    text = "SELECT count(*) FROM sale JOIN shop ON shop.id = sale.shop"
    assert router.sql(text) == [[5000]]

    def planned_rows():
        lines = [line for (line,) in router.sql("EXPLAIN " + text) if "Scan " in line]
        return [(line.split("Scan ")[1].split(" ")[0], int(line.split("rows~")[1])) for line in lines]

    def smaller_side_first():
        (first, few), (second, many) = planned_rows()
        return (first, few, second) == ("shop", 20, "sale") and 4000 < many < 6000

    wait_until(smaller_side_first, "the router to hear of the rows")
    # It goes on without the storages, as far as it can.
    for storage in storages:
        storage.stop()
    assert router.sql("SELECT count(*) FROM shop") == [[20]]


def test_joins_look_up_few_keys_at_every_instance(cluster):
    a = cluster[0]
    a.sql("CREATE TABLE buyer (id INT PRIMARY KEY, name TEXT)")
    a.sql("CREATE TABLE sale (id INT PRIMARY KEY, buyer INT, total INT)")
    a.sql("CREATE INDEX sale_buyer ON sale (buyer)")
    a.call("crud.insert_many", "buyer", [[i, f"b{i}"] for i in range(1000)])
    a.call("crud.insert_many", "sale", [[i, i % 1000, i] for i in range(4000)])
    replicasets = len(a.status()["replicasets"])
    # How many rows there are is heard of in a while.
    few = "SELECT count(*), sum(s.total) FROM buyer b JOIN sale s ON s.buyer = b.id WHERE b.name IN ('b5', 'b17')"
    wait_until(lambda: lookups(a, few) == ["2 by sale_buyer"] * replicasets, "all to look both up")
    assert a.sql(few) == [[8, 4 * 22 + 2 * 6000]]
    by_key = "SELECT b.name FROM sale s JOIN buyer b ON b.id = s.buyer WHERE s.id IN (7, 8, 1008)"
    assert sorted(a.sql(by_key)) == [["b7"], ["b8"], ["b8"]]
    many = "SELECT count(*) FROM buyer b JOIN sale s ON s.buyer = b.id WHERE b.name <> 'b5'"
    assert a.sql(many) == [[3996]]
    assert lookups(a, many) == ["0 by sale_buyer"] * replicasets
    a.sql("DROP TABLE sale")
    a.sql("DROP TABLE buyer")
