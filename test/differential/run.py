"""Compares the answers of clusters and of PostgreSQL to random queries.

    python run.py --queries 2000 [--seed N] [--memory PROGRAM | --cluster FOLDER] [--without-postgresql]

Each schema of random tables gets a few hundred queries; a share of the checks are TLP and NoREC, which ask our side
alone.
The seed is printed; the same seed asks the same. Ends with 1 when there was a difference.
"""

import argparse
import contextlib
import datetime
import decimal
import math
import os
import random
import sys
import time

import engines
import generator

QUERIES_PER_SCHEMA = 150
DIFFERENCES_MAX = 40
# Both refuse, or one side has a bound that the other has not.
BOUNDS = ("LIMIT_EXCEEDED", "statement timeout", "TIMEOUT", "looks at both sides")


def cell(value):
    """A value in a form that all sides share."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, (int, float, decimal.Decimal)):
        return float(value)
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    return value if isinstance(value, str) else str(value)


def key(row):
    return [
        (v is not None, str(type(v)), (round(v, 6) if isinstance(v, float) else v)) if v is not None else (False, "", 0)
        for v in row
    ]


def equal(left, right):
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9)
    return left == right


def same(left, right, ordered):
    left, right = [[cell(v) for v in row] for row in left], [[cell(v) for v in row] for row in right]
    if len(left) != len(right):
        return False
    if not ordered:
        left, right = sorted(left, key=key), sorted(right, key=key)
    return all(len(a) == len(b) and all(map(equal, a, b)) for a, b in zip(left, right, strict=True))


class Tester:
    def __init__(self, seed, sides, reference):
        self.seed, self.sides, self.reference = seed, sides, reference
        self.asked, self.refused, self.differences = 0, 0, []

    def ask(self, side, sql):
        self.asked += 1
        try:
            return side.rows(sql)
        except engines.Refused as error:
            return error

    def report(self, setup, sql, answers):
        self.differences.append(sql)
        print(f"\n--- difference {len(self.differences)}")
        print("\n".join(f"{line};" for line in setup))
        print(sql)
        for name, answer in answers:
            shown = (
                answer
                if isinstance(answer, Exception)
                else sorted(([cell(v) for v in row] for row in answer), key=key)[:12]
            )
            print(f"  {name}: {shown}", flush=True)

    def compare(self, setup, sql, ordered):
        answers = [(side.name, self.ask(side, sql)) for side in self.sides]
        if self.reference:
            answers.append((self.reference.name, self.ask(self.reference, sql)))
        failures = [isinstance(answer, Exception) for _, answer in answers]
        if any(
            bound in str(answer) for _, answer in answers if isinstance(answer, Exception) for bound in BOUNDS
        ) or all(failures):
            self.refused += 1
        elif any(failures) or not all(same(answers[-1][1], answer, ordered) for _, answer in answers[:-1]):
            self.report(setup, sql, answers)

    def check_partitions(self, setup, base, parts):
        side = self.sides[0]
        whole, pieces = self.ask(side, base), [self.ask(side, part) for part in parts]
        if isinstance(whole, Exception) or any(isinstance(piece, Exception) for piece in pieces):
            self.refused += 1
        elif not same(whole, [row for piece in pieces for row in piece], False):
            self.report(
                setup, f"TLP: {base}\n" + "\n".join(parts), [("whole", whole), *zip("pnu", pieces, strict=True)]
            )

    def check_unoptimised(self, setup, filtered, counted):
        side = self.sides[0]
        answers = self.ask(side, filtered), self.ask(side, counted)
        if any(isinstance(answer, Exception) for answer in answers):
            self.refused += 1
        elif not same(*answers, False):
            self.report(setup, f"NoREC: {filtered}\n{counted}", list(zip(("filter", "sum"), answers, strict=True)))

    def schema(self, seed, queries):
        made = generator.Generator(seed)
        setup = list(made.setup())
        everyone = [*self.sides, *([self.reference] if self.reference else [])]
        for statement in setup:
            for side in everyone:
                side.rows(statement)
        for _ in range(queries):
            pick = made.random.random()
            if pick < 0.08:
                self.check_partitions(setup, *made.partitions())
            elif pick < 0.14:
                self.check_unoptimised(setup, *made.unoptimised())
            else:
                self.compare(setup, *made.query())
            if len(self.differences) >= DIFFERENCES_MAX:
                break
        for statement in made.teardown():
            for side in everyone:
                side.rows(statement)


def main():
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--queries", type=int, default=2000)
    words.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    words.add_argument("--memory", metavar="PROGRAM", help="clusters in memory, by the program memory_cluster")
    words.add_argument("--cluster", metavar="FOLDER", help="real clusters, of one and of three replicasets")
    words.add_argument("--without-postgresql", action="store_true")
    given = words.parse_args()
    print(f"seed {given.seed}", flush=True)
    with contextlib.ExitStack() as stack:
        if given.memory:
            sides = [engines.Memory(given.memory, 3), engines.Memory(given.memory, 1, "engine")]
        else:
            sides = [engines.Cluster(os.path.join(given.cluster, str(n)), n) for n in (3, 1)]
        for side in sides:
            stack.callback(side.stop)
        reference = None if given.without_postgresql else engines.Postgres()
        if reference:
            stack.callback(reference.stop)
        tester = Tester(given.seed, sides, reference)
        began, done, number = time.monotonic(), 0, 0
        while done < given.queries and len(tester.differences) < DIFFERENCES_MAX:
            count = min(QUERIES_PER_SCHEMA, given.queries - done)
            tester.schema(f"{given.seed}/{number}", count)
            done, number = done + count, number + 1
        seconds = time.monotonic() - began
        print(
            f"seed {given.seed}: {done} queries in {number} schemas, {tester.asked} answers, {tester.refused} refused "
            f"by all or by a bound, {len(tester.differences)} differences, {seconds:.0f} s"
        )
        return 1 if tester.differences else 0


if __name__ == "__main__":
    sys.exit(main())
