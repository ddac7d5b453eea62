"""With the majority of the voters gone, what could be wrong is refused; an operator can have the others go on."""

import contextlib

import pytest
import tarantool
from harness import wait_until

ARGUMENT, TIMEOUT, UNKNOWN, CONFLICT = 20002, 20201, 20202, 20300
NO_LEADER, NO_MASTER, UNREACHABLE = 20301, 20302, 20305
NOBODY = {NO_MASTER, UNREACHABLE, TIMEOUT}
ROWS = 1000


def code_of(instance, function, *args):
    """The code of a refusal; None when there was none."""
    try:
        instance.call(function, *args)
    except tarantool.error.DatabaseError as error:
        return error.args[0]
    return None


def refused(instance, function, *args):
    """The code and the message of a refusal."""
    with pytest.raises(tarantool.error.DatabaseError) as raised:
        instance.call(function, *args)
    return raised.value.args[0], raised.value.args[1]


@pytest.fixture
def failpoint(workshop):
    return workshop.folder / "failpoint"


@pytest.fixture
def cluster(workshop, failpoint):
    """Two replicasets of two, all members in sync, with rows in both; three of the four vote."""
    env = {"PICODATA_FAILPOINTS": str(failpoint)}
    cluster = workshop.cluster(4, replication_factor=2, env=env).start().wait_balanced()
    asked = cluster[0]
    asked.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    asked.sql("CREATE TABLE g (id INT PRIMARY KEY, v INT) DISTRIBUTED GLOBALLY")
    wait_until(lambda: all(len(r["in_sync"]) == 2 for r in asked.status()["replicasets"]), "all to be in sync")
    asked.call("crud.insert_many", "t", [[i, i] for i in range(ROWS)])
    asked.sql("INSERT INTO g VALUES (1, 10), (2, 20)")
    wait_until(lambda: len(voters(cluster)) == 3, "three voters")
    return cluster


def voters(cluster):
    return {i["name"] for i in cluster[0].status()["instances"] if i["voter"]}


def homes(cluster):
    return {i["name"]: i["replicaset"] for i in cluster[0].status()["instances"]}


def lose(cluster, names):
    # All at once: a leader that outlives the first of them has another instance vote in its place.
    for name in names:
        cluster.by_name(name).pause()
    for name in names:
        cluster.by_name(name).kill()
    left = [i for i in cluster if i.name not in names]
    for instance in left:
        wait_until(lambda i=instance: i.status()["leader"] is None, "the leader to be missed")
    return left


def one_voter_of_each(cluster):
    """Two voters of different replicasets: the majority, and yet nobody's last copy."""
    homes_of = homes(cluster)
    first, *others = sorted(voters(cluster))
    return {first, next(name for name in others if homes_of[name] != homes_of[first])}


def recover(left, lost):
    """Has the survivor with the longest log go on, once it has noticed that the others are gone; answers the plan."""

    def attempt():
        for instance in left:
            with contextlib.suppress(tarantool.error.DatabaseError):
                plan = instance.call("recover", {"lost": sorted(lost)})
                instance.call("recover", {"lost": sorted(lost), "confirm": plan["confirm"]})
                instance.disconnect()
                return plan
        return None

    return wait_until(attempt, "a survivor that may go on")


def test_without_a_majority_nothing_is_promised_and_nothing_made_up(cluster):
    left = lose(cluster, one_voter_of_each(cluster))
    for instance in left:
        # The master has no lease, or is among the lost.
        wait_until(lambda i=instance: code_of(i, "crud.replace", "t", [1, 2]) in NOBODY, "the lease to be over")
        assert code_of(instance, "crud.get", "t", 1) in NOBODY
        code, _ = refused(instance, "sql", "CREATE TABLE u (id INT PRIMARY KEY)", [], {"timeout": 3})
        # Whether a leader that was there a moment ago has taken it is not known.
        assert code in (NO_LEADER, TIMEOUT, UNKNOWN)
        assert refused(instance, "set_setting", "min_in_sync", 1)[0] == NO_LEADER
        assert len(instance.status()["instances"]) == 4, "what it knows of the cluster is told"


