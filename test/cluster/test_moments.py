"""A query sees each replicaset at one moment, while writers run."""

import threading

import pytest
from harness import wait_until

ACCOUNTS = 20_000
BALANCE = 100

# Moves money between accounts of this instance's own replicaset, in one transaction each, until it is told to stop:
# from the first rows of the index to the last ones and back, and by deleting rows and inserting them again, so that a
# scan of several slices would miss some and see others twice.
TRANSFERS = """
    local fiber = require('fiber')
    local first, second = box.space[...], box.space[select(2, ...)]
    local rows = {}
    for _, space in ipairs({first, second}) do
        for _, tuple in space:pairs() do
            table.insert(rows, {space = space, key = {tuple[1], tuple[2]}})
        end
    end
    rawset(_G, 'transfers', {running = true, count = 0})
    fiber.create(function()
        local n = #rows
        local at = 0
        while transfers.running do
            at = at % n + 1
            local from, to = rows[at], rows[n - at + 1]
            box.begin()
            local amount = at % 7
            if from.key[2] ~= to.key[2] then
                local old = from.space:delete(from.key)
                from.space:insert(old:update({{'-', 3, amount}}))
                to.space:update(to.key, {{'+', 3, amount}})
            end
            box.commit()
            transfers.count = transfers.count + 1
        end
        transfers.done = true
    end)
"""


@pytest.fixture
def bank(workshop):
    """Two replicasets of one instance each, with money in two tables and writers on both."""
    cluster = workshop.cluster(2).start().wait_balanced()
    for name in ("savings", "current"):
        cluster[0].sql(f"CREATE TABLE {name} (id BIGINT PRIMARY KEY, balance BIGINT)")
        for first in range(0, ACCOUNTS, 5000):
            rows = [[first + i, BALANCE] for i in range(5000)]
            cluster[0].call("crud.insert_many", name, rows)
    for instance in cluster:
        instance.eval(TRANSFERS, "savings", "current")
    yield cluster
    for instance in cluster:
        instance.eval("transfers.running = false")


def transfers(cluster):
    return [instance.eval("return transfers.count")[0] for instance in cluster]


QUERIES = [
    "SELECT sum(balance), count(*) FROM (SELECT * FROM savings UNION ALL SELECT * FROM current) AS both_tables",
    "SELECT (SELECT sum(balance) FROM savings) + (SELECT sum(balance) FROM current),"
    " (SELECT count(*) FROM savings) + (SELECT count(*) FROM current)",
    "SELECT a.total + b.total, a.n + b.n FROM (SELECT sum(balance) AS total, count(*) AS n FROM savings) AS a"
    " CROSS JOIN (SELECT sum(balance) AS total, count(*) AS n FROM current) AS b",
    "SELECT sum(s.balance + c.balance), 2 * count(*) FROM savings AS s JOIN current AS c ON s.id = c.id",
    "SELECT sum(s.balance + c.balance), 2 * count(*) FROM savings AS s JOIN current AS c ON s.id = c.id + 0",
]


@pytest.mark.parametrize("query", QUERIES)
def test_money_is_neither_made_nor_lost_in_the_eyes_of_a_query(bank, query):
    expected = [[2 * ACCOUNTS * BALANCE, 2 * ACCOUNTS]]
    before = transfers(bank)
    answers = []

    def ask(instance):
        connection = instance.connect(timeout_s=60)
        for _ in range(5):
            answers.append(connection.call("picodata.sql", (query,))[0]["rows"])

    threads = [threading.Thread(target=ask, args=(instance,)) for instance in bank]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [expected] * 10
    assert all(after > count for after, count in zip(transfers(bank), before, strict=True)), "nobody wrote meanwhile"


def test_writers_pay_for_queries_only_as_long_as_some_are_asked(bank):
    for query in QUERIES:
        bank[0].sql(query)
    for instance in bank:
        wait_until(
            lambda instance=instance: (
                instance.eval("return #box.space.savings:on_replace() + #box.space.current:on_replace()") == [0]
            ),
            "no trigger on a table that no query reads",
        )


