"""The checker itself: what it must accept, and what it must find."""

import itertools
import math
import random

from linearizability import CAS, READ, WRITE, Operation, is_linearizable, step


def read(value, begin, end):
    return Operation(READ, value, begin, end)


def write(value, begin, end=math.inf):
    return Operation(WRITE, value, begin, end)


def test_one_after_the_other():
    assert is_linearizable([])
    assert is_linearizable([write(1, 0, 1), read(1, 2, 3), write(2, 4, 5), read(2, 6, 7)])
    assert not is_linearizable([write(1, 0, 1), read(None, 2, 3)])
    assert not is_linearizable([write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)])


def test_operations_that_overlap_take_place_in_either_order():
    assert is_linearizable([write(1, 0, 10), read(1, 1, 2), read(1, 3, 4)])
    assert is_linearizable([write(1, 0, 10), read(None, 1, 2), read(1, 3, 4)])
    assert not is_linearizable([write(1, 0, 10), read(1, 1, 2), read(None, 3, 4)])
    assert not is_linearizable([write(1, 0, 3), write(2, 0, 3), read(1, 4, 5), read(2, 6, 7)])


def test_a_write_of_unknown_outcome_may_take_place_late_or_never():
    assert is_linearizable([write(1, 0), read(None, 1, 2), read(None, 3, 4)])
    assert is_linearizable([write(1, 0), read(None, 1, 2), read(1, 3, 4)])
    assert not is_linearizable([write(1, 0), read(1, 1, 2), read(None, 3, 4)])


def test_compare_and_set():
    def cas(expected, value, begin, end, done=True):
        return Operation(CAS, value, begin, end, expected, done)

    assert is_linearizable([write(1, 0, 1), cas(1, 2, 2, 3), read(2, 4, 5)])
    assert is_linearizable([write(1, 0, 1), cas(3, 2, 2, 3, done=False), read(1, 4, 5)])
    assert not is_linearizable([write(1, 0, 1), cas(1, 2, 2, 3, done=False)])
    assert not is_linearizable([write(1, 0, 1), cas(1, 2, 2, 5), cas(1, 3, 2, 5)])
    assert is_linearizable([write(1, 0, 1), cas(1, 2, 2, math.inf), read(1, 3, 4), read(2, 5, 6)])


def is_linearizable_by_trying(history):
    """The same by all orders, for histories of a handful of operations."""
    for size in range(len(history) + 1):
        for order in itertools.permutations(history, size):
            if any(o.end != math.inf and o not in order for o in history):
                continue
            if any(order[j].end < order[i].begin for i in range(size) for j in range(i + 1, size)):
                continue
            state, fits = None, True
            for operation in order:
                after = step(operation, state)
                fits = fits and after is not None
                if not fits:
                    break
                state = after[0]
            if fits:
                return True
    return False


def test_it_agrees_with_trying_all_orders():
    dice = random.Random(7)
    verdicts = set()
    for _ in range(400):
        history = []
        for number in range(dice.randint(1, 5)):
            begin = dice.randint(0, 12)
            end = math.inf if dice.random() < 0.15 else begin + dice.randint(0, 6)
            kind = dice.choice([READ, READ, WRITE])
            if kind == READ and end == math.inf:
                continue
            value = dice.choice([None, 0, 1, 2]) if kind == READ else number % 3
            history.append(Operation(kind, value, begin + number / 100, end + number / 100))
        expected = is_linearizable_by_trying(history)
        assert is_linearizable(history) == expected, history
        verdicts.add(expected)
    assert verdicts == {True, False}


def test_a_long_history_takes_no_time():
    history = [write(0, 0, 0.5)]
    for i in range(1, 1500):
        history.append(write(i, i, i + 1.5))
        history.append(read(i - 1, i + 0.1, i + 0.6))
    assert is_linearizable(history)
    assert not is_linearizable([*history, read(3, 2000, 2001)])
