"""Faults under load: clients write through any instance while instances die, stop and are cut off; then what they saw
is judged.

Three kinds of data, each a promise of its own:
- registers: every history of one key must be linearizable;
- a set: what was acknowledged is there at the end, and what was never sent is not;
- accounts: transfers inside one bucket keep the sum, at every moment that it is read.

A run is void when too few operations were acknowledged: faults that stop everything prove nothing. `python -m chaos
--minutes 10 --seed 4` runs by itself and prints its figures, `--faults 'kills=100 partitions=50 pauses=50'` until there
were so many; the short run is a test.
"""

import argparse
import collections
import dataclasses
import itertools
import pathlib
import random
import sys
import tempfile
import threading
import time

import network
import tarantool
from harness import Cluster, wait_until
from linearizability import READ, WRITE, Operation, is_linearizable
from power import Power

# Errors after which it is not known what happened.
UNKNOWN = {20202}
# Operations a second below which a run proves nothing.
FLOOR = 50
REGISTERS = 12
# A register's history ends after so many operations, so that judging it takes no time; a new one begins.
REGISTER_OPERATIONS_MAX = 300
ACCOUNTS = 8
BALANCE = 100
CALL_TIMEOUT_S = 20
SETTLE_S = 60

TRANSFER = """
function transfer(from, to, amount)
    local t = box.space.accounts
    box.begin()
    local a, b = t:get(from), t:get(to)
    t:update(from, {{'-', 4, amount}})
    t:update(to, {{'+', 4, amount}})
    box.commit()
    return true
end
"""


# Faults, by the names of the methods that do them.
KINDS = {
    "kills": ["kill_master", "kill_any", "kill_leader"],
    "pauses": ["pause_master"],
    "power": ["lose_power"],
    "planned": ["stop", "hand_over"],
    "members": ["exchange"],
    "partitions": ["part_master", "part_one_way", "part_minority", "part_from_raft"],
}


@dataclasses.dataclass
class Report:
    """What came of a run."""

    acknowledged: int = 0
    unknown: int = 0
    refused: int = 0
    faults: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    lost: list = dataclasses.field(default_factory=list)
    invented: list = dataclasses.field(default_factory=list)
    broken_registers: list = dataclasses.field(default_factory=list)
    registers: int = 0
    wrong_sums: list = dataclasses.field(default_factory=list)

    def violations(self):
        return self.lost + self.invented + self.broken_registers + self.wrong_sums

    def __str__(self):
        lines = [
            f"acknowledged {self.acknowledged}, unknown {self.unknown}, refused {self.refused}",
            "faults: " + ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items())),
            f"registers judged {self.registers}, not linearizable {len(self.broken_registers)}",
            f"acknowledged and lost {len(self.lost)}, never sent and there {len(self.invented)}",
            f"wrong sums {len(self.wrong_sums)}",
        ]
        return "\n".join(lines)


class Client(threading.Thread):
    """One client; talks to one instance after another, a new one after each error."""

    def __init__(self, chaos, number):
        super().__init__(daemon=True)
        self.chaos, self.number = chaos, number
        self.dice = random.Random(f"{chaos.seed}/{number}")
        self.connection = None

    def run(self):
        while not self.chaos.is_over.is_set():
            self.work()

    def call(self, function, *args):
        """Calls a function and answers what it answered; raises Unknown or Refused."""
        try:
            if self.connection is None:
                self.connection = self.dice.choice(self.chaos.cluster.instances).connect(timeout_s=CALL_TIMEOUT_S)
        except (tarantool.error.Error, OSError) as error:
            time.sleep(0.01)
            raise Refused from error
        try:
            answer = self.connection.call(f"picodata.{function}", args)
            return answer[0] if len(answer) else None
        except tarantool.error.DatabaseError as error:
            if isinstance(error, tarantool.error.NetworkError):
                self.leave()
                raise Unknown from error
            code = error.args[0] if error.args else None
            # An error that the host raises for a function of ours says nothing either.
            raise (Unknown if code in UNKNOWN or not isinstance(code, int) or code < 20000 else Refused) from error
        except (tarantool.error.Error, OSError) as error:
            self.leave()
            raise Unknown from error

    def leave(self):
        connection, self.connection = self.connection, None
        try:
            if connection is not None:
                connection.close()
        except Exception:
            pass

    def count(self, outcome):
        with self.chaos.lock:
            setattr(self.chaos.report, outcome, getattr(self.chaos.report, outcome) + 1)


class Unknown(Exception):
    pass


class Refused(Exception):
    pass


class RegisterClient(Client):
    """Reads and writes registers, each value once."""

    def work(self):
        slot = self.dice.randrange(REGISTERS)
        key, value = self.chaos.register(slot), next(self.chaos.values)
        is_read = self.dice.random() < 0.5
        begin = time.monotonic()
        try:
            if is_read:
                rows = self.call("crud.get", "registers", key)["rows"]
                operation = Operation(READ, rows[0][1] if rows else None, begin, time.monotonic())
            else:
                self.call("crud.replace", "registers", [key, value])
                operation = Operation(WRITE, value, begin, time.monotonic())
        except Unknown:
            self.count("unknown")
            if is_read:
                return
            operation = Operation(WRITE, value, begin)
        except Refused:
            self.count("refused")
            return
        else:
            self.count("acknowledged")
        self.chaos.note(slot, key, operation)