# Takes rows of this instance out and puts them back, some at a time, so that their number varies.
COMINGS_AND_GOINGS = """
    local fiber = require('fiber')
    local space = box.space[...]
    local rows = space:select({}, {limit = 2000})
    rawset(_G, 'transfers', {running = true, count = 0})
    fiber.create(function()
        while transfers.running do
            for _, change in ipairs({'delete', 'insert'}) do
                for first = 1, #rows, 7 do
                    box.begin()
                    for at = first, math.min(first + 6, #rows) do
                        local row = rows[at]
                        space[change](space, change == 'delete' and {row[1], row[2]} or row)
                    end
                    box.commit()
                    transfers.count = transfers.count + 1
                end
            end
        end
    end)
"""


def test_rows_that_are_counted_are_those_that_are_read(workshop):
    cluster = workshop.cluster(2).start().wait_balanced()
    cluster[0].sql("CREATE TABLE savings (id BIGINT PRIMARY KEY, balance BIGINT)")
    for first in range(0, ACCOUNTS, 5000):
        cluster[0].call("crud.insert_many", "savings", [[first + i, 1] for i in range(5000)])
    assert cluster[0].sql("SELECT count(*) FROM savings") == [[ACCOUNTS]]
    assert cluster[0].sql("SELECT count(*) FROM (SELECT 1 FROM savings LIMIT 11000) AS t") == [[11_000]]
    for instance in cluster:
        instance.eval(COMINGS_AND_GOINGS, "savings")
    connection = cluster[0].connect(timeout_s=60)
    seen = set()
    before = transfers(cluster)
    while len(seen) < 10:
        for query in (
            "SELECT count(*), (SELECT sum(balance) FROM savings) FROM savings",
            "SELECT (SELECT sum(balance) FROM savings), count(*) FROM savings",
        ):
            [[one, other]] = connection.call("picodata.sql", (query,))[0]["rows"]
            assert one == other
            seen.add(one)
    assert all(after > count for after, count in zip(transfers(cluster), before, strict=True)), "nobody wrote"
    for instance in cluster:
        instance.eval("transfers.running = false")
    # What comes and goes is there again in the end.
    wait_until(lambda: cluster[0].sql("SELECT count(*) FROM savings") == [[ACCOUNTS]], "all rows to be back")


# Moves money between the two halves of a table, in one transaction each.
HALVES = """
    local fiber, space = require('fiber'), box.space.purse
    local halves = {{}, {}}
    for _, tuple in space:pairs() do
        table.insert(halves[tuple[2]], {tuple[1], tuple[2], tuple[3]})
    end
    rawset(_G, 'transfers', {running = true, count = 0})
    fiber.create(function()
        while transfers.running do
            for at, from in ipairs(halves[1]) do
                local amount = transfers.count % 7 - 3
                box.begin()
                space:update(from, {{'-', 4, amount}})
                space:update(halves[2][at], {{'+', 4, amount}})
                box.commit()
                transfers.count = transfers.count + 1
            end
        end
    end)
"""


def test_ranges_that_are_read_one_after_the_other_see_one_moment(workshop):
    """The key does not begin with the sharding key: each of its ranges may have rows in any bucket."""
    cluster = workshop.cluster(1).start()
    asked = cluster[0]
    asked.sql("CREATE TABLE purse (half INT, id INT, balance BIGINT, PRIMARY KEY (half, id)) DISTRIBUTED BY (id)")
    asked.call("crud.insert_many", "purse", [[half, i, BALANCE] for half in (1, 2) for i in range(200)])
    asked.eval(HALVES)
    try:
        for _ in range(100):
            assert asked.sql("SELECT sum(balance), count(*) FROM purse WHERE half IN (1, 2)") == [[400 * BALANCE, 400]]
        wait_until(lambda: transfers(cluster)[0] > 1000, "money to have moved meanwhile")
    finally:
        asked.eval("transfers.running = false")
