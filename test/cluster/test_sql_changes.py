"""Changes and definitions on real processes: transactions, numbers given out once, schema changes under load, and
errors that say what was done where."""

import threading

import pytest
import tarantool


def error_of(instance, text, *params):
    with pytest.raises(tarantool.error.DatabaseError) as raised:
        instance.sql(text, *params)
    return raised.value.args[0], raised.value.args[1]


@pytest.fixture
def table(cluster, request):
    """Makes tables and drops them after the test."""
    made = []

    def make(name, definition):
        cluster[0].sql(f"CREATE TABLE {name} ({definition[0]}) {definition[1]}")
        made.append(name)
        return name

    yield make
    for name in made:
        cluster[0].sql(f"DROP TABLE IF EXISTS {name} CASCADE")


def owner_of(cluster, table, key):
    """The replicaset that EXPLAIN names for a change of this key."""
    lines = [row[0] for row in cluster[0].sql(f"EXPLAIN UPDATE {table} SET n = 0 WHERE {key}")]
    line = next(line for line in lines if "writes to" in line)
    assert "one replicaset" in line, lines
    return line.split("replicaset, ")[1].split(":")[0]


def test_a_transaction_is_done_whole_or_not_at_all(cluster, table):
    columns = "owner INT, name TEXT, n INT NOT NULL CHECK (n >= 0), PRIMARY KEY (owner, name)"
    table("account", (columns, "DISTRIBUTED BY (owner)"))
    cluster[0].sql("INSERT INTO account VALUES (1, 'a', 100), (1, 'b', 0), (2, 'a', 50)")
    move = (
        "BEGIN; UPDATE account SET n = n - ? WHERE owner = 1 AND name = 'a';"
        " UPDATE account SET n = n + ? WHERE owner = 1 AND name = 'b';"
        " SELECT n FROM account WHERE owner = 1 AND name = 'a';"
        " INSERT INTO account VALUES (1, ?, 7) ON CONFLICT DO NOTHING; COMMIT"
    )
    for number, instance in enumerate(cluster):
        answer = instance.call("sql", move, [10, 10, f"extra {number}"])
        assert answer["row_count"] == 3, answer
        kinds = [("rows" in result, result.get("row_count")) for result in answer["results"]]
        assert kinds == [(False, 1), (False, 1), (True, None), (False, 1)]
        # It sees what those before it did.
        assert answer["results"][2]["rows"] == [[90 - 10 * number]]
    before = cluster[1].sql("SELECT * FROM account ORDER BY owner, name")
    code, message = error_of(cluster[1], move, 1000, 1000, "never")
    assert code == 20112 and "account_n_check" in message
    duplicate = (
        "BEGIN; DELETE FROM account WHERE owner = 1 AND name = 'b'; INSERT INTO account VALUES (1, 'a', 1); COMMIT"
    )
    code, message = error_of(cluster[0], duplicate)
    assert code == 20109, message
    for instance in cluster:
        assert instance.sql("SELECT * FROM account ORDER BY owner, name") == before


def test_a_transaction_over_several_replicasets_is_refused(cluster, table):
    table("place", ("id INT PRIMARY KEY, n INT", ""))
    cluster[0].sql("INSERT INTO place VALUES " + ", ".join(f"({i}, 0)" for i in range(20)))
    owners = {i: owner_of(cluster, "place", f"id = {i}") for i in range(20)}
    here = [i for i in owners if owners[i] == owners[0]]
    there = next(i for i in owners if owners[i] != owners[0])
    text = "BEGIN; UPDATE place SET n = 1 WHERE id = {}; UPDATE place SET n = 1 WHERE id = {}; COMMIT"
    assert cluster[2].sql(text.format(here[0], here[1])) == 2
    code, message = error_of(cluster[1], text.format(here[0], there))
    assert code == 20106 and owners[here[0]] in message and owners[there] in message
    for instance in cluster:
        assert instance.sql("SELECT count(*) FROM place WHERE n = 1") == [[2]]


REFUSED = [
    ("BEGIN", 20004, "without COMMIT"),
    ("BEGIN; SELECT 1", 20004, "without COMMIT"),
    ("BEGIN; UPDATE place2 SET n = 1; COMMIT", 20004, "statement 1"),
    ("BEGIN; INSERT INTO place2 VALUES (1, 1); SELECT count(*) FROM place2; COMMIT", 20004, "statement 2"),
    ("BEGIN; DROP TABLE place2; COMMIT", 20004, "takes SELECT"),
    ("BEGIN; COMMIT; SELECT 1", 20100, "behind COMMIT"),
    ("BEGIN; ROLLBACK", 20100, "rolls itself back"),
    ("BEGIN; SELEC 1; COMMIT", 20100, "SELEC"),
    ("BEGIN; DELETE FROM place2 WHERE id = ?; COMMIT", 20002, "parameters"),
    ("SELECT 1; SELECT 2", 20100, "one statement a call"),
]


