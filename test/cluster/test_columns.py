"""Tables that are read whole again and again have a columnar copy: nobody can tell but by the time that it takes."""

import random
import re

import pytest
import tarantool
from harness import wait_until

ROWS = 12_000
TOTALS = "SELECT count(*), sum(v), max(s), count(DISTINCT v) FROM t"


def columnar_bytes(cluster):
    return [instance["columnar_bytes"] for instance in cluster[0].call("queries")["instances"]]


def triggers(cluster, table="t"):
    return [instance.eval(f"return #box.space.{table}:on_replace()")[0] for instance in cluster]


def fill(cluster, rows=ROWS):
    cluster[0].sql("CREATE TABLE t (id INT PRIMARY KEY, v INT, s TEXT)")
    for first in range(0, rows, 3000):
        cluster[0].call("crud.insert_many", "t", [[id, id % 100, f"s{id}"] for id in range(first, first + 3000)])


def read_from_copies(cluster, query=TOTALS):
    """How many rows came from copies, as EXPLAIN ANALYZE tells."""
    lines = [row[0] for row in cluster[0].sql(f"EXPLAIN ANALYZE {query}")]
    counts = [re.search(r"columnar_rows=([\d.]+)( K)?", line) for line in lines if "Scan t" in line]
    assert counts, lines
    return sum(round(float(count[1]) * (1000 if count[2] else 1)) for count in counts if count)


def wait_until_copied(cluster, query=TOTALS, rows=ROWS):
    """Nothing is kept before what was written by then is known to be in the log. Shown in thousands with two digits."""
    wait_until(lambda: abs(read_from_copies(cluster, query) - rows) <= 10, "all rows to come from copies")


@pytest.fixture
def cluster(workshop):
    cluster = workshop.cluster(2).start().wait_balanced()
    fill(cluster)
    return cluster