def test_the_survivors_go_on_with_every_acknowledged_row_and_the_lost_stay_out(cluster):
    lost = one_voter_of_each(cluster)
    left = lose(cluster, lost)
    plan = recover(left, lost)
    assert plan["behind"] == [] and plan["gone"] == [] and "no row is lost" in plan["summary"]
    asked = left[0]
    for instance in left:
        wait_until(lambda i=instance: i.status()["leader"] is not None, "a leader")
    wait_until(lambda: asked.sql("SELECT count(*) FROM t") == [[ROWS]], "all rows to be read")
    assert asked.sql("SELECT sum(v) FROM g") == [[30]]
    wait_until(lambda: asked.sql("UPDATE t SET v = v + 1") == ROWS, "all rows to be written")
    asked.sql("CREATE TABLE u (id INT PRIMARY KEY)")
    states = {i["name"]: i["state"] for i in asked.status()["instances"]}
    assert {name for name, state in states.items() if state == "Expelled"} == lost
    back = cluster.by_name(sorted(lost)[0])
    back.start()
    assert back.exit_code() != 0
    assert "was expelled" in back.log()
    new = cluster.add(name="i5").start()
    cluster.wait_on(new, lambda i: i.sql("SELECT count(*) FROM t") == [[ROWS]], "a newcomer to serve")


def test_a_replicaset_that_is_gone_leaves_its_buckets_empty(cluster):
    homes_of, votes = homes(cluster), voters(cluster)
    gone = next(r for r in set(homes_of.values()) if sum(homes_of[name] == r for name in votes) == 2)
    lost = {name for name, home in homes_of.items() if home == gone}
    kept = sum(cluster.master_of(r).eval("return box.space.t:count()")[0] for r in set(homes_of.values()) if r != gone)
    left = lose(cluster, lost)
    plan = recover(left, lost)
    assert plan["gone"] == [gone] and "with all rows" in plan["summary"]
    asked = left[0]
    wait_until(lambda: asked.sql("SELECT count(*) FROM t") == [[kept]], "the rows that are left")
    asked.call("crud.replace_many", "t", [[i, i] for i in range(ROWS)])
    assert asked.sql("SELECT count(*) FROM t") == [[ROWS]]


def test_recovery_is_refused_where_it_would_do_harm(cluster):
    asked = cluster[0]
    lost = one_voter_of_each(cluster)
    code, message = refused(asked, "recover", {"lost": sorted(lost - {asked.name})})
    assert code == ARGUMENT and "majority" in message
    assert refused(asked, "recover", {"lose": ["i2"]})[0] == ARGUMENT
    left = lose(cluster, lost)
    one, other = left
    code, message = refused(one, "recover", {"lost": sorted(lost | {other.name})})
    assert code == ARGUMENT and "answers" in message
    code, message = refused(one, "recover", {"lost": sorted(lost)[:1]})
    assert code == UNREACHABLE and sorted(lost)[1] in message
    assert refused(one, "recover", {"lost": [*lost, "nobody"]})[0] == 20309
    assert refused(one, "recover", {"lost": [one.name]})[0] == ARGUMENT
    codes = {refused(i, "recover", {"lost": sorted(lost), "confirm": "yes"})[0] for i in left}
    assert CONFLICT in codes and codes <= {CONFLICT, ARGUMENT}, "one has the longer log, or both are equal"
    assert all(i.status()["leader"] is None for i in left), "nothing was done"


@pytest.mark.parametrize("point", ["recover.written"])
def test_a_death_in_the_middle_leaves_all_done_or_nothing(cluster, failpoint, point):
    lost = one_voter_of_each(cluster)
    left = lose(cluster, lost)
    failpoint.write_text(f"{point} exit")
    with contextlib.suppress(tarantool.error.Error, OSError, AssertionError):
        recover(left, lost)
    assert not failpoint.exists()
    dead = next(i for i in left if not i.is_running())
    dead.disconnect()
    dead.start()
    if point == "recover.writing":
        wait_until(lambda: code_of(dead, "recover", {"lost": [dead.name]}) == ARGUMENT, "it to be asked")
        recover(left, lost)
    asked = next(i for i in left if i is not dead)
    wait_until(lambda: asked.status()["leader"] is not None, "a leader")
    wait_until(lambda: asked.sql("SELECT count(*) FROM t") == [[ROWS]], "all rows to be read")


