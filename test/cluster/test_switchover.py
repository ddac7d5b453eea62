"""What is planned is not noticed: a master hands over when asked, and whoever shuts down hands over what it leads."""

import concurrent.futures
import itertools
import threading
import time

import pytest
import tarantool
from harness import wait_until

ARGUMENT, CONFLICT, NO_SUCH_REPLICASET = 20002, 20300, 20310
WRITES = 200


class Writers:
    """Clients that replace rows through one instance; any error at all is kept."""

    def __init__(self, instance, count=8):
        self.errors, self.written, self.is_over = [], itertools.count(), threading.Event()
        self.total = 0
        self.threads = [
            threading.Thread(target=self.write, args=(instance.connect(timeout_s=60), n)) for n in range(count)
        ]
        for thread in self.threads:
            thread.daemon = True
            thread.start()

    def write(self, connection, number):
        for key in itertools.count(number, len(self.threads)):
            if self.is_over.is_set():
                return
            try:
                connection.call("picodata.crud.replace", ("t", [key % 1000, key]))
                self.total = next(self.written) + 1
            except (tarantool.error.Error, OSError) as error:
                self.errors.append(error)

    def more(self):
        before = self.total
        wait_until(lambda: self.total > before + WRITES, "more writes")

    def end(self):
        self.is_over.set()
        for thread in self.threads:
            thread.join()
        return self.errors


@pytest.fixture
def cluster(workshop):
    return workshop.pairs()


@pytest.fixture
def unheard(workshop):
    """A master hands over to its replica before it hears that this one has its last row. Answers the two, the name of
    their replicaset, and the write that waits."""
    _, relay, master, replica = workshop.pair_behind_relay()
    name = master.status()["replicasets"][0]["name"]
    master.call("set_setting", "offline_after_ms", 600_000)
    relay.acknowledging.clear()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        writing = pool.submit(master.connect(timeout_s=60).call, "picodata.crud.replace", ("t", [1, 1]))
        try:
            wait_until(lambda: replica.eval("return box.space.t:count()") == [1], "the replica to have the row")
            time.sleep(0.3)  # So long it reports to the leader that its follower lacks the row.
            assert not writing.done()
            assert replica.call("switchover", name) == replica.name
        finally:
            relay.lose_acknowledgements()
        yield master, replica, name, writing


def test_a_write_that_all_have_is_acknowledged_though_its_master_never_heard_so(unheard):
    _, replica, _, writing = unheard
    writing.result()
    assert replica.sql("SELECT * FROM t") == [[1, 1]]


def test_a_new_master_counts_nobody_out_who_had_no_time_to_acknowledge(unheard):
    """If it were lost just then, nobody could take over."""
    master, replica, name, _ = unheard
    master.call("set_setting", "offline_after_ms", 800)
    time.sleep(1)  # What nobody acknowledged while it was the master is older than that now.
    assert replica.call("switchover", name, master.name) == master.name
    wait_until(lambda: replica.in_sync(name) == {master.name, replica.name}, "both to be in sync")
    changes = [line for i in (master, replica) for line in i.log().splitlines() if f"{name} has in sync: " in line]
    assert len(changes) == 1, "the replica was counted in when it joined"


def test_a_switchover_is_not_seen_by_clients(cluster):
    name, master, replica, asked = cluster.pick()
    uuids = [i.eval("return box.info.uuid")[0] for i in (master, replica)]
    writers = Writers(asked)
    writers.more()
    assert asked.call("switchover", name) == replica.name
    writers.more()
    assert asked.call("switchover", name, master.name) == master.name
    writers.more()
    assert asked.call("switchover", name, master.name) == master.name, "it is the master already"
    assert writers.end() == []
    assert [i.eval("return box.info.uuid")[0] for i in (master, replica)] == uuids, "nothing was left behind"


def test_a_switchover_to_nobody_is_refused(cluster):
    name, master, replica, asked = cluster.pick()

    def refused(*args):
        with pytest.raises(tarantool.error.DatabaseError) as raised:
            asked.call("switchover", *args)
        return raised.value.args[0]

    assert refused("nowhere") == NO_SUCH_REPLICASET
    assert refused(name, asked.name) == ARGUMENT
    assert refused(7) == ARGUMENT
    replica.kill()
    wait_until(
        lambda: next(i for i in asked.status()["instances"] if i["name"] == replica.name)["state"] == "Offline",
        "the replica to be offline",
    )
    assert refused(name) == CONFLICT
    assert cluster.master_of(name) is master


@pytest.mark.parametrize("with_leader", [False, True])
def test_a_master_that_shuts_down_hands_over_first(cluster, with_leader):
    name, master, replica, asked = cluster.pick(with_leader)
    writers = Writers(asked)
    writers.more()
    master.stop()
    writers.more()
    assert writers.end() == []
    assert next(r for r in asked.status()["replicasets"] if r["name"] == name)["master"] == replica.name
    assert master.exit_code() == 0
