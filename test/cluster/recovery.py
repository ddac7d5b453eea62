"""How long it takes until writes go on: `python -m recovery --rounds 20` prints a table.

Writes to one key begin each 5 ms on an instance that no fault strikes. What is measured is the time from the fault to
the first acknowledgement of a write that began after it; for an instance that begins anew, from its start until it is
in sync.
"""

import argparse
import itertools
import pathlib
import tempfile
import time

import network
from harness import Cluster, wait_until

LOAD = """
    local key = ...
    local fiber, clock, crud = require('fiber'), require('clock'), require('picodata').crud
    _G.acknowledged, _G.failed, _G.is_loaded = {}, {}, true
    fiber.create(function()
        while _G.is_loaded do
            fiber.create(function()
                local began = clock.monotonic()
                local ok, err = pcall(crud.replace, 't', {key, 1})
                if ok then
                    table.insert(_G.acknowledged, {began, clock.monotonic()})
                else
                    table.insert(_G.failed, {began, tostring(err)})
                end
            end)
            fiber.sleep(0.005)
        end
    end)
"""
BULK_ROWS = 1_000_000
CHUNK_ROWS = 20_000
SETTLE_S = 60
WRITES_AT_REST = 600
# Until a process has loaded the module.
PROCESS_START_S = 0.1


class Bench:
    def __init__(self, cluster, net):
        self.cluster, self.net = cluster, net
        cluster[0].sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
        cluster[0].call("crud.insert_many", "t", [[i, 0] for i in range(1000)])
        self.wait_in_sync()

    def wait_in_sync(self):
        self.cluster.wait_whole(SETTLE_S)
        self.cluster.wait_in_sync(SETTLE_S)

    def pick(self, leads=False):
        """A master, which leads Raft too or is in another replicaset than the leader; a key of its replicaset, and an
        instance outside of it to ask."""
        leader = self.cluster.leader()
        status = leader.status()
        homes = {i["name"]: i["replicaset"] for i in status["instances"]}
        name = next(r["name"] for r in status["replicasets"] if (r["name"] == homes[leader.name]) == leads)
        if leads and self.cluster.master_of(name) is not leader:
            leader.call("switchover", name, leader.name)
        master = self.cluster.master_of(name)
        asked = next(i for i in self.cluster if homes[i.name] != name and i is not leader)
        found = master.eval(
            """
            for id = 0, 999 do
                if box.space.t:get({require('picodata').bucket_id('t', id), id}) ~= nil then return id end
            end"""
        )
        return master, found[0], asked

    def measure(self, fault, end, leads):
        """Milliseconds from the fault to the first write that goes through."""
        master, key, asked = self.pick(leads)
        asked.eval(LOAD, key)
        wait_until(lambda: asked.eval("return #_G.acknowledged > 20")[0], "writes before the fault")
        began = fault(master)
        first = wait_until(lambda: self.first_after(asked, began), "writes after the fault")
        asked.eval("_G.is_loaded = false")
        end(master)
        self.wait_in_sync()
        return (first - began) * 1e3

    @staticmethod
    def first_after(asked, began):
        code = """
            local began, first = ...
            for _, ack in ipairs(_G.acknowledged) do
                if ack[1] > began and (first == nil or ack[2] < first) then first = ack[2] end
            end
            return first"""
        answer = asked.eval(code, began)
        return answer[0] if answer else None

    def kill(self, leads=False):
        def kill(master):
            began = time.monotonic()
            master.kill()
            return began

        return self.measure(kill, lambda master: master.start(), leads)

    def pause(self, leads=False):
        def pause(master):
            master.pause()
            return time.monotonic()

        return self.measure(pause, lambda master: master.resume(), leads)

    def part(self, leads=False):
        def cut(master):
            host = self.cluster.instances.index(master)
            self.net.part([host], [h for h in range(len(self.cluster)) if h != host])
            return time.monotonic()

        return self.measure(cut, lambda master: self.net.heal(), leads)

    def switch_over(self):
        """The longest pause of writes to a replicaset that hands over, and the errors of those that fail."""
        master, key, asked = self.pick()
        name = next(r["name"] for r in asked.status()["replicasets"] if r["master"] == master.name)
        asked.eval(LOAD, key)
        wait_until(lambda: asked.eval("return #_G.acknowledged > 20")[0], "writes before")
        asked.call("switchover", name)
        written = asked.eval("return #_G.acknowledged")[0]
        wait_until(lambda: asked.eval("return #_G.acknowledged")[0] > written + 20, "writes after")
        asked.eval("_G.is_loaded = false")
        acks = sorted(ack[1] for ack in asked.eval("return _G.acknowledged")[0])
        failed = [error for _, error in asked.eval("return _G.failed")[0]]
        self.wait_in_sync()
        return max(b - a for a, b in itertools.pairwise(acks)) * 1e3, failed

    def kill_leader(self):
        """The longest pause of writes to a replicaset that the leader is not in, and the errors of those that fail."""
        _, key, asked = self.pick()
        asked.eval(LOAD, key)
        wait_until(lambda: asked.eval("return #_G.acknowledged > 20")[0], "writes before the fault")
        leader = self.cluster.leader()
        leader.kill()
        wait_until(lambda: asked.status()["leader"] not in (None, leader.name), "another leader")
        time.sleep(0.5)
        asked.eval("_G.is_loaded = false")
        acks = sorted(ack[1] for ack in asked.eval("return _G.acknowledged")[0])
        failed = [error for _, error in asked.eval("return _G.failed")[0]]
        leader.start()
        self.wait_in_sync()
        return max(b - a for a, b in itertools.pairwise(acks)) * 1e3, failed


