"""Statements that nobody would write, against a running cluster: `python -m fuzz --minutes 60 --seed 1`.

The statements of the .slt files are run in their order, and between them mutants of them: words left out, doubled,
swapped and taken from other statements, numbers at their limits, deep nesting, bytes that are no UTF-8, and parameters
of any type. What counts as found: an instance that ends or stops answering, an error without a code of ours, and one of
the engine's that no user can do anything about (`INTERNAL`). Mutants may be answered; what with is not looked at.
"""

import argparse
import pathlib
import random
import re
import sys
import tempfile
import time

import msgpack
import slt
import tarantool
from harness import PASSWORD, ROOT, Cluster

INTERNAL = 20000
OURS = range(20000, 21000)
TIMEOUT_S = 3
WORD = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\w+|\s+|.", re.DOTALL)
EXTREMES = ["0", "-1", "9223372036854775807", "-9223372036854775808", "9223372036854775808", "1e308", "1e-400", "NULL",
            "''", "'x'", "TRUE", "1.5", "DATE '0001-01-01'", "DATE '9999-12-31'", "INTERVAL '1' DAY", "ARRAY[1, NULL]",
            "CAST(NULL AS INT)", "'\u0000'", "'\U0001f600'", "$1", "?", "$65536"]  # fmt: skip
PARAMETERS = [
    None,
    0,
    -1,
    2**63 - 1,
    2**64 - 1,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "x" * 1000,
    b"\xff",
    True,
    [1],
    {"a": 1},
]
MUTANTS = 4
TABLES = """
local names = {}
for _, space in box.space._space:pairs() do
    if space.id >= 512 and not space.name:find('^_pico_') then table.insert(names, space.name) end
end
return names
"""


class Mutator:
    def __init__(self, statements, dice):
        self.dice = dice
        self.words = [WORD.findall(text) for text in statements]

    def mutant(self, text):
        words = WORD.findall(text)
        for _ in range(self.dice.randint(1, 3)):
            if words:
                words = self.dice.choice(
                    [
                        self.leave_out,
                        self.double,
                        self.swap,
                        self.take,
                        self.splice,
                        self.replace,
                        self.nest,
                        self.extreme,
                    ]
                )(words)
        return "".join(words)[: 1 << 16]

    def place(self, words):
        return self.dice.randrange(len(words))

    def leave_out(self, words):
        at = self.place(words)
        return words[:at] + words[at + self.dice.randint(1, 3) :]

    def double(self, words):
        at, length = self.place(words), self.dice.randint(1, 12)
        return words[:at] + words[at : at + length] * self.dice.choice([2, 2, 2, 200]) + words[at + length :]

    def swap(self, words):
        a, b = self.place(words), self.place(words)
        words = list(words)
        words[a], words[b] = words[b], words[a]
        return words

    def take(self, words):
        at, other = self.place(words), self.dice.choice(self.words)
        return words[:at] + [self.dice.choice(other)] + words[at:]

    def splice(self, words):
        at, other = self.place(words), self.dice.choice(self.words)
        return words[:at] + other[self.place(other) :]

    def replace(self, words):
        at, other = self.place(words), self.dice.choice(self.words)
        return words[:at] + [self.dice.choice(other)] + words[at + 1 :]

    def nest(self, words):
        at, length, deep = self.place(words), self.dice.randint(1, 8), self.dice.choice([1, 3, 30, 3000])
        opening, closing = self.dice.choice(
            [("(", ")"), ("NOT (", ")"), ("(SELECT ", ")"), ("CASE WHEN ", " THEN 1 END"), ("-", "")]
        )
        return words[:at] + [opening * deep] + words[at : at + length] + [closing * deep] + words[at + length :]

    def extreme(self, words):
        numbers = [at for at, word in enumerate(words) if word[:1].isdigit() or word[:1] == "'"]
        at = self.dice.choice(numbers) if numbers else self.place(words)
        return words[:at] + [self.dice.choice(EXTREMES)] + words[at + 1 :]


class Fuzz:
    def __init__(self, cluster, seed):
        self.cluster, self.dice = cluster, random.Random(seed)
        self.files = [slt.parse(path) for path in sorted((ROOT / "test" / "sql").glob("*.slt"))]
        self.mutator = Mutator([record.sql for file in self.files for record in file], self.dice)
        self.connections = {}
        self.run_count, self.answered, self.found = 0, 0, {}

    def run(self, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for record in self.dice.choice(self.files):
                self.ask(record.sql)
                for _ in range(MUTANTS):
                    self.ask(self.mutator.mutant(record.sql))
                if time.monotonic() > deadline:
                    break
            self.clean()

    def ask(self, text):
        words = text.encode("utf-8", "surrogatepass")
        if self.dice.random() < 0.02:
            at = self.dice.randrange(len(words) + 1)
            words = words[:at] + self.dice.choice([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x00"]) + words[at:]
        params = [self.dice.choice(PARAMETERS) for _ in range(self.dice.choice([0, 0, 0, 1, 2]))]
        instance = self.dice.choice(self.cluster.instances)
        self.run_count += 1
        try:
            if instance.name not in self.connections:
                self.connections[instance.name] = self.connect(instance)
            self.connections[instance.name].call("picodata.sql", (words, params, {"timeout": TIMEOUT_S}))
            self.answered += 1
        except tarantool.error.NetworkError as error:
            self.lose(instance, words, error)
        except tarantool.error.DatabaseError as error:
            code, message = error.args[:2]
            if code not in OURS or code == INTERNAL:
                self.note(f"{code}: {message.decode('utf-8', 'replace')}", words)
        except msgpack.exceptions.BufferFull:
            self.answered += 1  # More than the client takes; all of it has been read.
        except OSError as error:
            self.lose(instance, words, error)

    @staticmethod
    def connect(instance):
        """Without an encoding bytes are sent as text, whatever they are."""
        return tarantool.Connection(
            instance.host,
            instance.port,
            user="admin",
            password=PASSWORD,
            encoding=None,
            socket_timeout=60,
            reconnect_max_attempts=0,
            fetch_schema=False,
        )

    def lose(self, instance, words, error):
        """It has ended, or did not answer."""
        self.connections.pop(instance.name, None)
        state = "does not answer" if instance.is_running() else f"ended with {instance.process.poll()}"
        self.note(f"{instance.name} {state}: {error!r}", words)
        if not instance.is_running():
            instance.start()
            self.cluster.wait_whole()

    def note(self, what, words):
        # Names and numbers differ from mutant to mutant.
        kind = re.sub(r"[\"'`].*?[\"'`]|\d+", "_", what)[:160]
        if kind not in self.found:
            self.found[kind] = words
            print(f"found: {what[:400]}\n  by: {words[:1000]!r}", flush=True)

    def clean(self):
        asked = self.cluster[0]
        for name in asked.eval(TABLES)[0]:
            try:
                asked.sql(f'DROP TABLE IF EXISTS "{name}" CASCADE')
            except tarantool.error.DatabaseError as error:
                self.note(f"table {name} stays: {error}", b"")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="picodata-fuzz-") as folder:
        cluster = Cluster(pathlib.Path(folder), 2).start().wait_balanced()
        try:
            fuzz = Fuzz(cluster, options.seed)
            fuzz.run(options.minutes * 60)
        finally:
            cluster.kill()
    print(f"{fuzz.run_count} statements, {fuzz.answered} answered, {len(fuzz.found)} kinds of findings")
    sys.exit(1 if fuzz.found else 0)


if __name__ == "__main__":
    main()
