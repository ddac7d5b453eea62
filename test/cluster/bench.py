"""Measures and writes a table: `python -m bench --out FILE`.

It starts clusters as the tests do, drives them with the load generator of test/bench, and reads the CPU time of each
process from /proc. CPU microseconds an operation count: they stay on a shared machine, where rates wander.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import tempfile
import time

from harness import ROOT, Cluster, wait_until

IN_FLIGHT = [1, 32, 128]
REPLICATED_IN_FLIGHT = [1, 64]
KEYS = 100_000
BIG_ROWS = 2_000_000
QUERY_RUNS = 5
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
]


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


def measure_queries(folder):
    cluster = Cluster(folder, 3, memtx_memory=2 << 30).start()
    try:
        let_guest_in(cluster)
        router, storages = make_router(cluster)
        router.sql("CREATE TABLE big (id BIGINT PRIMARY KEY, k INT, price DOUBLE, qty INT)")
        router.sql("CREATE TABLE shops (id INT PRIMARY KEY, name TEXT) DISTRIBUTED GLOBALLY")
        router.call("crud.insert_many", "shops", [[i, f"shop {i}"] for i in range(20)])
        started = time.monotonic()
        for first in range(0, BIG_ROWS, ROW_BATCH):
            rows = [[i, i * 7919 % 1000, i * 31 % 100_000 / 100, i % 50] for i in range(first, first + ROW_BATCH)]
            router.call("crud.insert_many", "big", rows)
        print(f"loaded {BIG_ROWS} rows in {time.monotonic() - started:.1f} s", flush=True)
        rows = []
        for text in QUERIES:
            answer = router.sql(text)  # Plans are cached from here on.
            times_ms = []
            with Pinger([router, *storages]) as pinger:
                cpu = Cpu([router, *storages])
                for _ in range(QUERY_RUNS):
                    started = time.monotonic()
                    router.sql(text)
                    times_ms.append((time.monotonic() - started) * 1000)
                all_us, tx_us = cpu.per(QUERY_RUNS)
            row = (text, len(answer), statistics.median(times_ms), all_us / 1000, tx_us / 1000, pinger.longest_ms())
            rows.append(row)
            print(f"{row[2]:8.1f} ms, gap {row[5]:6.1f} ms  {text[:70]}", flush=True)
        return rows
    finally:
        cluster.kill()


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
    """Writes to one master: each in the log of its replica before it is answered, then with the same replica following
    without being waited for."""
    cluster = Cluster(folder, 2, replication_factor=2, memtx_memory=1 << 30).start()
    try:
        name = cluster[0].status()["replicasets"][0]["name"]
        in_sync = lambda: cluster[0].status()["replicasets"][0]["in_sync"]  # noqa: E731
        cluster[0].sql("CREATE TABLE kv (id BIGINT PRIMARY KEY, value TEXT)")
        wait_until(lambda: len(in_sync()) == 2, "both to be in sync")
        master = cluster.master_of(name)
        replica = next(i for i in cluster if i is not master)
        let_guest_in([master])

        def measure(title):
            for in_flight in REPLICATED_IN_FLIGHT:
                settings = {"in_flight": in_flight, "milliseconds": int(seconds * 1000), "keys": KEYS, "first": 0}
                result = load(master, "put", **settings)
                rate = result["rows"] / result["seconds"]
                rows.append((title, in_flight, rate, result["p50_us"], result["p99_us"]))
                print(f"{title:26} {in_flight:4} {rate:10.0f}/s  p50 {result['p50_us']:.0f} us", flush=True)

        rows = []
        measure("quorum of 2")
        # A row of its own keeps it from being counted in again: it follows, and nobody waits for it.
        space = "box.schema.space.create('own', {id = 600}):create_index('primary')"
        master.eval(space)
        wait_until(lambda: replica.eval("return box.space.own ~= nil")[0], "the space to be there")
        replica.eval("box.cfg{read_only = false} box.space.own:insert{1} box.cfg{read_only = true}")
        replica.kill()
        wait_until(lambda: in_sync() == [master.name], "the replica to be counted out")
        replica.start()
        cluster.wait_whole()
        follows = f"return box.info.replication[{replica.eval('return box.info.id')[0]}].downstream.status"
        wait_until(lambda: master.eval(follows)[0] == "follow", "the replica to follow")
        measure("asynchronous")
        assert in_sync() == [master.name]
        for at, in_flight in enumerate(REPLICATED_IN_FLIGHT):
            ratio = rows[at][2] / rows[at + len(REPLICATED_IN_FLIGHT)][2]
            print(f"quorum of 2 against asynchronous, {in_flight} in flight: {ratio:.2f} x", flush=True)
        return rows
    finally:
        cluster.kill()


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


def report(where, operations, queries, cluster, replication):
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
        header = ["query", "rows", "median ms", "CPU ms", "tx CPU ms", "longest tx gap ms"]
        rows = [(f"`{text}`", count, *(f"{x:.1f}" for x in figures)) for text, count, *figures in queries]
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
        header = ["", "in flight", "rows/s", "p50 us", "p99 us"]
        rows = [(title, n, f"{rate:.0f}", f"{p50:.0f}", f"{p99:.0f}") for title, n, rate, p50, p99 in replication]
        parts += ["## Replicated writes: one master, one replica, 100-byte values", table(header, rows)]
    return "\n\n".join(parts) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the file to write")
    parser.add_argument("--seconds", type=float, default=4, help="for each operation and depth")
    parser.add_argument("--only", choices=["operations", "queries", "cluster", "replication"])
    args = parser.parse_args()
    where = machine()
    folder = tempfile.mkdtemp(prefix="picodata-bench-")
    try:
        chosen = {
            "operations": lambda: measure_operations(f"{folder}/operations", args.seconds),
            "queries": lambda: measure_queries(f"{folder}/queries"),
            "cluster": lambda: measure_cluster(f"{folder}/cluster"),
            "replication": lambda: measure_replication(f"{folder}/replication", args.seconds),
        }
        results = {name: run() if args.only in (None, name) else None for name, run in chosen.items()}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    args.out.write_text(report(where, **results))
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
