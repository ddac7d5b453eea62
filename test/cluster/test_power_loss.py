"""A machine that loses power without `wal_mode = 'fsync'` loses the end of an instance's log: the others have what was
acknowledged, and it comes back with it."""

import pytest
from harness import wait_until
from power import Power

ROWS = 300
DIED_AT_A_POINT = 137


@pytest.fixture
def failpoint(workshop):
    return workshop.folder / "failpoint"


@pytest.fixture
def cluster(workshop, failpoint):
    return workshop.pairs(env={"PICODATA_FAILPOINTS": str(failpoint)})


def fail(power):
    """The instance dies, has lost what came later, and starts."""
    power.instance.kill()
    assert power.lose() > 0
    power.instance.start()


def fill(asked, first):
    asked.call("crud.insert_many", "t", [[key, key] for key in range(first, first + ROWS)])
    for key in range(3):
        asked.call("set_setting", "sql_rows_max", 1000 + first + key)


def rows_max(instance):
    return next(setting["value"] for setting in instance.call("settings") if setting["name"] == "sql_rows_max")


def has_all(cluster, rows):
    cluster.wait_whole()
    cluster.wait_in_sync()
    version = max(i.status()["catalog_version"] for i in cluster)
    for instance in cluster:
        wait_until(lambda i=instance: i.status()["catalog_version"] >= version, "the catalog to be there")
        assert instance.sql("SELECT count(*), sum(v) FROM t") == [[rows, rows * (rows - 1) // 2]]
    held = "local n = 0 for _, row in box.space.t:pairs() do n = n + row[3] end return {box.space.t:count(), n}"
    for replicaset in cluster[0].status()["replicasets"]:
        members = [i for i in cluster if i.name in replicaset["in_sync"]]
        assert len(members) == 2
        same = [member.eval(held)[0] for member in members]
        assert same[0] == same[1]


@pytest.mark.parametrize("leads", [False, True], ids=["a follower", "the leader of Raft"])
@pytest.mark.parametrize("role", ["master", "replica"])
def test_an_instance_that_lost_the_end_of_its_log_gets_it_back(cluster, role, leads):
    leader = cluster.leader()
    fill(leader, 0)
    status = leader.status()
    masters = {r["master"] for r in status["replicasets"]}
    if leads and (leader.name in masters) != (role == "master"):
        home = next(i["replicaset"] for i in status["instances"] if i["name"] == leader.name)
        leader.call("switchover", home)
        masters = {r["master"] for r in leader.status()["replicasets"]}
    is_fit = lambda i: (i is leader) == leads and (i.name in masters) == (role == "master")  # noqa: E731
    loser = next(i for i in cluster if is_fit(i))
    asked = next(i for i in cluster if i is not loser)
    power = Power(loser)
    fill(asked, ROWS)
    fail(power)
    has_all(cluster, 2 * ROWS)
    # It can be relied on again.
    home = next(i["replicaset"] for i in asked.status()["instances"] if i["name"] == loser.name)
    asked.call("switchover", home)
    fill(asked, 2 * ROWS)
    has_all(cluster, 3 * ROWS)


@pytest.mark.parametrize("point", ["anew.identity_written", "start.log_cleared"])
def test_it_may_die_again_on_the_way_back(cluster, failpoint, point):
    leader = cluster.leader()
    fill(leader, 0)
    loser = next(i for i in cluster if i is not leader)
    power = Power(loser)
    fill(leader, ROWS)
    version = leader.status()["catalog_version"]
    wait_until(lambda: loser.status()["catalog_version"] >= version, "it to have what it is to lose")
    failpoint.write_text(f"{point} exit")
    fail(power)
    assert loser.exit_code() == DIED_AT_A_POINT
    loser.start()
    has_all(cluster, 2 * ROWS)
    assert "begins again without its Raft log" in loser.log()


def test_one_that_is_alone_keeps_the_rows_that_it_has(workshop):
    """Nobody else has them: it begins with those that are left, and with the catalog of the others."""
    cluster = workshop.cluster(3).start().wait_balanced()
    leader = cluster.leader()
    leader.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    leader.call("crud.insert_many", "t", [[key, key] for key in range(ROWS)])
    loser = next(i for i in cluster if i is not leader)
    power = Power(loser)
    leader.sql("CREATE TABLE later (id INT PRIMARY KEY)")
    leader.sql("INSERT INTO later VALUES (1), (2), (3), (4), (5), (6)")
    for value in range(1000, 1010):
        leader.call("set_setting", "sql_rows_max", value)
    fail(power)
    cluster.wait_whole()
    assert loser.sql("SELECT count(*), sum(v) FROM t") == [[ROWS, ROWS * (ROWS - 1) // 2]]
    assert 0 < loser.sql("SELECT count(*) FROM later")[0][0] <= 6
    loser.sql("INSERT INTO later SELECT id + 100 FROM t")
    assert loser.sql("SELECT count(*) FROM later WHERE id >= 100") == [[ROWS]]


def test_what_may_be_lost_depends_on_how_it_was_written(workshop):
    """Not on `wal_mode` now: nobody is master with what is left while the one that has everything is away."""
    cluster = workshop.cluster(6, replication_factor=2).start().wait_balanced()
    cluster[0].sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    cluster.wait_in_sync()
    name, master, replica, asked = cluster.pick()
    power = Power(replica)
    asked.call("crud.insert_many", "t", [[key, key] for key in range(ROWS)])
    for end in (lambda i: i.pause(), lambda i: i.kill()):
        end(master)
        end(replica)
    assert power.lose() > 0
    replica.config["wal_mode"] = "fsync"
    replica.start()
    wait_until(lambda: asked.in_sync(name) == {master.name}, "nobody to count on what the replica has")
    master.start()
    cluster.wait_whole()
    assert asked.sql("SELECT count(*), sum(v) FROM t") == [[ROWS, ROWS * (ROWS - 1) // 2]]


def test_the_only_voter_comes_back_behind_its_learner(workshop):
    """Changes of the catalog that it had made alone are lost; rows are not, and the learner takes over its catalog."""
    cluster = workshop.cluster(2, replication_factor=2).start().wait_balanced()
    leader = cluster.leader()
    learner = next(i for i in cluster if i is not leader)
    leader.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    cluster.wait_in_sync()
    fill(leader, 0)
    power = Power(leader)
    fill(leader, ROWS)
    version = leader.status()["catalog_version"]
    wait_until(lambda: learner.status()["catalog_version"] >= version, "the learner to have what is to be lost")
    fail(power)
    wait_until(lambda: "begins again without its Raft log" in learner.log(), "the learner to notice")
    cluster.wait_whole()
    cluster.wait_in_sync()
    for instance in cluster:
        assert instance.sql("SELECT count(*), sum(v) FROM t") == [[2 * ROWS, ROWS * (2 * ROWS - 1)]]
    assert {rows_max(i) for i in cluster} == {1002}
    fill(learner, 2 * ROWS)
    assert leader.sql("SELECT count(*) FROM t") == [[3 * ROWS]]
