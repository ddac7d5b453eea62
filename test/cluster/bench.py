"""Measures and writes a table: `python -m bench --out FILE`.

It starts clusters as the tests do, drives them with the load generator of test/bench, and reads the CPU time of each
process from /proc. CPU microseconds an operation count: they stay on a shared machine, where rates wander.
"""

import argparse
import datetime
import itertools
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import postgres
from harness import ROOT, Cluster, wait_until

IN_FLIGHT = [1, 32, 128]
DURABILITIES = ["replicated", "local"]
REPLICATED_IN_FLIGHT = [1, 64]
REPLICATION_TURNS = 3
SHARING_IN_FLIGHT = [1, 32]
SHARING_TURNS = 3
KEYS = 100_000
BIG_ROWS = 2_000_000
QUERY_RUNS = 5
NEIGHBOUR_RUNS = 3
DDL_RUNS = 20
ROW_BATCH = 5000

OPERATIONS = [
    ("put", "crud.replace"),
    ("get", "crud.get"),
    ("sql-select", "SQL point SELECT"),
    ("sql-insert", "SQL INSERT of one row"),
    ("raw-put", "box REPLACE at a storage"),
    ("raw-get", "box SELECT at a storage"),
    ("insert-many", "crud.insert_many of 100"),
]

QUERIES = [
    "SELECT count(*) FROM big",
    "SELECT k % 100 AS g, count(*), sum(price), avg(price) FROM big GROUP BY g ORDER BY g",
    "SELECT count(*), avg(price) FROM big WHERE qty BETWEEN 10 AND 12 AND price > 500",
    "SELECT id, price FROM big ORDER BY price DESC, id LIMIT 10",
    "SELECT s.name, count(*), sum(b.price * b.qty) FROM big b JOIN shops s ON s.id = b.k % 20 GROUP BY s.name"
    " ORDER BY 3 DESC",
    "SELECT count(DISTINCT k) FROM big",
    "SELECT count(*) FROM big WHERE note LIKE '%77%'",
]
BIG_TABLES = [
    "shops (id INT PRIMARY KEY, name TEXT)",
    "big (id BIGINT PRIMARY KEY, k INT, price DOUBLE PRECISION, qty INT, note TEXT)",
]
SHOPS = [[i, f"shop {i}"] for i in range(20)]
LONG_QUERIES = {
    "aggregates": QUERIES[1],
    "joins": QUERIES[4],
    "windows": "SELECT max(r) FROM (SELECT row_number() OVER (PARTITION BY k ORDER BY price) AS r FROM big) ranked",
}


def generator():
    target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
    return os.path.join(target, "release", "picodata-bench")


class Cpu:
    """CPU microseconds of processes since it was made: of all threads, and of the tx thread."""

    def __init__(self, instances):
        self.instances = instances
        self.start = self._read()

    def _read(self):
        return sum(i.cpu_s() for i in self.instances), sum(i.tx_cpu_s() for i in self.instances)

    def per(self, operations):
        return [(now - then) * 1e6 / operations for now, then in zip(self._read(), self.start, strict=True)]