class SetClient(Client):
    """Inserts keys of its own, again and again, and remembers which were acknowledged."""

    def __init__(self, chaos, number):
        super().__init__(chaos, number)
        self.keys = itertools.count(number, 1000)
        self.sent, self.acknowledged = set(), set()

    def work(self):
        key = next(self.keys)
        self.sent.add(key)
        try:
            self.call("crud.insert", "numbers", [key, self.number])
        except Unknown:
            self.count("unknown")
        except Refused:
            self.count("refused")
            self.sent.discard(key)
        else:
            self.acknowledged.add(key)
            self.count("acknowledged")


class BankClient(Client):
    """Transfers between accounts of one bucket, and reads of all of them at one moment."""

    def work(self):
        branch = self.dice.randrange(4)
        accounts = self.dice.sample(range(ACCOUNTS), 2)
        try:
            if self.dice.random() < 0.3:
                rows = self.call("crud.select", "accounts", [["==", "branch", branch]])["rows"]
                if sum(row[2] for row in rows) != ACCOUNTS * BALANCE:
                    self.chaos.report.wrong_sums.append((branch, [row[2] for row in rows]))
            else:
                key = [branch, accounts[0]]
                bucket = self.chaos.branch_buckets[branch]
                stored = [[bucket, branch, account] for account in accounts]
                self.call("call", "accounts", key, "write", "transfer", [*stored, self.dice.randint(1, 9)])
        except Unknown:
            self.count("unknown")
        except Refused:
            self.count("refused")
        else:
            self.count("acknowledged")


