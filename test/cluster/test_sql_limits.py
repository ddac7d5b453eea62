"""What a statement may use, how it is ended, and that nothing of it stays open at any instance."""

import pathlib
import signal
import threading

import pytest
import tarantool
from harness import wait_until

LIMIT_EXCEEDED, TIMEOUT, CANCELLED, ARGUMENT = 20200, 20201, 20203, 20002
NO_SUCH_INSTANCE, UNREACHABLE, NO_MASTER = 20309, 20305, 20302
ROWS = 3000

# Each takes minutes: at the storages, which answer nothing before they are done; at the router; in both.
AT_STORAGES = "SELECT count(*) FROM t JOIN g a ON TRUE JOIN g b ON TRUE WHERE t.v + a.v > b.v * 3"
SOME = "(SELECT v FROM t LIMIT 2900)"
AT_ROUTER = f"SELECT count(*) FROM {SOME} a, {SOME} b, {SOME} c WHERE a.v + b.v > c.v * 3"
TUPLES = "SELECT a.v + b.v + c.v + d.v AS s FROM t JOIN g a ON TRUE JOIN g b ON TRUE JOIN g c ON TRUE JOIN g d ON TRUE"
MANY_ROWS = f"SELECT count(*) FROM ({TUPLES} LIMIT 80000000000000) x"
# One step of a join, which would end with the first pair that it finds.
NOTHING_AT_STORAGES = "SELECT t.v FROM t JOIN (SELECT a.v + b.v + c.v AS v FROM g a, g b, g c) g ON t.v > g.v + 100000"
NOTHING_AT_ROUTER = f"SELECT 1 FROM {SOME} a JOIN (SELECT b.v + c.v AS v FROM {SOME} b, {SOME} c) d ON a.v > d.v + 9999"
LONG = {
    "storages": AT_STORAGES,
    "router": AT_ROUTER,
    "rows": MANY_ROWS,
    "nothing-at-storages": NOTHING_AT_STORAGES,
    "nothing-at-router": NOTHING_AT_ROUTER,
}


@pytest.fixture(scope="module")
def loaded(shared_workshop):
    """Three replicasets of one instance, with a sharded and a global table."""
    cluster = shared_workshop.cluster(3).start().wait_balanced()
    fill(cluster)
    return cluster


def fill(cluster):
    cluster[0].sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    cluster[0].sql("CREATE TABLE g (id INT PRIMARY KEY, v INT) DISTRIBUTED GLOBALLY")
    rows = [[i, i] for i in range(ROWS)]
    for table in ("t", "g"):
        cluster[0].call("crud.insert_many", table, rows)


def timers(instance):
    """The threads that timers of a process signal."""
    lines = pathlib.Path(f"/proc/{instance.process.pid}/timers").read_text().splitlines()
    return [int(line.split("tid.")[1]) for line in lines if line.startswith("notify:")]


def workers(instance):
    """The worker threads of a process."""
    tasks = pathlib.Path(f"/proc/{instance.process.pid}/task").iterdir()
    return [int(task.name) for task in tasks if (task / "comm").read_text().strip() == "pico-worker"]


def is_signal(instance, thread, mask):
    """Whether SIGURG is in a mask of a thread."""
    lines = pathlib.Path(f"/proc/{instance.process.pid}/task/{thread}/status").read_text().splitlines()
    bits = next(int(line.split()[1], 16) for line in lines if line.startswith(f"{mask}:"))
    return bool(bits >> (signal.SIGURG - 1) & 1)


def test_worker_threads_are_made_to_yield(loaded):
    a = loaded[0]
    assert a.sql("SELECT max(r) FROM (SELECT row_number() OVER (ORDER BY v DESC) AS r FROM t) x") == [[ROWS]]
    assert timers(a), "a thread that has computed has a timer"
    assert set(timers(a)) <= set(workers(a))
    for thread in timers(a):
        assert not is_signal(a, thread, "SigBlk") and is_signal(a, thread, "SigCgt")


def test_signals_that_somebody_sends_do_no_harm(loaded):
    a = loaded[0]
    asked = Asked(a, "SELECT count(*) FROM t JOIN g a ON TRUE WHERE t.v + a.v > 0")
    while asked.is_alive():
        a.process.send_signal(signal.SIGURG)
        asked.join(0.001)
    assert asked.outcome() is None
    assert asked.answer["rows"] == [[ROWS * ROWS - 1]]


def error_of(instance, text, options, params=()):
    with pytest.raises(tarantool.error.DatabaseError) as raised:
        instance.call("sql", text, list(params), options)
    return raised.value.args[0]


