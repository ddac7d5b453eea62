"""Whether a history of operations on one register could have happened one after the other.

The algorithm is that of Wing and Gong with Lowe's memory of states seen: it walks through the calls and returns in the
order of time, takes operations one by one that were under way at that moment, and goes back when the register does
not hold what was read. A history is judged key by key, since registers that are each linearizable are so together.

An operation that failed without having done anything is left out by the caller. One whose outcome is unknown may take
place at any time after its call, or never: it has no end.
"""

import dataclasses
import math

READ, WRITE, CAS = "read", "write", "cas"


@dataclasses.dataclass(frozen=True)
class Operation:
    """`begin` and `end` in seconds; `end` is infinite when the outcome is unknown.

    A read has `value`, what it saw. A write sets `value`. A compare-and-set changes `expected` to `value` and was
    `done` or found something else.
    """

    kind: str
    value: object
    begin: float
    end: float = math.inf
    expected: object = None
    done: bool = True


def step(operation, state):
    """The register after the operation, or None when it could not have happened with that state."""
    match operation.kind:
        case "read":
            return (state,) if state == operation.value else None
        case "write":
            return (operation.value,)
        case _ if operation.end == math.inf:
            return (operation.value,) if state == operation.expected else (state,)
        case _ if operation.done:
            return (operation.value,) if state == operation.expected else None
        case _:
            return (state,) if state != operation.expected else None


class _Event:
    """A call or a return in a doubly linked list; a call knows its return."""

    __slots__ = ("back", "number", "operation", "previous", "next")

    def __init__(self, number, operation=None):
        self.number, self.operation = number, operation
        self.back = self.previous = self.next = None


def _events(history):
    """The list of events in the order of time, behind a head."""
    entries = []
    for number, operation in enumerate(history):
        call, back = _Event(number, operation), _Event(number)
        call.back = back
        # At the same time calls come first: nothing says that they did not overlap.
        entries += [(operation.begin, 0, number, call), (operation.end, 1, number, back)]
    entries.sort(key=lambda entry: entry[:3])
    head = last = _Event(-1)
    for *_, event in entries:
        last.next, event.previous = event, last
        last = event
    return head


def _lift(call):
    for event in (call, call.back):
        event.previous.next = event.next
        if event.next is not None:
            event.next.previous = event.previous


def _unlift(call):
    for event in (call.back, call):
        event.previous.next = event
        if event.next is not None:
            event.next.previous = event


def is_linearizable(history, initial=None):
    """Whether the operations on one register, which holds `initial` at first, fit together."""
    history = list(history)
    certain = sum(1 for operation in history if operation.end != math.inf)
    head = _events(history)
    state, taken, seen, stack = initial, 0, set(), []
    left = certain
    event = head.next
    while left > 0:
        if event is None or event.operation is None:
            # A return before its operation was taken: the last choice was wrong.
            if not stack:
                return False
            call, state, taken = stack.pop()
            left += call.operation.end != math.inf
            _unlift(call)
            event = call.next
            continue
        after = step(event.operation, state)
        key = (taken | 1 << event.number, after[0]) if after else None
        if key is None or key in seen:
            event = event.next
            continue
        seen.add(key)
        stack.append((event, state, taken))
        taken, state = key
        left -= event.operation.end != math.inf
        _lift(event)
        event = head.next
    return True
