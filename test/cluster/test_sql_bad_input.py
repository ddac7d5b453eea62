"""Statements that no good client sends: each gets an error of its own, the instance serves on, nothing is half written.

Texts that are not UTF-8 are in test_access.py, with other bytes that no client library sends.
"""

import pytest
import tarantool

SYNTAX, NO_SUCH_TABLE, NO_SUCH_COLUMN, INVALID, WRONG_TYPE = 20100, 20101, 20102, 20106, 20107
OUT_OF_RANGE, ZERO, ARGUMENT, LIMIT = 20110, 20111, 20002, 20200
ROWS = 600
SUM = ROWS * (ROWS - 1) // 2
NAME = "n" * (64 << 10)
MEGABYTE = "x" * (1 << 20)


@pytest.fixture(scope="module")
def loaded(shared_workshop):
    cluster = shared_workshop.cluster(2).start().wait_balanced()
    cluster[0].sql("CREATE TABLE t (id INT PRIMARY KEY, v INT, note TEXT)")
    cluster[0].sql("CREATE TABLE copy (id INT PRIMARY KEY, v INT, note TEXT)")
    cluster[0].call("crud.insert_many", "t", [[i, i, None] for i in range(ROWS)])
    return cluster


def refusal(instance, text, params=(), options=None):
    """The number of the error that the statement is refused with; None when it is not."""
    try:
        instance.call("sql", text, list(params), options)
    except tarantool.error.DatabaseError as error:
        return error.args[0]
    return None


def assert_untouched(cluster):
    for instance in cluster:
        assert instance.sql("SELECT count(*), sum(v), count(note) FROM t") == [[ROWS, SUM, 0]]
        assert instance.sql("SELECT count(*) FROM copy") == [[0]]
        assert instance.sql("SELECT v FROM t WHERE id = 5") == [[5]]


STATEMENTS = {
    "a table's name of 64 KB": (f"SELECT * FROM {NAME}", NO_SUCH_TABLE),
    "a column's name of 64 KB": (f"SELECT {NAME} FROM t", NO_SUCH_COLUMN),
    "a quoted name of 64 KB": (f'SELECT "{NAME}" FROM t', NO_SUCH_COLUMN),
    "an alias of 64 KB": (f"SELECT v AS {NAME} FROM t WHERE id = 1", None),
    "a table to make with a name of 64 KB": (f"CREATE TABLE {NAME} (id INT PRIMARY KEY)", INVALID),
    "a column to make with a name of 64 KB": (f"CREATE TABLE long (id INT PRIMARY KEY, {NAME} INT)", INVALID),
    "a list of a million": (f"SELECT count(*) FROM t WHERE id IN ({', '.join(map(str, range(1_000_000)))})", LIMIT),
    "a deletion by a list of a million": (
        f"DELETE FROM t WHERE id IN ({', '.join(map(str, range(1_000_000)))})",
        LIMIT,
    ),
    "a literal of more than a megabyte": (f"UPDATE t SET note = '{MEGABYTE}'", LIMIT),
    "500 parentheses": (f"DELETE FROM t WHERE {'(' * 500}TRUE{')' * 500}", LIMIT),
    "100,000 parentheses": (f"DELETE FROM t WHERE {'(' * 100_000}TRUE{')' * 100_000}", LIMIT),
    "300 subqueries in one another": ("SELECT " + "(SELECT " * 300 + "1" + ")" * 300, LIMIT),
    "300 NOTs": ("SELECT " + "NOT " * 300 + "TRUE", LIMIT),
    "300 CASEs in one another": ("SELECT " + "CASE WHEN TRUE THEN " * 300 + "1" + " END" * 300, LIMIT),
    "division by zero in an aggregate": ("SELECT sum(100 / (v - 7)) FROM t", ZERO),
    "the same in an average of doubles": ("SELECT avg(CAST(v AS DOUBLE PRECISION) / (v - v)) FROM t", ZERO),
    "the same in a group": ("SELECT v % 2, max(v % (v - 7)) FROM t GROUP BY 1", ZERO),
    "the same in what is inserted": ("INSERT INTO copy SELECT id, 100 / (v - 599), NULL FROM t", ZERO),
    "the same in what is set": ("UPDATE t SET v = (SELECT sum(1 / (b.v - 599)) FROM t b)", ZERO),
    "the same in what is deleted": ("DELETE FROM t WHERE 1 / (v - 599) = 0", ZERO),
    "a sum that overflows": ("SELECT sum(v * 9223372036854775807) FROM t", OUT_OF_RANGE),
    "a value that does not fit the last row": ("INSERT INTO copy SELECT id, 2147483049 + v, NULL FROM t", OUT_OF_RANGE),
    "bytes of the text that are no SQL": ("SELECT \x00\x01\x02", SYNTAX),
    "a zero byte in a literal": ("SELECT length('a\x00b')", None),
}


@pytest.mark.parametrize("what", STATEMENTS)
def test_a_bad_statement_gets_its_error(loaded, what):
    text, code = STATEMENTS[what]
    for instance in loaded:
        assert refusal(instance, text) == code
    assert_untouched(loaded)


PARAMETERS = {
    "a missing one": ("SELECT ?", [], ARGUMENT),
    "one too many": ("SELECT 1", [1], ARGUMENT),
    "a gap in their numbers": ("SELECT $1, $3", [1, 2], ARGUMENT),
    "of the key, a missing one": ("UPDATE t SET v = ? WHERE id = ?", [1], ARGUMENT),
    "a text for a number": ("UPDATE t SET v = ?", ["x"], WRONG_TYPE),
    "a text for the key": ("SELECT v FROM t WHERE id = ?", ["x"], WRONG_TYPE),
    "a map for a number": ("UPDATE t SET v = ?", [{"a": 1}], ARGUMENT),
    "an array for the key": ("DELETE FROM t WHERE id = ?", [[1, 2]], WRONG_TYPE),
    "a number that does not fit": ("UPDATE t SET v = ?", [1 << 40], OUT_OF_RANGE),
    "a zero to divide by": ("SELECT sum(v / ?) FROM t", [0], ZERO),
    "70,000 of them": ("SELECT count(*) FROM t WHERE id IN (" + ", ".join("?" * 70_000) + ")", [1] * 70_000, LIMIT),
}


@pytest.mark.parametrize("what", PARAMETERS)
def test_bad_parameters_get_their_error(loaded, what):
    text, params, code = PARAMETERS[what]
    for instance in loaded:
        assert refusal(instance, text, params) == code
    assert_untouched(loaded)


def test_memory_that_runs_out_in_a_join_ends_the_statement_alone(loaded):
    pairs = "(SELECT a.v * 1000 + b.v AS k FROM t a CROSS JOIN t b)"
    join = f"SELECT x.k FROM {pairs} x JOIN {pairs} y ON x.k = y.k"
    for text in [
        f"SELECT count(*) FROM ({join}) j",
        f"INSERT INTO copy SELECT k, k, NULL FROM ({join}) j",
        f"UPDATE t SET v = (SELECT count(*) FROM ({join}) j)",
        f"DELETE FROM t WHERE v IN ({join})",
    ]:
        for instance in loaded:
            assert refusal(instance, text, options={"memory_max_mb": 2}) == LIMIT, text
    assert_untouched(loaded)