class Asked(threading.Thread):
    """A statement that another thread waits for; `error` is the number of the error that it ended with."""

    def __init__(self, instance, text, options=None):
        super().__init__(daemon=True)
        self.connection = instance.connect(timeout_s=120)
        self.words, self.error, self.answer = (text, [], options or {"timeout": 100}), None, None
        self.start()

    def run(self):
        try:
            self.answer = self.connection.call("picodata.sql", self.words)[0]
        except tarantool.error.DatabaseError as error:
            self.error = error.args[0]
        except (tarantool.error.Error, OSError):
            self.error = "the instance is gone"

    def outcome(self):
        self.join(60)
        assert not self.is_alive(), "the statement did not end"
        return self.error


def listed(instance, text):
    """The ids of what runs with this text anywhere, as one instance sees it."""
    return [query["id"] for query in instance.call("queries")["queries"] if query["text"] == text]


def assert_nothing_open(cluster):
    seen = {}

    def nothing():
        seen.update(cluster.running()[0].call("queries"))
        said = {i["name"]: i for i in seen["instances"]}
        closed = {"fragments": 0, "scans": 0, "moments": 0, "memory_bytes": 0}
        return not seen["queries"] and all(closed.items() <= said[i.name].items() for i in cluster.running())

    try:
        wait_until(nothing, "nothing to be open anywhere")
    except AssertionError as error:
        raise AssertionError(f"open still: {seen}") from error


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_query_is_cancelled_by_its_id_from_any_instance(loaded, text):
    asked = Asked(loaded[0], text)
    number = wait_until(lambda: listed(loaded[1], text), "the query to be listed")[0]
    assert number.startswith(f"{loaded[0].name}-")
    assert loaded[2].call("cancel", number) is True
    assert asked.outcome() == CANCELLED
    assert loaded[2].call("cancel", number) is False
    assert_nothing_open(loaded)


# A fiber that asks and is cancelled waits no longer; its statement is not listed any more, so nobody else could end it.
LEAVE = """
    local fiber, picodata = require('fiber'), require('picodata')
    local asked = fiber.new(picodata.sql, ..., {}, {timeout = 3600})
    asked:set_joinable(true)
    while #picodata.queries().queries == 0 do fiber.yield() end
    asked:cancel()
    local _, cause = asked:join()
    return cause.code
"""


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_query_ends_when_who_asked_is_cancelled(loaded, text):
    assert loaded[0].eval(LEAVE, text)[0] == CANCELLED
    assert_nothing_open(loaded)


# Ends a query of several parts again and again, after ever more turns of the event loop: between any two of its steps.
CANCEL_EARLY = """
    local text, times = ...
    local fiber, picodata, ended = require('fiber'), require('picodata'), 0
    for turns = 1, times do
        local asked = fiber.new(function() return picodata.sql(text, {}, {timeout = 100}) end)
        asked:set_joinable(true)
        for _ = 1, 20 * turns do fiber.yield() end
        for _, query in ipairs(picodata.queries().queries) do picodata.cancel(query.id) end
        local is_answered, cause = asked:join()
        if not is_answered and cause.code == 20203 then ended = ended + 1 end
    end
    return ended
"""


def test_a_query_that_is_cancelled_between_any_two_of_its_steps_leaves_nothing_open(loaded):
    assert loaded[0].eval(CANCEL_EARLY, AT_ROUTER, 300)[0] > 0
    assert_nothing_open(loaded)


def test_ids_that_name_nothing_are_refused(loaded):
    for argument, code in [("i1", ARGUMENT), ("i1-x", ARGUMENT), (1, ARGUMENT), ("i9-1", NO_SUCH_INSTANCE)]:
        with pytest.raises(tarantool.error.DatabaseError) as raised:
            loaded[0].call("cancel", argument)
        assert raised.value.args[0] == code, argument


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_query_ends_at_its_deadline_everywhere(loaded, text):
    assert error_of(loaded[0], text, {"timeout": 0.3}) == TIMEOUT
    assert_nothing_open(loaded)


def test_a_query_stays_within_the_memory_of_its_call(loaded):
    # A sort of nine million rows, and a hash table of as many groups.
    pairs = "(SELECT a.v * 10000 + b.v AS k FROM g a CROSS JOIN g b)"
    for text in [
        f"SELECT k FROM {pairs} x ORDER BY k DESC OFFSET 8999999",
        f"SELECT count(*) FROM (SELECT k, count(*) AS n FROM {pairs} x GROUP BY k) y",
        f"SELECT count(*) FROM {pairs} x JOIN {pairs} y ON x.k = y.k",
    ]:
        assert error_of(loaded[0], text, {"memory_max_mb": 16}) == LIMIT_EXCEEDED, text
        assert_nothing_open(loaded)
    assert loaded[0].call("sql", "SELECT count(*) FROM t", [], {"memory_max_mb": 16})["rows"] == [[ROWS]]


