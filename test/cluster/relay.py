"""A relay in front of an instance that breaks connections while answers pass, so that they are lost, or holds up the
rows that others pull from it."""

import contextlib
import random
import re
import socket
import threading

import ports

CHUNK_BYTES = 1 << 16
# A packet whose header begins with the type SUBSCRIBE: from then on the connection is one that rows are pulled over.
SUBSCRIBE = re.compile(rb"\xce.{4}[\x81-\x8f]\x00\x42", re.DOTALL)


class Gate(threading.Event):
    """Holds up what comes by until it is set."""

    def __init__(self):
        super().__init__()
        self.set()
        self.is_lossy = False


class Relay:
    """Listens on `address` and passes everything on to an instance's port. While `losing` is set, a connection is
    broken each time that some hundreds of kilobytes, as the dice say, have been answered over all connections. While
    `flowing` is not set, rows that are pulled wait, and their connections stay; while `acknowledging` is not set, the
    acknowledgements do."""

    def __init__(self, port, seed=0):
        self.port, self.rng = port, random.Random(seed)
        self.losing, self.broken = False, 0
        self.flowing, self.acknowledging = Gate(), Gate()
        self._left = self._next()
        self._lock = threading.Lock()
        listener = ports.take()
        self.address = f"127.0.0.1:{listener}"
        self._listener = socket.create_server(("127.0.0.1", listener))
        threading.Thread(target=self._accept, daemon=True).start()

    def _next(self):
        return self.rng.randrange(150_000, 800_000)

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.port))
            except OSError:
                client.close()
                continue
            pulls = threading.Event()
            for source, target, answers in [(client, server, False), (server, client, True)]:
                threading.Thread(target=self._pass_on, args=(source, target, answers, pulls), daemon=True).start()

    def _pass_on(self, source, target, answers, pulls):
        try:
            while data := source.recv(CHUNK_BYTES):
                if pulls.is_set():
                    gate = self.flowing if answers else self.acknowledging
                    gate.wait()
                    if gate.is_lossy:
                        break
                elif not answers and SUBSCRIBE.search(data):
                    pulls.set()
                if answers and self._is_lost(len(data)):
                    break
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _is_lost(self, size):
        with self._lock:
            if not self.losing:
                return False
            self._left -= size
            if self._left > 0:
                return False
            self._left = self._next()
            self.broken += 1
            return True

    def lose_acknowledgements(self):
        """Those that are held up, with their connections; later ones flow."""
        held, self.acknowledging = self.acknowledging, Gate()
        held.is_lossy = True
        held.set()

    def close(self):
        self._listener.close()