@pytest.mark.parametrize("text, code, words", REFUSED)
def test_what_is_no_transaction_is_refused(cluster, table, text, code, words):
    table("place2", ("id INT PRIMARY KEY, n INT", ""))
    for instance in cluster:
        found, message = error_of(instance, text)
        assert (found, words in message) == (code, True), message
        assert instance.sql("SELECT count(*) FROM place2") == [[0]]


def test_an_error_on_one_replicaset_says_what_was_done_where(cluster, table):
    table("part", ("id INT PRIMARY KEY, n INT", ""))
    ids = range(40)
    owners = {i: owner_of(cluster, "part", f"id = {i}") for i in ids}
    taken = next(iter(ids))
    cluster[0].sql(f"INSERT INTO part VALUES ({taken}, -1)")
    values = ", ".join(f"({i}, {i})" for i in ids)
    other = next(owner for owner in owners.values() if owner != owners[taken])
    done = sum(owner == other for owner in owners.values())
    for text in (
        f"INSERT INTO part VALUES {values}",
        f"INSERT INTO part SELECT a, b + 0 FROM (VALUES {values}) v (a, b)",
    ):
        code, message = error_of(cluster[1], text)
        assert code == 20109, message
        assert f"{other}: {done} rows changed" in message, message
        assert f"{owners[taken]}: nothing changed" in message, message
        assert cluster[2].sql("SELECT count(*) FROM part") == [[done + 1]]
        cluster[0].sql("DELETE FROM part WHERE n <> -1")


def test_explain_says_how_many_replicasets_a_change_writes_to(cluster, table):
    table("plan", ("a INT, b INT, n INT, PRIMARY KEY (a, b)", "DISTRIBUTED BY (a)"))
    table("plan_global", ("id INT PRIMARY KEY, n INT", "DISTRIBUTED GLOBALLY"))
    names = [r["name"] for r in cluster[0].status()["replicasets"]]

    def line(text):
        return next(row[0] for row in cluster[1].sql("EXPLAIN " + text) if "writes" in row[0])

    assert "one replicaset" in line("INSERT INTO plan VALUES (1, 1, 1), (1, 2, 2)")
    assert "one replicaset" in line("UPDATE plan SET n = 1 WHERE a = 1 AND n < 5")
    assert "one replicaset" in line("DELETE FROM plan AS p WHERE 7 = p.a")
    for text in (
        "UPDATE plan SET n = 1",
        "DELETE FROM plan WHERE b = 1 OR a = 1",
        "INSERT INTO plan SELECT a + 1, b, n FROM plan",
    ):
        assert f"up to {len(names)} replicasets" in line(text), line(text)
    assert "all or nothing in the whole cluster" in line("UPDATE plan_global SET n = 1")


def test_numbers_are_given_out_once_in_the_whole_cluster(cluster, table):
    table("ticket", ("id BIGINT GENERATED ALWAYS AS IDENTITY (CACHE 7) PRIMARY KEY, who INT", ""))
    table("trace", ("who INT", ""))
    found, errors = [], []

    def take(number, instance):
        connection = instance.connect(timeout_s=60)
        try:
            for _ in range(40):
                text = "INSERT INTO ticket (who) VALUES (?) RETURNING id"
                answer = connection.call("picodata.sql", (text, [number]))[0]
                found.append(answer["rows"][0][0])
                connection.call("picodata.sql", ("INSERT INTO trace VALUES (?), (?)", [number, number]))
        except Exception as error:  # noqa: BLE001 - whatever it is, the test reports it
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=take, args=(n, i)) for n, i in enumerate(cluster)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(found) == len(set(found)) == 40 * len(cluster)
    assert cluster[0].sql("SELECT count(*), count(DISTINCT id) FROM ticket") == [[len(found), len(found)]]
    assert cluster[0].sql("SELECT count(*) FROM trace") == [[2 * len(found)]]


def test_a_definition_changes_under_statements_that_run(cluster, table):
    table("busy", ("id INT PRIMARY KEY, n INT NOT NULL", ""))
    cluster[0].sql("INSERT INTO busy VALUES " + ", ".join(f"({i}, 1)" for i in range(200)))
    stop, errors, wrote = threading.Event(), [], []

    def work(number, instance):
        connection = instance.connect(timeout_s=60)
        key = 1000 * (number + 1)
        try:
            while not stop.is_set():
                key += 1
                for text, params in (
                    ("INSERT INTO busy (id, n) VALUES (?, 1)", [key]),
                    ("UPDATE busy SET n = n + 0 WHERE id = ?", [key]),
                    ("SELECT count(*), sum(n), min(n) FROM busy WHERE id < 200", []),
                    ("SELECT * FROM busy WHERE id = 7", []),
                ):
                    try:
                        answer = connection.call("picodata.sql", (text, params))[0]
                    except tarantool.error.DatabaseError as error:
                        # A statement that can be sent again, or not have been done for sure.
                        if error.args[0] != 20306:
                            raise
                        continue
                    if "count" in text:
                        assert answer["rows"] == [[200, 200, 1]], answer
                    elif "SELECT *" in text:
                        columns = [column["name"] for column in answer["metadata"]]
                        row = dict(zip(columns, answer["rows"][0], strict=True))
                        assert (row["id"], row["n"]) == (7, 1), row
                        assert row.get("added", 5) == 5 and row.get("gone") is None, row
                wrote.append(key)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test reports it
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(n, i)) for n, i in enumerate(cluster)]
    for thread in threads:
        thread.start()
    try:
        a = cluster[1]
        for round_ in range(3):
            a.sql("ALTER TABLE busy ADD COLUMN added INT NOT NULL DEFAULT 5")
            a.sql("ALTER TABLE busy ADD CONSTRAINT positive CHECK (n > 0)")
            a.sql("ALTER TABLE busy ADD COLUMN gone TEXT")
            a.sql("CREATE INDEX by_n ON busy (n)")
            assert error_of(cluster[round_], "INSERT INTO busy (id, n) VALUES (-1, -1)")[0] == 20112
            a.sql("ALTER TABLE busy DROP COLUMN gone")
            a.sql("DROP INDEX by_n")
            a.sql("ALTER TABLE busy DROP CONSTRAINT positive")
            a.sql("ALTER TABLE busy DROP COLUMN added")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors, errors
    assert wrote
    assert cluster[0].sql("SELECT count(*), sum(n) FROM busy WHERE id < 200") == [[200, 200]]