def memory_mb(instance, what):
    """What /proc says of a process' memory."""
    lines = pathlib.Path(f"/proc/{instance.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(what))


@pytest.mark.parametrize(
    "text",
    [
        "SELECT repeat('x', 900000), id FROM t",
        "SELECT id, length(repeat('x', 900000) || id) FROM t",
        "SELECT max(length(lpad(id::TEXT, 900000))) FROM t",
        "SELECT length(string_agg(repeat('x', 900000), ',')) FROM t",
        "SELECT count(x) FROM (SELECT max(repeat('x', 900000)) AS x FROM t GROUP BY id) s",
        "SELECT count(*) FROM (SELECT DISTINCT t.id, s.x FROM t, (VALUES (repeat('x', 900000))) s (x)) u",
    ],
)
def test_a_long_text_for_each_row_is_refused_before_it_is_made(loaded, text):
    before = {}
    for instance in loaded:
        # The peak of its memory begins again.
        pathlib.Path(f"/proc/{instance.process.pid}/clear_refs").write_text("5")
        before[instance.name] = memory_mb(instance, "VmHWM")
    assert error_of(loaded[0], text, {"memory_max_mb": 128}) == LIMIT_EXCEEDED
    assert_nothing_open(loaded)
    # A replicaset has a third of the rows: 900 MB.
    assert all(memory_mb(instance, "VmHWM") - before[instance.name] < 600 for instance in loaded)


def test_a_query_answers_no_more_rows_than_its_call_takes(loaded):
    assert error_of(loaded[0], "SELECT id FROM t", {"rows_max": ROWS - 1}) == LIMIT_EXCEEDED
    assert len(loaded[0].call("sql", "SELECT id FROM t", [], {"rows_max": ROWS})["rows"]) == ROWS
    assert_nothing_open(loaded)


def test_options_that_make_no_sense_are_refused(loaded):
    for options in [{"rows_max": 0}, {"memory_max_mb": -1}, {"timeout": 0}, {"timeout": 1e9}, {"rows": 1}]:
        assert error_of(loaded[0], "SELECT 1", options) == ARGUMENT, options


def test_more_queries_than_places_wait(loaded):
    loaded[0].call("set_setting", "sql_concurrent_max", 1)
    try:
        first = Asked(loaded[0], MANY_ROWS)
        wait_until(lambda: listed(loaded[0], MANY_ROWS), "the first query to be listed")

        def is_full():
            try:
                loaded[0].call("sql", "SELECT count(*) + 0 FROM t", [], {"timeout": 0.2})
            except tarantool.error.DatabaseError as error:
                return error.args[0] == LIMIT_EXCEEDED
            return False

        wait_until(is_full, "the first query to take the only place")
        waits = "SELECT count(*) + 1 FROM t"
        second = Asked(loaded[0], waits)
        wait_until(lambda: listed(loaded[0], waits), "the second query to be listed")
        assert loaded[0].sql("SELECT v FROM t WHERE id = 7") == [[7]], "a statement on a key needs no place"
        assert loaded[0].call("cancel", listed(loaded[0], MANY_ROWS)[0])
        assert first.outcome() == CANCELLED
        assert second.outcome() is None
        assert second.answer["rows"] == [[ROWS + 1]]
    finally:
        loaded[0].call("set_setting", "sql_concurrent_max", None)
    assert_nothing_open(loaded)


def test_a_change_that_is_cancelled_before_it_writes_wrote_nothing(loaded):
    text = f"UPDATE t SET v = -1 WHERE v IN ({AT_STORAGES.replace('t.v', 't.id')})"
    asked = Asked(loaded[0], text)
    number = wait_until(lambda: listed(loaded[0], text), "the statement to be listed")[0]
    assert loaded[1].call("cancel", number) is True
    assert asked.outcome() == CANCELLED
    assert loaded[1].sql("SELECT count(*), min(v) FROM t") == [[ROWS, 0]]
    assert_nothing_open(loaded)


@pytest.fixture
def own(workshop):
    """A cluster that may be broken, with its leader, which is asked, and another instance."""
    cluster = workshop.cluster(3).start().wait_balanced()
    fill(cluster)
    leader = cluster.leader()
    victim = next(i for i in cluster if i is not leader)
    return cluster, leader, victim


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_silent_storage_ends_the_query_at_its_deadline(own, text):
    cluster, asked, victim = own
    victim.pause()
    try:
        assert error_of(asked, text, {"timeout": 1}) in (TIMEOUT, UNREACHABLE, NO_MASTER)
    finally:
        victim.resume()
    cluster.wait_whole()
    assert_nothing_open(cluster)


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_dying_storage_ends_the_query(own, text):
    cluster, asked, victim = own
    query = Asked(asked, text, {"timeout": 5})
    wait_until(lambda: listed(asked, text), "the query to be listed")
    victim.kill()
    assert query.outcome() is not None
    assert_nothing_open(cluster)


def test_a_dying_router_leaves_nothing_at_the_storages(own):
    cluster, asked, victim = own
    Asked(victim, AT_STORAGES, {"timeout": 3})
    wait_until(lambda: listed(asked, AT_STORAGES), "the query to be listed")
    victim.kill()
    assert_nothing_open(cluster)