def test_with_a_majority_a_replicaset_goes_on_without_the_only_one_that_had_everything(cluster):
    homes_of = homes(cluster)
    asked = cluster[0]
    name = next(r for r in sorted(set(homes_of.values())) if homes_of[asked.name] != r)
    master = cluster.master_of(name)
    replica = next(i for i in cluster if homes_of[i.name] == name and i is not master)
    kept = replica.eval("return box.space.t:count()")[0]
    replica.kill()
    wait_until(lambda: asked.in_sync(name) == {master.name}, "the replica to be counted out")
    wait_until(lambda: replica.name not in voters(cluster), "another to vote in its place")
    asked.call("crud.insert_many", "t", [[i, i] for i in range(ROWS, 2 * ROWS)])
    master.kill()
    wait_until(lambda: cluster[0].status()["leader"] in homes_of.keys() - {master.name, replica.name}, "a leader")
    wait_until(lambda: states(asked)[master.name] == "Offline", "the master to be missed")
    replica.start()
    wait_until(lambda: states(asked)[replica.name] == "Online", "the replica to be back")
    assert code_of(asked, "crud.count", "t") in NOBODY | {TIMEOUT}
    lost = {"lost": [master.name]}
    plan = asked.call("recover", lost)
    assert plan["behind"] == [name] and plan["gone"] == []
    assert (
        "may lose its last acknowledged writes" in plan["summary"] and "Changes of the catalog" not in plan["summary"]
    )
    assert refused(asked, "recover", {**lost, "confirm": "yes"})[0] == CONFLICT
    assert refused(asked, "recover", {"lost": [replica.name]})[0] == ARGUMENT, "it answers"
    asked.call("recover", {**lost, "confirm": plan["confirm"]})
    wait_until(lambda: asked.in_sync(name) == {replica.name}, "the replica to be master")
    assert replica.eval("return box.space.t:count()")[0] == kept
    assert asked.call("crud.replace_many", "t", [[i, i] for i in range(2 * ROWS)])
    assert asked.sql("SELECT count(*) FROM t") == [[2 * ROWS]]
    assert states(asked)[master.name] == "Expelled"
    master.start()
    assert master.exit_code() != 0
    assert "was expelled" in master.log()


def test_with_a_majority_a_replicaset_that_is_gone_leaves_its_buckets_empty(workshop):
    cluster = workshop.cluster(4).start().wait_balanced()
    asked = cluster[0]
    asked.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    asked.call("crud.insert_many", "t", [[i, i] for i in range(ROWS)])
    wait_until(lambda: len(voters(cluster)) == 3, "three voters")
    leader = cluster.leader()
    gone = next(i for i in cluster if i not in (asked, leader))
    kept = ROWS - gone.eval("return box.space.t:count()")[0]
    gone.kill()
    wait_until(lambda: states(asked)[gone.name] == "Offline", "it to be missed")
    plan = asked.call("recover", {"lost": [gone.name]})
    assert plan["gone"] == [homes(cluster)[gone.name]] and plan["behind"] == []
    asked.call("recover", {"lost": [gone.name], "confirm": plan["confirm"]})
    wait_until(lambda: asked.sql("SELECT count(*) FROM t") == [[kept]], "the rows that are left")
    asked.call("crud.replace_many", "t", [[i, i] for i in range(ROWS)])
    assert asked.sql("SELECT count(*) FROM t") == [[ROWS]]
    code, message = refused(asked, "recover", {"lost": [gone.name]})
    assert code == ARGUMENT and "expelled already" in message


def states(instance):
    return {i["name"]: i["state"] for i in instance.status()["instances"]}


def test_a_stamp_that_is_not_this_process_s_grants_no_lease(workshop):
    """The leader may send one that an earlier process at the address gave, before the machine was started again."""
    cluster = workshop.cluster(3, replication_factor=3).start()
    cluster.wait_in_sync()
    cluster[0].sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    master = cluster.master_of(cluster[0].status()["replicasets"][0]["name"])
    for stamp in (1, 1 << 62):
        master.connect().call("picodata.peer.report", (b"", stamp, 600_000))
    for other in cluster:
        if other is not master:
            other.kill()
    wait_until(lambda: code_of(master, "crud.get", "t", 1) in NOBODY, "the lease to be over")
