"""What is too large for the cluster's log, and memory that is full: refused with the reason, and all else goes on."""

import pytest
import tarantool
from harness import wait_until

LIMIT_EXCEEDED, STORAGE = 20200, 20400
MEMORY_BYTES = 32 << 20
KIB = "x" * 1000


def refused(instance, code, function, *args):
    with pytest.raises(tarantool.error.DatabaseError) as raised:
        instance.call(function, *args)
    assert raised.value.args[0] == code, raised.value
    return raised.value.args[1]


def test_what_no_entry_of_the_log_takes_is_refused_and_stops_nobody(workshop):
    cluster = workshop.cluster(3, replication_factor=3).start()
    asked = cluster[1]
    asked.sql("CREATE TABLE g (id INT PRIMARY KEY, v TEXT) DISTRIBUTED GLOBALLY")
    leader = asked.status()["leader"]
    for text, params in [
        ("INSERT INTO g VALUES (2, ?)", ["x" * 3_000_000]),
        ("INSERT INTO g VALUES (2, ?)", ["x" * 1_048_500]),
        (f"INSERT INTO g VALUES {', '.join(f'({n}, ?)' for n in range(1500))}", [KIB] * 1500),
        (f"CREATE VIEW w AS SELECT '{'x' * 1_048_400}' AS x", []),
    ]:
        assert "log" in refused(asked, LIMIT_EXCEEDED, "sql", text, params), text
    refused(asked, LIMIT_EXCEEDED, "crud.insert_many", "g", [[n, KIB] for n in range(1500)])
    asked.sql("INSERT INTO g VALUES (1, 'a')")
    refused(asked, LIMIT_EXCEEDED, "sql", "UPDATE g SET v = repeat('x', 2000000)")
    assert all(i.status()["leader"] == leader for i in cluster)
    for instance in cluster:
        wait_until(lambda i=instance: i.sql("SELECT * FROM g") == [[1, "a"]], "the row everywhere")
    # As much as an entry takes.
    asked.sql("INSERT INTO g VALUES (2, ?)", "x" * 1_000_000)
    assert asked.sql("SELECT id, length(v) FROM g ORDER BY id") == [[1, 1], [2, 1_000_000]]


def fill(instance):
    """Answers how many rows were taken until not one of many more was."""
    begins = instance.sql("SELECT coalesce(max(id), 0) + 1 FROM t")[0][0]
    taken, refusals = 0, 0
    while refusals < 50:
        try:
            instance.call("crud.insert", "t", [begins + taken + refusals, KIB])
            taken += 1
        except tarantool.error.DatabaseError as error:
            assert error.args[0] == STORAGE, error
            assert "memtx_memory" in error.args[1], error
            refusals += 1
    return taken


def test_an_instance_whose_memory_is_full_refuses_rows_and_goes_on(workshop):
    cluster = workshop.cluster(4, replication_factor=2, memtx_memory=MEMORY_BYTES).start().wait_balanced()
    asked = cluster[1]
    asked.sql("CREATE TABLE t (id INT PRIMARY KEY, v TEXT)")
    asked.sql("CREATE TABLE g (id INT PRIMARY KEY, v TEXT) DISTRIBUTED GLOBALLY")
    cluster.wait_in_sync()
    taken = fill(asked)
    assert taken > 10_000
    leader = asked.status()["leader"]
    # A large row of a global table is on every instance, however full.
    for _ in range(3):
        refused(asked, STORAGE, "sql", "INSERT INTO g VALUES (1, ?)", ["x" * 100_000])
    asked.sql("INSERT INTO g VALUES (2, 'a')")
    asked.call("set_setting", "sql_rows_max", 999_999)
    assert asked.sql("SELECT count(*) FROM t") == [[taken]]
    assert all(i.status()["leader"] == leader for i in cluster)
    assert asked.sql("DELETE FROM t WHERE id < 3000") > 0
    assert asked.sql("INSERT INTO t VALUES (-1, 'a')") == 1
    asked.sql("TRUNCATE t")
    asked.sql("INSERT INTO g VALUES (1, ?)", "x" * 10_000)
    # The host frees what was truncated by and by.
    wait_until(lambda: fill(asked) > 10_000, "room for rows")
    assert asked.sql("SELECT id, length(v) FROM g ORDER BY id") == [[1, 10_000], [2, 1]]