def test_a_table_that_is_read_whole_twice_is_copied_and_read_from_the_copy(cluster):
    answers = [cluster[0].sql(TOTALS)]
    assert columnar_bytes(cluster) == [0, 0] and triggers(cluster) == [0, 0]
    answers.append(cluster[0].sql(TOTALS))
    assert triggers(cluster) == [1, 1]
    wait_until_copied(cluster)
    answers.append(cluster[0].sql(TOTALS))
    assert answers == [[[ROWS, sum(id % 100 for id in range(ROWS)), "s9999", 100]]] * 3
    # Other columns are added, and a write lets go those around it only.
    before = columnar_bytes(cluster)
    for _ in range(2):
        assert cluster[0].sql("SELECT count(*) FROM t WHERE id % 2 = 0") == [[ROWS // 2]]
    assert all(after > bytes_ for after, bytes_ in zip(columnar_bytes(cluster), before, strict=True))
    cluster[0].call("crud.update", "t", 7, [["=", "v", 1_000_000]])
    assert ROWS // 4 < read_from_copies(cluster) < ROWS
    assert cluster[0].sql("SELECT max(v) FROM t") == [[1_000_000]]
    assert read_from_copies(cluster) == ROWS


def test_the_setting_bounds_what_is_kept(cluster):
    wait_until_copied(cluster)
    assert all(columnar_bytes(cluster))
    with pytest.raises(tarantool.error.DatabaseError):
        cluster[0].call("set_setting", "sql_columnar_max_mb", -1)
    cluster[0].call("set_setting", "sql_columnar_max_mb", 0)
    wait_until(lambda: columnar_bytes(cluster) == [0, 0] and triggers(cluster) == [0, 0], "the copies to go")
    for _ in range(3):
        cluster[0].sql(TOTALS)
    assert columnar_bytes(cluster) == [0, 0]
    cluster[0].call("set_setting", "sql_columnar_max_mb", None)
    wait_until_copied(cluster)
    assert all(columnar_bytes(cluster))
    cluster[0].sql("DROP TABLE t")
    wait_until(lambda: columnar_bytes(cluster) == [0, 0], "the copies to go with their table")


def test_a_table_that_is_only_written_to_loses_its_copy(cluster):
    for _ in range(3):
        cluster[0].sql(TOTALS)
    assert triggers(cluster) == [1, 1]
    for _ in range(4):
        rows = [[id, 1, "s"] for id in range(ROWS)]
        cluster[0].call("crud.replace_many", "t", rows)
    wait_until(lambda: triggers(cluster) == [0, 0], "writers to pay nothing for queries that nobody asks")
    assert cluster[0].sql(TOTALS) == [[ROWS, ROWS, "s", 1]]


class Model:
    """The rows as they have to be, and the changes of them."""

    def __init__(self, cluster, seed):
        self.cluster, self.chance = cluster, random.Random(seed)
        self.rows = {id: [id, id % 100, f"s{id}"] for id in range(ROWS)}

    def ids(self, count):
        return self.chance.sample(sorted(self.rows), min(count, len(self.rows)))

    def crud(self):
        for id in self.ids(20):
            self.cluster[0].call("crud.replace", "t", [id, -id, "replaced"])
            self.rows[id] = [id, -id, "replaced"]
        for id in self.ids(20):
            self.cluster[0].call("crud.delete", "t", id)
            del self.rows[id]

    def appended(self):
        first = max(self.rows, default=0) + 1
        rows = [[id, 7, "new"] for id in range(first, first + 2000)]
        self.cluster[0].call("crud.insert_many", "t", rows)
        self.rows.update({row[0]: row for row in rows})

    def statement(self):
        low = self.chance.randrange(ROWS)
        self.cluster[0].sql("UPDATE t SET v = v + 1, s = 'updated' WHERE id BETWEEN ? AND ? + 50", low, low)
        for id in range(low, low + 51):
            if id in self.rows:
                self.rows[id] = [id, self.rows[id][1] + 1, "updated"]
        self.cluster[0].sql("DELETE FROM t WHERE id BETWEEN ? AND ? + 700", low + 100, low + 100)
        self.rows = {id: row for id, row in self.rows.items() if not low + 100 <= id <= low + 800}

    def refused(self):
        """Some rows of it are written before the one that fails."""
        there = self.ids(1)[0]
        first = max(self.rows) + 1
        values = ", ".join(f"({id}, 1, 'never')" for id in [*range(first, first + 40), there])
        with pytest.raises(tarantool.error.DatabaseError):
            self.cluster[0].sql(f"INSERT INTO t VALUES {values}")
        # Replicasets that it did not fail on keep theirs.
        for id, v, s in self.cluster[0].sql("SELECT id, v, s FROM t WHERE id >= ?", first):
            self.rows[id] = [id, v, s]

    def raw(self):
        """Past picodata, in the host's own transactions, of which some are rolled back."""
        code = """
            local ending, count = ...
            local keys = {}
            for _, tuple in box.space.t:pairs({}, {iterator = 'GE'}) do
                if #keys == count then break end
                table.insert(keys, {tuple[1], tuple[2]})
            end
            box.begin()
            for at, key in ipairs(keys) do
                if at % 3 == 0 then box.space.t:delete(key) else box.space.t:update(key, {{'=', 3, 5}}) end
            end
            box[ending]()
            local ids = {}
            for at, key in ipairs(keys) do table.insert(ids, {key[2], at % 3 == 0}) end
            return ids
        """
        for instance in self.cluster:
            instance.eval(code, "rollback", 30)
            for id, is_deleted in instance.eval(code, "commit", 30)[0]:
                if is_deleted:
                    del self.rows[id]
                else:
                    self.rows[id][1] = 5

    def truncated(self):
        if self.chance.random() < 0.5:
            self.cluster[0].sql("TRUNCATE TABLE t")
        else:
            for instance in self.cluster:
                instance.eval("box.space.t:truncate()")
        self.rows = {}
        for _ in range(6):
            self.appended()

    def check(self):
        for asked in self.cluster:
            found = asked.sql("SELECT id, v, s FROM t")
            assert len(found) == len(self.rows)
            assert sorted(found) == [self.rows[id] for id in sorted(self.rows)]


@pytest.mark.parametrize("seed", [1, 2])
def test_answers_are_right_whatever_has_changed_the_rows(cluster, seed):
    model = Model(cluster, seed)
    model.check()
    for _ in range(25):
        kinds = [model.crud, model.appended, model.statement, model.refused, model.raw, model.truncated]
        model.chance.choices(kinds, [4, 3, 4, 2, 4, 2])[0]()
        model.check()
    model.check()
    wait_until_copied(cluster, "SELECT id, v, s FROM t", len(model.rows))
    # Rows from before have the column too.
    cluster[0].sql("ALTER TABLE t ADD COLUMN added INT DEFAULT 3")
    for _ in range(3):
        assert cluster[0].sql("SELECT sum(added) FROM t") == [[3 * len(model.rows)]]


# Empties the table and puts its first and last rows back, so that nothing is written to most chunks of the copy.
EMPTY_BY_HAND = """
    local rows = box.space.t:select()
    box.space.t:truncate()
    for at, row in ipairs(rows) do
        if at <= 4500 or at > #rows - 500 then box.space.t:insert(row) end
    end
"""


def test_a_space_that_was_emptied_by_hand_is_not_in_the_copy(workshop):
    cluster = workshop.cluster(1).start()
    # So many that those that are put back are not too many writes for a copy.
    fill(cluster, 4 * ROWS)
    wait_until_copied(cluster, TOTALS, 4 * ROWS)
    cluster[0].eval(EMPTY_BY_HAND)
    for _ in range(3):
        assert cluster[0].sql("SELECT count(*), count(v) FROM t") == [[5000, 5000]]


def test_a_copy_holds_while_buckets_come_and_go(workshop):
    rows = 2 * ROWS
    cluster = workshop.cluster(2).start().wait_balanced()
    fill(cluster, rows)
    expected = [[rows, sum(id % 100 for id in range(rows)), "s9999", 100]]
    for _ in range(3):
        assert cluster[0].sql(TOTALS) == expected
    cluster.add().start()

    def is_whole():
        assert cluster[0].sql(TOTALS) == expected
        return cluster.is_whole()

    wait_until(is_whole, "the newcomer")
    cluster.wait_balanced()

    for _ in range(40):
        assert cluster[0].sql(TOTALS) == expected
    wait_until_copied(cluster, TOTALS, rows)


def test_a_global_table_has_a_copy_on_each_instance_that_reads_it(workshop):
    cluster = workshop.cluster(2, replication_factor=2).start().wait_balanced()
    cluster[0].sql("CREATE TABLE t (id INT PRIMARY KEY, v INT) DISTRIBUTED GLOBALLY")
    for first in range(0, ROWS, 3000):
        cluster[0].call("crud.insert_many", "t", [[id, 1] for id in range(first, first + 3000)])
    query = "SELECT sum(v) FROM t"
    for asked in cluster:
        wait_until(lambda asked=asked: asked.sql(query) == [[ROWS]], "the rows to arrive")
        wait_until(lambda asked=asked: read_from_copies([asked], query) == ROWS, "the copy of one instance")
    # By way of Raft, also on the replica, which takes no writes else.
    cluster[0].call("crud.update", "t", 5, [["=", "v", 100]])
    for asked in cluster:
        wait_until(lambda asked=asked: asked.sql(query) == [[ROWS + 99]], "the change to arrive")
        assert [asked.sql(query) for _ in range(3)] == [[[ROWS + 99]]] * 3
