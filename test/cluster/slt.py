"""Reads .slt files (the format of sqllogictest) and compares their expectations with answers.

    statement ok | statement error [REGEX] | statement count N
    query TYPES [rowsort|valuesort] [label]      TYPES: I integer, R number, T text, B boolean, ? any
    <SQL, until an empty line or ---->
    ----
    <one line a row, cells separated by blanks>

`skipif ENGINE`, `onlyif ENGINE` (picodata or postgresql; also before `halt`) are heeded; lines that begin with # are
comments. The files are run by picodata and by PostgreSQL: what both answer alike is what the standard has, as far as we
can tell. A message of `statement error` is ours; of PostgreSQL any error will do.

    python -m slt FILE...     writes PostgreSQL's answers into the files, where a query has an empty expectation
"""

import dataclasses
import decimal
import math
import pathlib
import re
import sys

ENGINES = ("picodata", "postgresql")


@dataclasses.dataclass
class Record:
    path: str
    line: int
    kind: str  # ok, error, count or query
    sql: str
    expected: list  # rows as lines; for error and count one item
    types: str = ""
    sort: str = "nosort"

    def __str__(self):
        return f"{self.path}:{self.line}"


def parse(path, engine="picodata"):
    """The records of a file that an engine is to run. A line that is none of the format raises ValueError."""
    lines = path.read_text().split("\n")
    records, at, skip = [], 0, False
    while at < len(lines):
        words = lines[at].split()
        at += 1
        if not words or words[0].startswith("#"):
            continue
        if words[0] == "halt":
            if not skip:
                break
            skip = False
            continue
        if words[0] in ("skipif", "onlyif") and len(words) >= 2 and words[1] in ENGINES:
            skip = skip or (words[1] == engine) == (words[0] == "skipif")
            continue
        if words[0] not in ("statement", "query") or len(words) < 2:
            raise ValueError(f"{path.name}:{at}: {lines[at - 1]!r} is not a record")
        first = at
        block, at = _until_blank(lines, at)
        sql, expected = _split(block)
        record = Record(path.name, first, "query", sql, expected)
        if words[0] == "query":
            record.types = words[1]
            record.sort = next((w for w in words[2:] if w in ("rowsort", "valuesort", "nosort")), "nosort")
        else:
            record.kind, record.expected = words[1], [lines[first - 1].split(words[1], 1)[1].strip()]
        if not skip:
            records.append(record)
        skip = False
    return records


def _until_blank(lines, at):
    block = []
    while at < len(lines) and lines[at].strip():
        block.append(lines[at])
        at += 1
    return block, at


def _split(block):
    if "----" in block:
        cut = block.index("----")
        return "\n".join(block[:cut]), block[cut + 1 :]
    return "\n".join(block), []


def show(value):
    """A cell as the files write it."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return f"{value:.1f}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(show(item) for item in value) + "]"
    if isinstance(value, decimal.Decimal):
        return f"{value:f}"
    if isinstance(value, bytes):
        return "x'" + value.hex() + "'"
    if value == "":
        return "(empty)"
    return str(value)


def _cells_equal(found, expected, kind):
    if found == expected:
        return True
    if kind in "R?":
        try:
            return math.isclose(float(found), float(expected), rel_tol=1e-9)
        except ValueError:
            return False
    return False


def compare(record, rows):
    """None when the rows are what the record expects, else what differs."""
    found = [[show(cell) for cell in row] for row in rows]
    if record.sort == "valuesort":
        found = [[cell] for cell in sorted(cell for row in found for cell in row)]
    expected = record.expected
    if record.sort == "rowsort":
        found, expected = sorted(found, key=" ".join), sorted(expected)
    report = "found:\n" + "\n".join(" ".join(row) for row in found) + "\nexpected:\n" + "\n".join(expected)
    if len(found) != len(expected):
        return report
    for row, line in zip(found, expected, strict=True):
        if " ".join(" ".join(row).split()) == " ".join(line.split()):
            continue
        words = line.split()
        kinds = record.types if len(record.types) == len(row) else "?" * len(row)
        if len(words) != len(row) or not all(_cells_equal(f, e, k) for f, e, k in zip(row, words, kinds, strict=True)):
            return report
    return None


def tables_made(records):
    """Names that the file's CREATE TABLE statements mention, for cleaning up after it."""
    made = (
        re.match(r"\s*CREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?(\"[^\"]+\"|\w+)", r.sql, re.IGNORECASE)
        for r in records
    )
    return sorted({match[1] for match in made if match})


def complete(path, ask):
    """Fills the empty expectations of a file with answers; `ask` gives the rows of a query."""
    lines = path.read_text().split("\n")
    answers = [(record, ask(record)) for record in parse(path, "postgresql")]
    for record, rows in reversed(answers):
        end = record.line + record.sql.count("\n") + 1
        if record.kind == "query" and lines[end : end + 1] != ["----"]:
            lines[end:end] = ["----", *(" ".join(show(cell) for cell in row) for row in rows)]
    path.write_text("\n".join(lines))


def main(paths):
    import postgres

    server = postgres.Server().start()
    try:
        for path in map(pathlib.Path, paths):
            connection = server.connect("completion")

            def ask(record, connection=connection):
                try:
                    return postgres.run(connection, record.sql)
                except postgres.psycopg.Error as error:
                    if record.kind != "error":
                        print(f"{record}: {error}")
                    return []

            complete(path, ask)
    finally:
        server.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
