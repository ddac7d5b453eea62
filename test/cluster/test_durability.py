"""Tables whose writes wait for the replicas, and tables whose writes do not."""

import threading

import pytest
import tarantool
from harness import wait_until

ARGUMENT, INVALID_STATEMENT, UNKNOWN, SCHEMA_ABORTED = 20002, 20106, 20202, 20311


@pytest.fixture
def pair(workshop):
    """One replicaset of two with a table of each durability; it asks its replica for long before it counts it out."""
    cluster = workshop.cluster(2, replication_factor=2).start().wait_balanced()
    cluster[0].sql("CREATE TABLE safe (id INT PRIMARY KEY, v INT) WITH (durability = 'replicated')")
    cluster[0].sql("CREATE TABLE fast (id INT PRIMARY KEY, v INT) WITH (durability = 'local')")
    cluster.wait_in_sync()
    cluster[0].call("set_setting", "offline_after_ms", 60_000)
    name = cluster[0].status()["replicasets"][0]["name"]
    master = cluster.master_of(name)
    return master, next(i for i in cluster if i is not master)


def outcome(instance, text):
    """The number of the error that a statement ends in; None when there is none."""
    try:
        instance.call("sql", text, [], {"timeout": 5})
    except tarantool.error.DatabaseError as error:
        return error.args[0]
    return None


def stop_following(replica):
    before = replica.eval("local before = box.cfg.replication box.cfg{replication = {}} return before")[0]
    return lambda: replica.eval("box.cfg{replication = ...}", before)


class Write(threading.Thread):
    def __init__(self, instance, table, row):
        super().__init__(daemon=True)
        self.connection, self.words, self.error = instance.connect(timeout_s=60), (table, row), None
        self.start()

    def run(self):
        try:
            self.connection.call("picodata.crud.insert", self.words)
        except tarantool.error.DatabaseError as error:
            self.error = error.args[0]


@pytest.mark.parametrize("through", ["master", "replica"])
def test_a_local_write_does_not_wait_for_the_replica(pair, through):
    master, replica = pair
    asked = master if through == "master" else replica
    follow = stop_following(replica)
    waits = [Write(asked, "safe", [key, key]) for key in range(3)]
    for key in range(100):
        asked.call("crud.insert", "fast", [key, key])
    asked.sql("INSERT INTO fast VALUES (100, 1), (101, 1)")
    asked.call("crud.update", "fast", 0, [["=", "v", 7]])
    assert asked.sql("SELECT v FROM fast WHERE id = 0") == [[7]]
    assert asked.call("crud.count", "fast", []) == 102
    assert asked.sql("UPDATE fast SET v = 7 WHERE v = 1") == 3
    assert asked.sql("SELECT count(*), min(v) FROM fast") == [[102, 2]]
    assert replica.eval("return box.space.fast:count()")[0] == 0
    assert all(write.is_alive() for write in waits), "the others wait"
    follow()
    for write in waits:
        write.join(60)
        assert not write.is_alive() and write.error is None
    assert replica.eval("return box.space.safe:count()")[0] == len(waits)
    wait_until(lambda: replica.eval("return box.space.fast:count()")[0] == 102, "the replica to have the others too")


def test_a_replicated_write_that_nobody_acknowledges_is_unknown(pair):
    master, replica = pair
    stop_following(replica)
    master.call("set_setting", "ack_timeout_ms", 200)
    for statement in [
        "INSERT INTO safe VALUES (1, 1)",
        "BEGIN; INSERT INTO fast VALUES (1, 1); INSERT INTO safe VALUES (2, 1); COMMIT",
    ]:
        with pytest.raises(tarantool.error.DatabaseError) as raised:
            master.sql(statement)
        assert raised.value.args[0] == UNKNOWN, statement
    master.sql("BEGIN; INSERT INTO fast VALUES (3, 1); INSERT INTO fast VALUES (4, 1); COMMIT")


def test_a_local_write_is_taken_without_the_replica(pair):
    master, replica = pair
    master.call("set_setting", "min_in_sync", 2)
    master.call("set_setting", "ack_timeout_ms", 200)
    replica.kill()
    assert outcome(master, "INSERT INTO safe VALUES (1, 1)") == UNKNOWN, "the replica is not counted out"
    assert outcome(master, "INSERT INTO fast VALUES (1, 1)") is None
    master.sql("ALTER TABLE safe SET (durability = local)")
    assert outcome(master, "INSERT INTO safe VALUES (2, 1)") is None
    assert outcome(master, "ALTER TABLE fast SET (durability = 'REPLICATED')") == SCHEMA_ABORTED, "no row of it is safe"
    assert outcome(master, "INSERT INTO fast VALUES (2, 1)") is None
    replica.start()
    wait_until(
        lambda: outcome(master, "ALTER TABLE fast SET (durability = replicated)") is None, "the replica to have all"
    )
    replica.kill()
    assert outcome(master, "INSERT INTO fast VALUES (3, 1)") == UNKNOWN


def test_what_is_no_durability_is_refused(pair):
    master, _ = pair
    columns = "(id INT PRIMARY KEY)"
    for statement in [
        f"CREATE TABLE x {columns} WITH (durability = 'eventual')",
        f"CREATE TABLE x {columns} WITH (durability = 1)",
        f"CREATE TABLE x {columns} WITH (durable = 'local')",
        f"CREATE TABLE x {columns} WITH (durability = 'local', durability = 'local')",
        f"CREATE TABLE x {columns} DISTRIBUTED GLOBALLY WITH (durability = 'local')",
        "ALTER TABLE safe SET (durability = 'none')",
    ]:
        assert outcome(master, statement) == INVALID_STATEMENT, statement
    options = {"name": "x", "columns": [["id", "integer"]], "primary_key": ["id"]}
    with pytest.raises(tarantool.error.DatabaseError) as raised:
        master.call("create_table", {**options, "durability": "eventual"})
    assert raised.value.args[0] == ARGUMENT
    assert master.call("create_table", {**options, "durability": "local"}) is True
    plan = [row[0] for row in master.sql("EXPLAIN INSERT INTO x VALUES (1)")]
    assert any("before the replicas have it" in line for line in plan), plan
    assert not any("before the replicas" in row[0] for row in master.sql("EXPLAIN INSERT INTO safe VALUES (1, 1)"))


def test_settings_are_listed_with_their_defaults_and_documented(pair):
    master, _ = pair
    listed = {setting["name"]: setting for setting in master.call("settings")}
    assert listed["offline_after_ms"]["value"] == 60_000 != listed["offline_after_ms"]["default"]
    assert all(setting["meaning"].endswith(".") for setting in listed.values())
    with open("../../docs/settings.md") as page:
        rows = [[cell.strip(" `") for cell in line.split("|")[1:3]] for line in page if line.startswith("| `")]
    assert rows == [[name, str(setting["default"]).lower()] for name, setting in listed.items()]
