"""TPC-H: its tables, its data (made by tpchgen-cli), its 22 queries, on our clusters, on PostgreSQL and on DuckDB.

The definitions and queries lie in test/tpch, written once for all of them.
"""

import concurrent.futures
import csv
import decimal
import functools
import itertools
import multiprocessing
import pathlib
import re
import subprocess
import sys

import msgpack
import postgres
from harness import ROOT, Instance

FOLDER = ROOT / "test" / "tpch"
DECIMAL_EXTENSION = 1
ROWS_A_CALL = 4000
# The indexes of ours and of PostgreSQL, which reads whole tables for each row outside of a subquery without them.
FOREIGN_KEYS = ["lineitem (l_partkey, l_suppkey)", "orders (o_custkey)", "partsupp (ps_suppkey)"]
# Processes that load side by side.
PARTS = 2


def statements():
    """The CREATE TABLE statements by their tables."""
    text = re.sub(r"^--.*\n", "", (FOLDER / "schema.sql").read_text(), flags=re.MULTILINE)
    made = [statement.strip() for statement in text.split(";") if statement.strip()]
    return {re.match(r"CREATE TABLE (\w+)", statement)[1]: statement for statement in made}


def queries(scale):
    """The 22 texts by their numbers."""
    texts = {int(path.stem[1:]): path.read_text() for path in sorted(FOLDER.glob("q*.sql"))}
    texts = {number: re.sub(r"^--.*\n", "", text).strip() for number, text in texts.items()}
    # A share of a whole that grows with the scale.
    return {number: text.replace(":fraction", f"{0.0001 / scale:.10f}") for number, text in texts.items()}


def generate(folder, scale):
    """Writes each table into a file of the folder, as CSV with a line of names."""
    program = pathlib.Path(sys.executable).with_name("tpchgen-cli")
    words = ["csv", "-s", str(scale), "--output-dir", str(folder)]
    subprocess.run([program, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _file(folder, table):
    return pathlib.Path(folder) / f"{table}.csv"


@functools.lru_cache(maxsize=1 << 16)
def _decimal(text):
    """A decimal with two digits after the point, as the host stores it."""
    whole, _, part = text.lstrip("-").partition(".")
    digits = (whole + part.ljust(2, "0")).lstrip("0") or "0"
    digits = digits if len(digits) % 2 else "0" + digits
    return msgpack.ExtType(DECIMAL_EXTENSION, bytes([2]) + bytes.fromhex(digits + ("d" if text[0] == "-" else "c")))


def _converters(statement):
    """For each column the function from its text to a value that needs no further conversion."""
    made = []
    for kind, length in re.findall(r"\b\w+ (INTEGER|BIGINT|DECIMAL|DATE|CHAR|VARCHAR)\b(?:\((\d+))?", statement):
        if kind in ("INTEGER", "BIGINT"):
            made.append(int)
        elif kind == "DECIMAL":
            made.append(_decimal)
        elif kind == "CHAR":
            made.append(None if length == "1" else _padded(int(length)))
        else:
            made.append(None)
    return made


def _padded(length):
    return lambda text: text.ljust(length)


def _load_part(address, statement, table, path, part):
    """Every `PARTS`th call's rows of a file, beginning with number `part`; answers how many."""
    instance = Instance.__new__(Instance)
    instance.host, instance.port = address
    connection = instance.connect(timeout_s=120)
    converters = _converters(statement)
    count = 0
    with open(path, newline="") as file:
        next(file)
        for number in itertools.count():
            lines = list(itertools.islice(file, ROWS_A_CALL))
            if not lines:
                break
            if number % PARTS == part:
                rows = [_row(converters, cells) for cells in csv.reader(lines)]
                connection.call("picodata.crud.insert_many", (table, rows, {"noreturn": True}))
                count += len(rows)
    connection.close()
    return count


def _row(converters, cells):
    return [cell if of is None else of(cell) for of, cell in zip(converters, cells, strict=True)]


def load(cluster, folder):
    """Makes the tables and fills them from the files of a folder; answers the number of rows of each."""
    made, counts = statements(), dict.fromkeys(statements(), 0)
    for statement in made.values():
        cluster[0].sql(statement)
    addresses = [(instance.host, instance.port) for instance in cluster]
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(PARTS, context) as pool:
        work = {
            pool.submit(
                _load_part, addresses[part % len(addresses)], made[table], table, _file(folder, table), part
            ): table
            for table in made
            for part in range(PARTS)
        }
        for done in concurrent.futures.as_completed(work):
            counts[work[done]] += done.result()
    for index in FOREIGN_KEYS:
        cluster[0].sql(f"CREATE INDEX {index.split()[0]}_by_key ON {index}")
    return counts


def load_postgresql(connection, folder):
    """The same in a database of PostgreSQL, whose planner then gathers its statistics."""
    for table, statement in statements().items():
        postgres.run(connection, statement)
        with (
            open(_file(folder, table)) as file,
            connection.cursor().copy(f"COPY {table} FROM STDIN (FORMAT csv, HEADER)") as copy,
        ):
            while text := file.read(1 << 20):
                copy.write(text)
    for index in FOREIGN_KEYS:
        connection.execute(f"CREATE INDEX ON {index}")
    connection.execute("VACUUM ANALYZE")


def load_duckdb(connection, folder):
    """The same in DuckDB."""
    for table, statement in statements().items():
        connection.execute(re.sub(r"\s+DISTRIBUTED\s+(GLOBALLY|BY\s*\([^)]*\))", "", statement))
        connection.execute(f"COPY {table} FROM '{_file(folder, table)}' (FORMAT csv, HEADER)")


def _cell_difference(ours, theirs):
    numbers = (int, float, decimal.Decimal)
    if not (isinstance(ours, numbers) and isinstance(theirs, numbers)):
        return ours != theirs
    ours, theirs = decimal.Decimal(str(ours)), decimal.Decimal(str(theirs))
    # A quotient has as many digits as each of us pleases; a sum has all of them.
    places = max(ours.as_tuple().exponent, theirs.as_tuple().exponent)
    return abs(ours - theirs) > (decimal.Decimal((0, (1,), places)) if places < -4 else 0)


def difference(ours, theirs):
    """What differs between two answers, or None."""
    if len(ours) != len(theirs):
        return f"{len(ours)} rows, not {len(theirs)}"
    for number, (left, right) in enumerate(zip(ours, theirs, strict=True)):
        if len(left) != len(right) or any(map(_cell_difference, left, right)):
            return f"row {number}: {list(left)}, not {list(right)}"
    return None
