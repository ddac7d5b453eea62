"""Times the 22 queries of TPC-H: `python -m bench_tpch --scale 1 --out FILE`.

On two replicasets of one instance each and on Debian's PostgreSQL as it is installed, both with the same three indexes
on foreign keys (PostgreSQL takes hours for some of them without), and on DuckDB, one after the other. Answers are
compared too. The last line of the report has the first time that each query was asked: nobody has read the tables whole
before the first of them, and later ones find what those before them left in caches.
"""

import argparse
import math
import os
import pathlib
import shutil
import statistics
import tempfile
import time

import postgres
import tarantool
from harness import Cluster

import tpch
from bench import machine, table

RUNS = 3
TIMEOUT_S = 600


def timed(ask, runs):
    """The answer, the median milliseconds of so many runs after a first that fills caches, and those of the first."""
    times = []
    for _ in range(1 + runs):
        started = time.monotonic()
        answer = ask()
        times.append((time.monotonic() - started) * 1000)
    return answer, statistics.median(times[1:]), times[0]


def ours(folder, data, scale, queries, runs):
    memory = int((0.4 + 2.0 * scale) * (1 << 30))
    cluster = Cluster(folder, 2, memtx_memory=memory).start().wait_balanced()
    try:
        cluster[0].call("set_setting", "sql_memory_max_mb", 4096)
        started = time.monotonic()
        counts = tpch.load(cluster, data)
        print(f"loaded {sum(counts.values())} rows in {time.monotonic() - started:.0f} s", flush=True)
        connection = cluster[0].connect(timeout_s=TIMEOUT_S)

        def ask(text):
            return connection.call("picodata.sql", (text, [], {"timeout": TIMEOUT_S}))[0]["rows"]

        results = measure("picodata", queries, ask, runs)
        kept = sum(instance["columnar_bytes"] for instance in cluster[0].call("queries")["instances"])
        print(f"picodata keeps {kept >> 20} MiB of columns", flush=True)
        return results
    finally:
        cluster.kill()


def measure(name, queries, ask, runs):
    results = {}
    for number, text in queries.items():
        try:
            results[number] = timed(lambda text=text: ask(text), runs)
        except tarantool.error.DatabaseError as error:
            results[number] = (str(error), math.nan, math.nan)
        print(f"{name} q{number:02} {results[number][1]:9.1f} ms", flush=True)
    return results


def theirs(data, queries, runs):
    server = postgres.Server()
    try:
        connection = server.start().connect("tpch")
        tpch.load_postgresql(connection, data)
        return measure("postgresql", queries, lambda text: postgres.run(connection, text), runs)
    finally:
        server.stop()


def duckdb(data, queries, runs):
    import duckdb as engine

    connection = engine.connect()
    tpch.load_duckdb(connection, data)
    return measure("duckdb", queries, lambda text: connection.execute(text).fetchall(), runs)


def report(where, scale, results):
    mine, other, duck = results["picodata"], results["postgresql"], results["duckdb"]
    rows, totals = [], [0.0, 0.0, 0.0]
    for number in mine:
        times = [side[number][1] for side in (mine, other, duck)]
        totals = [total + ms for total, ms in zip(totals, times, strict=True)]
        wrong = tpch.difference(mine[number][0], other[number][0]) if isinstance(mine[number][0], list) else "refused"
        cells = [f"{ms:.0f}" for ms in times]
        rows.append((f"Q{number}", *cells, f"{times[0] / times[1]:.2f}", f"{times[0] / times[2]:.1f}", wrong or "same"))
    cells = [f"{ms:.0f}" for ms in totals]
    rows.append(("all", *cells, f"{totals[0] / totals[1]:.2f}", f"{totals[0] / totals[2]:.1f}", ""))
    firsts = [sum(result[2] for result in side.values()) for side in (mine, other, duck)]
    ratios = [f"{firsts[0] / firsts[1]:.2f}", f"{firsts[0] / firsts[2]:.1f}"]
    rows.append(("all, the first time", *(f"{ms:.0f}" for ms in firsts), *ratios, ""))
    header = ["query", "picodata ms", "PostgreSQL ms", "DuckDB ms", "to PostgreSQL", "to DuckDB", "answer"]
    return f"# TPC-H at scale {scale}\n\n{where}\n\n{table(header, rows)}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--queries", help="numbers with commas; all without")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the file to write")
    given = parser.parse_args()
    where, queries = machine(), tpch.queries(given.scale)
    if given.queries:
        queries = {number: queries[number] for number in map(int, given.queries.split(","))}
    folder = tempfile.mkdtemp(prefix="picodata-tpch-")
    try:
        data = os.path.join(folder, "data")
        tpch.generate(data, given.scale)
        results = {
            "picodata": ours(os.path.join(folder, "cluster"), data, given.scale, queries, given.runs),
            "postgresql": theirs(data, queries, given.runs),
            "duckdb": duckdb(data, queries, given.runs),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    text = report(where, given.scale, results)
    given.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