def p99(taken):
    return sorted(taken)[len(taken) * 99 // 100]


def rejoin(folder):
    """Seconds from the start of an old master with a tail until it is in sync, with a million rows; how long others'
    writes took, in milliseconds, at rest, while its process starts, and from then on; how many fail."""
    cluster = Cluster(folder, 3, replication_factor=3, memtx_memory=512 << 20).start()
    try:
        asked = cluster[0]
        asked.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
        for start in range(0, BULK_ROWS, CHUNK_ROWS):
            asked.call("crud.insert_many", "t", [[i, 0] for i in range(start, start + CHUNK_ROWS)])
        name = asked.status()["replicasets"][0]["name"]
        wait_until(lambda: len(asked.status()["replicasets"][0]["in_sync"]) == 3, "all to be in sync")
        old = cluster.master_of(name)
        others = [i for i in cluster if i is not old]
        for other in others:
            other.eval("box.cfg{replication = {}}")
        old.eval(
            """
            local before = box.info.lsn
            require('fiber').create(function() require('picodata').crud.replace('t', {1, 1}) end)
            while box.info.lsn == before do require('fiber').sleep(0.001) end"""
        )
        old.kill()
        wait_until(lambda: others[0].status()["replicasets"][0]["master"] in {i.name for i in others}, "a master")
        asked = others[0]
        wait_until(lambda: asked.in_sync(name) == {i.name for i in others}, "the others to be in sync")
        asked.eval(LOAD, 2)
        wait_until(lambda: asked.eval("return #_G.acknowledged")[0] > 20, "the first writes")
        rested = time.monotonic()
        wait_until(lambda: asked.eval("return #_G.acknowledged")[0] >= WRITES_AT_REST, "writes at rest", SETTLE_S)
        began = time.monotonic()
        old.start()
        in_sync = lambda: old.name in asked.status()["replicasets"][0]["in_sync"]  # noqa: E731
        wait_until(in_sync, "the old master to be in sync", SETTLE_S)
        ended = time.monotonic()
        asked.eval("_G.is_loaded = false")
        writes, failed = asked.eval("return _G.acknowledged")[0], asked.eval("return #_G.failed")[0]
        running = began + PROCESS_START_S

        def taken_ms(since, until):
            return [(end - begin) * 1e3 for begin, end in writes if since <= begin < until]

        return ended - began, taken_ms(rested, began), taken_ms(began, running), taken_ms(running, ended), failed
    finally:
        cluster.kill()


def line(name, values):
    values = sorted(values)
    print(f"| {name} | {values[len(values) // 2]:.0f} ms | {values[-1]:.0f} ms | {len(values)} |", flush=True)


def told(measured):
    """How many writes failed, and why."""
    errors = [error for _, failed in measured for error in failed]
    return "\n  ".join([str(len(errors)), *errors])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--rejoins", type=int, default=5, help="how often an old master with a million rows comes back")
    options = parser.parse_args()
    reason = network.why_not()
    net = None if reason else network.Network(6)
    cluster = None
    with tempfile.TemporaryDirectory(prefix="picodata-recovery-") as folder:
        try:
            cluster = Cluster(pathlib.Path(folder) / "a", 6, replication_factor=3, network=net).start().wait_balanced()
            bench = Bench(cluster, net)
            print("| fault of a master, to the first acknowledged write | median | worst | rounds |\n|---|---|---|---|")
            line("kill -9", [bench.kill() for _ in range(options.rounds)])
            line("SIGSTOP", [bench.pause() for _ in range(options.rounds)])
            if net:
                line("partition", [bench.part() for _ in range(options.rounds)])
            line("kill -9 of one that leads Raft", [bench.kill(leads=True) for _ in range(options.rounds)])
            line("SIGSTOP of one that leads Raft", [bench.pause(leads=True) for _ in range(options.rounds)])
            if net:
                line("partition of one that leads Raft", [bench.part(leads=True) for _ in range(options.rounds)])
            planned = [bench.switch_over() for _ in range(options.rounds)]
            line("planned switchover: longest pause", [pause for pause, _ in planned])
            leaders = [bench.kill_leader() for _ in range(options.rounds)]
            line("kill -9 of the Raft leader: longest pause elsewhere", [pause for pause, _ in leaders])
            print("\nwrites that failed during a switchover:", told(planned))
            print("writes that failed elsewhere:", told(leaders))
        finally:
            if cluster:
                cluster.kill()
            if net:
                net.close()
        if not options.rejoins:
            return
        rejoins = [rejoin(pathlib.Path(folder) / f"rejoin-{n}") for n in range(options.rejoins)]
        seconds = sorted(seconds for seconds, *_ in rejoins)
        print(f"an old master with a tail in sync again, 1M rows: {seconds[len(seconds) // 2]:.2f} s after its start")
        # A few hundred writes each: the p99 of one alone would be that of two of them.
        at_rest, starting, running = (list(itertools.chain(*(r[part] for r in rejoins))) for part in (1, 2, 3))
        print(
            f"p99 of others' writes, {len(rejoins)} times: {p99(at_rest):.1f} ms at rest, "
            f"{p99(starting + running):.1f} ms meanwhile ({p99(starting):.1f} ms while the process starts, "
            f"{p99(running):.1f} ms from then on); {sum(r[4] for r in rejoins)} failed"
        )


if __name__ == "__main__":
    main()
