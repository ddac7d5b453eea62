"""Readers and writers that go on while a test does something to the cluster."""

import threading
import time

import tarantool

RETRYABLE = {20201, 20300, 20301, 20302, 20303, 20304, 20305, 20306}


class Worker(threading.Thread):
    """Repeats one action until it is told to stop; what goes wrong ends it and is kept."""

    def __init__(self, action):
        super().__init__(daemon=True)
        self.action, self.failure, self.rounds, self.done = action, None, 0, threading.Event()

    def run(self):
        while not self.done.is_set():
            try:
                self.action(self.rounds)
                self.rounds += 1
            except Exception as error:  # Kept for the test to raise.
                self.failure = error
                return

    def finish(self):
        self.done.set()
        self.join()
        if self.failure:
            raise self.failure


def retrying(action):
    """Runs an action that may meet a moment without a master or with a locked bucket, as its error codes allow."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return action()
        except tarantool.error.DatabaseError as error:
            if error.args[0] not in RETRYABLE or time.monotonic() > deadline:
                raise