def test_a_restart_finds_definitions_and_gives_out_no_number_again(workshop):
    cluster = workshop.cluster(2).start()
    a = cluster[0]
    a.sql("CREATE TABLE kept (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n INT CHECK (n > 0))")
    a.sql("CREATE SEQUENCE counter CACHE 5")
    a.sql("ALTER TABLE kept ADD COLUMN late TEXT DEFAULT 'x'")
    a.sql("CREATE VIEW seen AS SELECT n, late FROM kept")
    insert = "INSERT INTO kept (n) VALUES (?) RETURNING id"
    before = {i.sql(insert, 1)[0][0] for _ in range(3) for i in cluster}
    counted = {i.sql("SELECT nextval('counter')")[0][0] for _ in range(3) for i in cluster}
    assert (len(before), len(counted)) == (6, 6)
    cluster.kill()
    cluster.start()
    after = {i.sql(insert, 2)[0][0] for i in cluster}
    assert not before & after
    assert not counted & {i.sql("SELECT nextval('counter')")[0][0] for i in cluster}
    for instance in cluster:
        assert instance.sql("SELECT count(*), min(late) FROM seen") == [[8, "x"]]
        assert error_of(instance, "INSERT INTO kept (n) VALUES (0)")[0] == 20112


def test_crud_is_held_to_the_same_definitions(cluster, table):
    table("both", ("id INT PRIMARY KEY, n INT CHECK (n > 0), key UUID DEFAULT gen_random_uuid()", ""))
    table("nameless", ("n INT", ""))
    a = cluster[1]
    a.call("crud.insert", "both", [1, 1, None])
    for function, args in (
        ("crud.insert", ("both", [2, 0, None])),
        ("crud.replace", ("both", [1, -1, None])),
        ("crud.update", ("both", 1, [["-", "n", 1]])),
        ("crud.upsert", ("both", [1, 1, None], [["=", "n", 0]])),
    ):
        with pytest.raises(tarantool.error.DatabaseError) as raised:
            a.call(function, *args)
        assert raised.value.args[0] == 20112, raised.value
    with pytest.raises(tarantool.error.DatabaseError) as raised:
        a.call("crud.insert", "both", [3, 1])
    assert raised.value.args[0] == 20004, raised.value
    with pytest.raises(tarantool.error.DatabaseError) as raised:
        a.call("crud.insert", "nameless", [1])
    assert raised.value.args[0] == 20004, raised.value
    a.sql("INSERT INTO nameless VALUES (5)")
    assert [list(row) for row in a.call("crud.select", "nameless", [])["rows"]] == [[5]]
    a.sql("ALTER TABLE both ADD COLUMN late INT DEFAULT 4")
    assert list(cluster[2].call("crud.get", "both", 1)["rows"][0]) == [1, 1, None, 4]
    a.call("crud.update", "both", 1, [["+", "late", 1]])
    a.sql("ALTER TABLE both DROP COLUMN key")
    assert list(cluster[2].call("crud.get", "both", 1)["rows"][0]) == [1, 1, 5]
    a.call("crud.insert", "both", [9, 9, 9])
    assert cluster[0].sql("SELECT * FROM both ORDER BY id") == [[1, 1, 5], [9, 9, 9]]


def test_a_unique_key_within_a_replicaset_is_kept(cluster, table):
    table("visit", ("person TEXT, page TEXT, CONSTRAINT once UNIQUE (person, page)", "DISTRIBUTED BY (person)"))
    cluster[0].sql("INSERT INTO visit VALUES ('ann', '/'), ('bob', '/')")
    for instance in cluster:
        code, message = error_of(instance, "INSERT INTO visit VALUES ('ann', '/')")
        assert code == 20109 and "once" in message, message
        assert instance.sql("INSERT INTO visit VALUES ('ann', '/') ON CONFLICT DO NOTHING") == 0
    assert cluster[1].sql("SELECT * FROM visit ORDER BY person") == [["ann", "/"], ["bob", "/"]]
