"""The statements of test/sql/*.slt, each asked of another instance of a cluster of two replicasets, and PostgreSQL."""

import re

import postgres
import pytest
import slt
import tarantool
from harness import ROOT

# The names of errors by their numbers, as users read them.
CODES = {
    int(number): name
    for number, name in re.findall(r"^\| (\d+) \| `(\w+)`", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
}
FILES = sorted((ROOT / "test" / "sql").rglob("*.slt"))


def run(record, instance):
    """What is wrong with the record on this instance, or None."""
    try:
        answer = instance.call("sql", record.sql, [])
    except tarantool.error.DatabaseError as error:
        if record.kind != "error":
            return f"refused with {error.args[0]}: {error.args[1]}"
        pattern = record.expected[0]
        said = f"{CODES.get(error.args[0])}: {error.args[1]}"
        return None if re.search(pattern, said) else f"the error says {said!r}, not {pattern!r}"
    if record.kind == "error":
        return "no error was raised"
    if record.kind == "count":
        found = answer.get("row_count")
        return None if found == int(record.expected[0]) else f"{found} rows changed, not {record.expected[0]}"
    return slt.compare(record, answer["rows"]) if record.kind == "query" else None


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_file(cluster, path):
    records = slt.parse(path)
    assert records, "the file holds no record"
    wrong = []
    try:
        for number, record in enumerate(records):
            instance = cluster[number % len(cluster)]
            reason = run(record, instance)
            if reason:
                wrong.append(f"{record} on {instance.name}\n{record.sql}\n{reason}")
    finally:
        for table in slt.tables_made(records):
            cluster[0].sql(f"DROP TABLE IF EXISTS {table} CASCADE")
    assert not wrong, f"{len(wrong)} of {len(records)} records:\n\n" + "\n\n".join(wrong[:20])


@pytest.fixture(scope="module")
def server():
    server = postgres.Server()
    try:
        yield server.start()
    finally:
        server.stop()


def run_on_postgresql(record, connection):
    """What is wrong with the record there, or None. Messages are not compared."""
    try:
        answer = postgres.run(connection, record.sql)
    except postgres.psycopg.Error as error:
        return None if record.kind == "error" else f"refused: {error}"
    if record.kind == "error":
        return "no error was raised"
    if record.kind == "count":
        return None if answer == int(record.expected[0]) else f"{answer} rows changed, not {record.expected[0]}"
    return slt.compare(record, answer) if record.kind == "query" else None


@pytest.mark.parametrize("path", [p for p in FILES if slt.parse(p, "postgresql")], ids=lambda p: p.stem)
def test_file_on_postgresql(server, path):
    records = slt.parse(path, "postgresql")
    connection = server.connect("slt_" + re.sub(r"\W", "_", path.stem))
    wrong = []
    for record in records:
        reason = run_on_postgresql(record, connection)
        if reason:
            wrong.append(f"{record}\n{record.sql}\n{reason}")
    connection.close()
    assert not wrong, f"{len(wrong)} of {len(records)} records:\n\n" + "\n\n".join(wrong[:20])