def load(instance, operation, **settings):
    words = [f"{name}={value}" for name, value in settings.items()]
    done = subprocess.run([generator(), "load", instance.address, operation, *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{operation}: {done.stderr.strip()}")
    return json.loads(done.stdout)


class Pinger:
    """Pings instances while a block runs."""

    def __init__(self, instances):
        self.instances = instances

    def __enter__(self):
        command = [generator(), "ping"]
        pipe = subprocess.PIPE
        self.runs = [
            subprocess.Popen([*command, i.address], stdin=pipe, stdout=pipe, text=True) for i in self.instances
        ]
        return self

    def __exit__(self, *_):
        self.waits = [json.loads(run.communicate()[0]) for run in self.runs]

    def longest_ms(self):
        return max(w["max_us"] for w in self.waits) / 1000


def let_guest_in(cluster):
    """The load generator logs in as guest; only a benchmark would do this."""
    for instance in cluster:
        instance.eval("box.schema.user.grant('guest', 'super', nil, nil, {if_not_exists = true})")


def make_router(cluster):
    """Takes all buckets from the last instance, and answers it and the others."""
    *storages, router = cluster
    mine = next(i["replicaset"] for i in router.status()["instances"] if i["name"] == router.name)
    router.call("set_weight", mine, 0)

    def empty():
        return all(r["buckets"] == 0 for r in router.status()["replicasets"] if r["name"] == mine)

    wait_until(empty, "the router to own no bucket", timeout_s=60)
    return router, storages


def measure_operations(folder, seconds):
    cluster = Cluster(folder, 3, memtx_memory=1 << 30).start()
    try:
        let_guest_in(cluster)
        router, storages = make_router(cluster)
        router.sql("CREATE TABLE kv (id BIGINT PRIMARY KEY, value TEXT)")
        make_raw = """
            local space = box.schema.space.create('bench_raw', {id = 100000})
            space:create_index('primary', {parts = {{1, 'unsigned'}, {2, 'integer'}}})
        """
        storages[0].eval(make_raw)
        load(router, "insert-many", in_flight=8, requests=KEYS // 100, milliseconds=60_000)
        load(storages[0], "raw-put", in_flight=32, requests=KEYS, keys=KEYS, space=100_000, milliseconds=60_000)
        first, rows = KEYS, []
        for name, title in OPERATIONS:
            for in_flight in IN_FLIGHT:
                raw = name.startswith("raw")
                target, others = (storages[0], []) if raw else (router, storages)
                fronts, backs = Cpu([target]), Cpu(others)
                settings = {"in_flight": in_flight, "milliseconds": int(seconds * 1000), "keys": KEYS, "first": first}
                result = load(target, name, space=100_000, **settings)
                first += result["rows"]
                (front, front_tx), (back, back_tx) = fronts.per(result["rows"]), backs.per(result["rows"])
                rate = result["rows"] / result["seconds"]
                rows.append(
                    (title, in_flight, rate, result["p50_us"], result["p99_us"], front, back, front_tx, back_tx)
                )
                print(f"{title:26} {in_flight:4} {rate:10.0f}/s  {front:6.2f} + {back:6.2f} us", flush=True)
        return rows
    finally:
        cluster.kill()


def big_rows():
    return ([i, i * 7919 % 1000, i * 31 % 100_000 / 100, i % 50, f"item {i * 7919 % 1000}"] for i in range(BIG_ROWS))


def load_big(router):
    for text in BIG_TABLES:
        router.sql(f"CREATE TABLE {text}" + (" DISTRIBUTED GLOBALLY" if text.startswith("shops") else ""))
    router.call("crud.insert_many", "shops", SHOPS)
    started = time.monotonic()
    rows = big_rows()
    while batch := list(itertools.islice(rows, ROW_BATCH)):
        router.call("crud.insert_many", "big", batch)
    print(f"loaded {BIG_ROWS} rows in {time.monotonic() - started:.1f} s", flush=True)


def measure_queries(folder):
    postgresql = time_on_postgresql()
    cluster = Cluster(folder, 3, memtx_memory=2 << 30).start()
    try:
        let_guest_in(cluster)
        router, storages = make_router(cluster)
        load_big(router)
        rows = []
        for text in QUERIES:
            answer = router.sql(text)  # Plans are cached from here on.
            with Pinger([router, *storages]) as pinger:
                cpu = Cpu([router, *storages])
                median_ms, theirs_ms = median_ms_of(router, text, QUERY_RUNS), postgresql[text]
                all_us, tx_us = cpu.per(QUERY_RUNS)
            gap_ms = pinger.longest_ms()
            with Neighbours():
                slowed = median_ms_of(router, text, NEIGHBOUR_RUNS) / median_ms
            figures = (median_ms, theirs_ms, median_ms / theirs_ms, all_us / 1000, tx_us / 1000, gap_ms, slowed)
            rows.append((text, len(answer), *figures))
            print(
                f"{median_ms:8.1f} ms, PostgreSQL {theirs_ms:8.1f}, gap {gap_ms:6.1f} ms, neighbours {slowed:5.1f} x"
                f"  {text[:70]}",
                flush=True,
            )
        return rows
    finally:
        cluster.kill()


def median_ms_of(instance, text, runs):
    times_ms = []
    for _ in range(runs):
        started = time.monotonic()
        instance.sql(text)
        times_ms.append((time.monotonic() - started) * 1000)
    return statistics.median(times_ms)


class Neighbours:
    """One process a processor that never rests and has nothing to do with the cluster."""

    def __enter__(self):
        self.processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count())]

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()


def time_on_postgresql():
    """The median milliseconds of the same queries on Debian's PostgreSQL as it is installed."""
    server = postgres.Server().start()
    try:
        connection = server.connect("bench")
        for text in BIG_TABLES:
            connection.execute(f"CREATE TABLE {text}")
        cursor = connection.cursor()
        for name, rows in (("shops", SHOPS), ("big", big_rows())):
            with cursor.copy(f"COPY {name} FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        connection.execute("VACUUM ANALYZE")
        times = {}
        for text in QUERIES:
            runs = []
            for _ in range(QUERY_RUNS + 1):
                started = time.monotonic()
                postgres.run(connection, text)
                runs.append((time.monotonic() - started) * 1000)
            times[text] = statistics.median(runs[1:])
        return times
    finally:
        server.stop()


def measure_cluster(folder):
    cluster = Cluster(folder, 4, replication_factor=2)
    try:
        started = time.monotonic()
        for instance in cluster:
            instance.start()
        wait_until(lambda: cluster[0].sql("SELECT 1"), "the first answer")
        first_s = time.monotonic() - started
        cluster.wait_whole()
        whole_s = time.monotonic() - started
        ddl_ms = []
        for i in range(DDL_RUNS):
            started = time.monotonic()
            cluster[i % 4].sql(f"CREATE TABLE t{i} (id INT PRIMARY KEY, v TEXT)")
            ddl_ms.append((time.monotonic() - started) * 1000)
        print(
            f"first answer {first_s:.2f} s, whole {whole_s:.2f} s, DDL {statistics.median(ddl_ms):.1f} ms", flush=True
        )
        return first_s, whole_s, statistics.median(ddl_ms), max(ddl_ms)
    finally:
        cluster.kill()


def measure_replication(folder, seconds):
    """Writes to one master: each in its replica's log before it is answered, or in its own alone; in turns.

    Also at which rate they arrive at the replica, which may be behind when the last one is answered.
    """
    cluster = Cluster(folder, 2, replication_factor=2, memtx_memory=1 << 30).start()
    try:
        master = cluster.master_of(cluster[0].status()["replicasets"][0]["name"])
        replica = next(i for i in cluster if i is not master)
        let_guest_in([master])
        for durability in DURABILITIES:
            master.sql(
                f"CREATE TABLE {durability} (id BIGINT PRIMARY KEY, value TEXT) WITH (durability = {durability})"
            )
        cluster.wait_in_sync()
        runs = {(durability, n): [] for durability in DURABILITIES for n in REPLICATED_IN_FLIGHT}
        for _ in range(REPLICATION_TURNS):
            for durability, in_flight in runs:
                words = {"table": durability, "milliseconds": int(seconds * 1000), "keys": KEYS, "first": 0}
                began = time.monotonic()
                result = load(master, "put", in_flight=in_flight, **words)
                written = master.eval("return box.info.lsn, box.info.id")
                wait_until(
                    lambda w=written: replica.eval("return box.info.vclock[...] or 0", w[1])[0] >= w[0],
                    "the replica",
                    120,
                )
                result["arrived"] = result["rows"] / (time.monotonic() - began)
                runs[durability, in_flight].append(result)
        rows = []
        for (durability, in_flight), results in runs.items():
            rate = statistics.median(result["rows"] / result["seconds"] for result in results)
            p50, p99 = (statistics.median(result[name] for result in results) for name in ("p50_us", "p99_us"))
            arrived = statistics.median(result["arrived"] for result in results)
            rows.append((durability, in_flight, rate, arrived, p50, p99))
            print(
                f"{durability:12} {in_flight:4} {rate:10.0f}/s  {arrived:10.0f}/s arrive  p50 {p50:.0f} us", flush=True
            )
        return rows
    finally:
        cluster.kill()


def measure_sharing(folder, seconds):
    """Gets through an instance that runs long queries meanwhile, and through the same one at rest. In turns."""
    cluster = Cluster(folder, 3, memtx_memory=2 << 30).start()
    try:
        let_guest_in(cluster)
        router, _ = make_router(cluster)
        load_big(router)
        router.sql("CREATE TABLE kv (id BIGINT PRIMARY KEY, value TEXT)")
        load(router, "insert-many", in_flight=8, requests=KEYS // 100, milliseconds=60_000)
        rows = {(n, what): [] for n in SHARING_IN_FLIGHT for what in ("at rest", *LONG_QUERIES)}
        for _ in range(SHARING_TURNS):
            for (in_flight, what), results in rows.items():
                words = {"in_flight": in_flight, "milliseconds": int(seconds * 1000), "keys": KEYS}
                with Repeated(router, LONG_QUERIES.get(what)):
                    results.append(load(router, "get", **words))
        measured = []
        for (in_flight, what), results in rows.items():
            rate = statistics.median(result["rows"] / result["seconds"] for result in results)
            p50, p99 = (statistics.median(result[name] for result in results) for name in ("p50_us", "p99_us"))
            at_rest = statistics.median(result["p99_us"] for result in rows[in_flight, "at rest"])
            measured.append((what, in_flight, rate, p50, p99, p99 / at_rest))
            print(f"{what:12} {in_flight:4} {rate:10.0f}/s  p99 {p99:.0f} us, {p99 / at_rest:.2f} x", flush=True)
        return measured
    finally:
        cluster.kill()


class Repeated:
    """Runs a query again and again while a block runs; nothing without a query."""

    def __init__(self, instance, text):
        self.text, self.is_over, self.count = text, threading.Event(), 0
        self.connection = instance.connect(timeout_s=600)
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while self.text and not self.is_over.is_set():
            self.connection.call("picodata.sql", (self.text,))
            self.count += 1

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        was_alive = self.thread.is_alive()
        self.is_over.set()
        self.thread.join()
        if self.text and not (was_alive and self.count):
            raise RuntimeError(f"nothing ran beside it: {self.text}")


def machine():
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next(
        (line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")),
        platform.machine(),
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 30
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"{date}, commit {commit}, {os.cpu_count()} x {cpu}, {memory} GiB, load {os.getloadavg()[0]:.1f} at the start"
    )


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def report(where, operations, queries, cluster, replication, sharing):
    parts = ["# Benchmarks", where]
    if operations:
        header = ["operation", "in flight", "rows/s", "p50 us", "p99 us", "router CPU us/row", "storages CPU us/row",
                  "router tx", "storages tx"]  # fmt: skip
        rows = [
            (title, n, f"{rate:.0f}", f"{p50:.0f}", f"{p99:.0f}", *(f"{us:.2f}" for us in cpu))
            for title, n, rate, p50, p99, *cpu in operations
        ]
        parts += ["## Single rows: one router, two storages, 100-byte values", table(header, rows)]
    if queries:
        header = ["query", "rows", "median ms", "PostgreSQL ms", "ratio", "CPU ms", "tx CPU ms", "longest tx gap ms",
                  "beside busy processes"]  # fmt: skip
        rows = [(f"`{text}`", count, *(f"{x:.2f}" for x in figures)) for text, count, *figures in queries]
        parts += [f"## Analytical queries over {BIG_ROWS} rows on two replicasets", table(header, rows)]
    if cluster:
        first_s, whole_s, ddl_ms, ddl_max_ms = cluster
        rows = [
            ("four instances from nothing to the first answer", f"{first_s:.2f} s"),
            ("to every instance online, all buckets served", f"{whole_s:.2f} s"),
            ("CREATE TABLE acknowledged everywhere, median", f"{ddl_ms:.1f} ms"),
            ("the slowest", f"{ddl_max_ms:.1f} ms"),
        ]
        parts += ["## The cluster", table(["what", "time"], rows)]
    if replication:
        header = ["durability", "in flight", "rows/s answered", "rows/s at the replica", "p50 us", "p99 us"]
        rows = [(title, *(f"{number:.0f}" for number in numbers)) for title, *numbers in replication]
        parts += ["## Replicated writes: one master, one replica, 100-byte values", table(header, rows)]
    if sharing:
        header = ["meanwhile", "in flight", "gets/s", "p50 us", "p99 us", "p99 against rest"]
        rows = [
            (what, n, f"{rate:.0f}", f"{p50:.0f}", f"{p99:.0f}", f"{x:.2f}") for what, n, rate, p50, p99, x in sharing
        ]
        parts += ["## Gets beside long queries on the same instance", table(header, rows)]
    return "\n\n".join(parts) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the file to write")
    parser.add_argument("--seconds", type=float, default=4, help="for each operation and depth")
    parser.add_argument("--only", choices=["operations", "queries", "cluster", "replication", "sharing"])
    args = parser.parse_args()
    where = machine()
    folder = tempfile.mkdtemp(prefix="picodata-bench-")
    try:
        chosen = {
            "operations": lambda: measure_operations(f"{folder}/operations", args.seconds),
            "queries": lambda: measure_queries(f"{folder}/queries"),
            "cluster": lambda: measure_cluster(f"{folder}/cluster"),
            "replication": lambda: measure_replication(f"{folder}/replication", args.seconds),
            "sharing": lambda: measure_sharing(f"{folder}/sharing", args.seconds),
        }
        results = {name: run() if args.only in (None, name) else None for name, run in chosen.items()}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    args.out.write_text(report(where, **results))
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
