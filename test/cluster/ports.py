"""Ports for test instances, which no two test processes on the machine hand out at the same time.

A port is taken by a lock on a file named after it, which the kernel lets go of when the process ends, however it ends.
"""

import fcntl
import os
import socket
import tempfile

FIRST = int(os.environ.get("PICODATA_TEST_PORT", "21000"))
COUNT = 1000  # All below the ports that the kernel gives to outgoing connections.

_locks = {}
_next = 0


def _is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def take():
    """A port that nobody listens on and that stays ours until the process ends."""
    global _next
    folder = os.path.join(tempfile.gettempdir(), "picodata-test-ports")
    os.makedirs(folder, exist_ok=True)
    for _ in range(COUNT):
        port = FIRST + _next % COUNT
        _next += 1
        if port in _locks:
            continue
        lock = open(os.path.join(folder, str(port)), "w")  # noqa: SIM115 - open means locked
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        if _is_free(port):
            _locks[port] = lock
            return port
        lock.close()
    raise RuntimeError(f"no free port from {FIRST} to {FIRST + COUNT - 1}")