class Chaos:
    """A cluster of two replicasets of three under load and faults."""

    def __init__(self, cluster, net=None, seed=1):
        self.cluster, self.net, self.seed = cluster, net, seed
        self.dice = random.Random(seed)
        self.report = Report()
        self.lock = threading.Lock()
        self.is_over = threading.Event()
        self.values = itertools.count(1)
        self.histories = collections.defaultdict(list)
        self.generation = [0] * REGISTERS
        self.branch_buckets = []

    def prepare(self):
        asked = self.cluster[0]
        asked.sql("CREATE TABLE registers (id INT PRIMARY KEY, v INT)")
        asked.sql("CREATE TABLE numbers (id INT PRIMARY KEY, v INT)")
        asked.sql(
            "CREATE TABLE accounts (branch INT, id INT, amount INT, PRIMARY KEY (branch, id)) DISTRIBUTED BY (branch)"
        )
        rows = [[branch, account, BALANCE] for branch in range(4) for account in range(ACCOUNTS)]
        asked.call("crud.insert_many", "accounts", rows)
        self.branch_buckets = [asked.call("bucket_id", "accounts", [branch, 0]) for branch in range(4)]
        for instance in self.cluster:
            instance.eval(TRANSFER)
        self.cluster.wait_in_sync(SETTLE_S)

    def register(self, slot):
        with self.lock:
            return slot + REGISTERS * self.generation[slot]

    def note(self, slot, key, operation):
        with self.lock:
            history = self.histories[key]
            history.append(operation)
            if len(history) == REGISTER_OPERATIONS_MAX:
                self.generation[slot] += 1

    def run(self, strikes, clients=6):
        """Strikes with one fault after the other; None stands for any."""
        threads = [
            kind(self, n)
            for n, kind in enumerate(
                itertools.islice(itertools.cycle([RegisterClient, RegisterClient, SetClient, BankClient]), clients)
            )
        ]
        for thread in threads:
            thread.start()
        for kind in strikes:
            time.sleep(self.dice.uniform(0.5, 2.0))
            self.strike(kind)
        self.is_over.set()
        for thread in threads:
            thread.join(2 * CALL_TIMEOUT_S)
        self.cluster.wait_whole(SETTLE_S)
        self.cluster.wait_in_sync(SETTLE_S)
        self.judge(threads)
        return self.report

    def strike(self, kind=None):
        """One fault, and its end."""
        possible = [k for k in KINDS if self.net or k != "partitions"]
        name = self.dice.choice(KINDS[kind] if kind else [name for k in possible for name in KINDS[k]])
        self.report.faults[name] += 1
        getattr(self, name)()
        self.cluster.wait_whole(SETTLE_S)
        for instance in self.cluster:
            wait_until(lambda i=instance: i.eval(TRANSFER) is not None, "the function to be there", SETTLE_S)
        self.cluster.wait_in_sync(SETTLE_S)

    def master(self):
        status = self.cluster.running()[0].status()
        return self.cluster.by_name(self.dice.choice(status["replicasets"])["master"])

    def hold(self):
        time.sleep(self.dice.uniform(0.5, 3.0))

    def kill_master(self):
        self.kill(self.master())

    def kill_any(self):
        self.kill(self.dice.choice(self.cluster.instances))

    def kill_leader(self):
        self.kill(self.cluster.leader())

    def kill(self, victim):
        victim.kill()
        self.hold()
        victim.start()

    def lose_power(self):
        """The machine of any instance loses power, and what its log was given in the last moments with it."""
        victim = self.dice.choice(self.cluster.instances)
        power = Power(victim)
        time.sleep(self.dice.uniform(0.05, 0.5))
        victim.kill()
        self.hold()
        power.lose()
        victim.start()

    def stop(self):
        victim = self.dice.choice(self.cluster.instances)
        victim.stop()
        self.hold()
        victim.start()

    def hand_over(self):
        asked = self.cluster[0]
        asked.call("switchover", self.dice.choice(asked.status()["replicasets"])["name"])

    def exchange(self):
        """An instance is expelled, and a new one takes its machine."""
        victim, asked = self.dice.sample(self.cluster.instances, 2)
        # Under faults an answer can be that it is not known; asking again is harmless.
        wait_until(lambda: asked.call("expel", victim.name) or True, "the expulsion", SETTLE_S)
        victim.exit_code(SETTLE_S)
        new = self.cluster.replace(victim).start()
        self.cluster.wait_whole(SETTLE_S)
        new.eval(TRANSFER)

    def pause_master(self):
        victim = self.master()
        victim.pause()
        self.hold()
        victim.resume()

    def hosts(self, *instances):
        return [self.cluster.instances.index(i) for i in instances]

    def part(self, group, one_way=False):
        others = [h for h in range(len(self.cluster)) if h not in group]
        if one_way:
            for a, b in itertools.product(group, others):
                self.net.cut(a, b)
        else:
            self.net.part(group, others)
        self.hold()
        self.net.heal()

    def part_master(self):
        self.part(self.hosts(self.master()))

    def part_one_way(self):
        self.part(self.hosts(self.master()), one_way=True)

    def part_minority(self):
        self.part(self.hosts(*self.dice.sample(self.cluster.instances, 2)))

    def part_from_raft(self):
        """A master and its replicas lose the others, but not one another nor their clients."""
        status = self.cluster[0].status()
        name = self.dice.choice(status["replicasets"])["name"]
        present = [i for i in status["instances"] if i["state"] != "Expelled"]
        members = [self.cluster.by_name(i["name"]) for i in present if i["replicaset"] == name]
        self.part(self.hosts(*members))

    def judge(self, threads):
        for key, history in self.histories.items():
            self.report.registers += 1
            if not is_linearizable(history):
                self.report.broken_registers.append((key, history))
        asked = self.cluster[0]
        found = {row[0] for row in asked.sql("SELECT id FROM numbers")}
        sets = [thread for thread in threads if isinstance(thread, SetClient)]
        acknowledged = set().union(*(thread.acknowledged for thread in sets))
        sent = set().union(*(thread.sent for thread in sets))
        self.report.lost += sorted(acknowledged - found)
        self.report.invented += sorted(found - sent)
        for branch in range(4):
            rows = asked.call("crud.select", "accounts", [["==", "branch", branch]])["rows"]
            if sum(row[2] for row in rows) != ACCOUNTS * BALANCE:
                self.report.wrong_sums.append((branch, [row[2] for row in rows]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument(
        "--faults", type=in_order, help="how many of which kind, instead of minutes, as 'kills=100 pauses=50'"
    )
    options = parser.parse_args()
    started = time.monotonic()
    reason = network.why_not()
    if reason and "partitions" in (options.faults or []):
        parser.error(f"no partitions: {reason}")
    print(f"seed {options.seed}" + (f"; no partitions: {reason}" if reason else ""))
    with tempfile.TemporaryDirectory(prefix="picodata-chaos-") as folder:
        random.Random(options.seed).shuffle(options.faults or [])
        strikes = options.faults or until(options.minutes * 60)
        report = run(pathlib.Path(folder), strikes, options.seed, with_network=not reason)
    print(report)
    if report.acknowledged < FLOOR * (time.monotonic() - started):
        print(f"void: fewer than {FLOOR} operations a second were acknowledged")
        sys.exit(2)
    sys.exit(1 if report.violations() else 0)


def until(seconds):
    """Any fault, again and again for so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield None


def in_order(text):
    """So many of each kind, kind by kind."""
    counts = dict(word.split("=") for word in text.split())
    if unknown := counts.keys() - KINDS:
        raise argparse.ArgumentTypeError(f"no such faults: {', '.join(unknown)}; there are {', '.join(KINDS)}")
    return [kind for kind, count in counts.items() for _ in range(int(count))]


def run(folder, strikes, seed, with_network, size=6, clients=6):
    """A whole run in a folder."""
    net = network.Network(size) if with_network else None
    cluster = None
    try:
        cluster = Cluster(folder, size, replication_factor=3, network=net).start().wait_balanced()
        chaos = Chaos(cluster, net, seed)
        chaos.prepare()
        return chaos.run(strikes, clients)
    finally:
        if cluster:
            cluster.kill()
        if net:
            net.close()


if __name__ == "__main__":
    main()
