"""What a stranger can do over the network: nothing, and break nothing."""

import os
import random
import socket
import struct

import msgpack
import pytest
import tarantool
from harness import PASSWORD

REQUEST_TYPE, SYNC, FUNCTION, TUPLE = 0x00, 0x01, 0x22, 0x21
CALL = 0x0A
# The host's own code.
INVALID_MSGPACK = 20
FUNCTIONS = [
    "sql", "queries", "cancel", "status", "create_table", "drop_table", "create_index", "call", "bucket_id", "expel",
    "set_weight", "set_setting", "settings", "options",
    "crud.insert", "crud.insert_many", "crud.replace", "crud.replace_many", "crud.get", "crud.update", "crud.upsert",
    "crud.delete", "crud.select", "crud.count",
]  # fmt: skip
PEER_FUNCTIONS = [
    "propose", "apply_schema", "batch", "fragment", "raft", "discover", "join", "copy_begin", "copy_read",
    "history", "awake",
]  # fmt: skip


def test_guest_can_do_nothing(cluster):
    guest = tarantool.Connection("127.0.0.1", cluster[0].port, fetch_schema=False, reconnect_max_attempts=0)
    for function in FUNCTIONS:
        with pytest.raises(tarantool.error.DatabaseError) as raised:
            guest.call(f"picodata.{function}", ("x",))
        assert "denied" in raised.value.args[1], function
    for function in PEER_FUNCTIONS:
        with pytest.raises(tarantool.error.DatabaseError):
            guest.call(f"picodata.peer.{function}", ())
    for code in ["return 1", "os.exit(1)"]:
        with pytest.raises(tarantool.error.DatabaseError):
            guest.eval(code)


def test_a_wrong_password_is_refused(cluster):
    with pytest.raises(tarantool.error.DatabaseError):
        cluster[0].connect(password=PASSWORD + "x")


class Raw:
    """An authenticated connection that sends any bytes as the body of a call."""

    def __init__(self, instance):
        self.connection = instance.connect()
        self.socket = self.connection._socket

    def call(self, function, args):
        """`args` are raw MessagePack bytes. Answers the error code, or None when the call worked."""
        header = msgpack.packb({REQUEST_TYPE: CALL, SYNC: 77})
        body = b"\x82" + msgpack.packb(FUNCTION) + msgpack.packb(function) + msgpack.packb(TUPLE) + args
        frame = header + body
        self.socket.sendall(b"\xce" + struct.pack(">I", len(frame)) + frame)
        size = msgpack.unpackb(self._read(5))
        unpacker = msgpack.Unpacker(raw=True, strict_map_key=False, max_buffer_size=0)
        unpacker.feed(self._read(size))
        code = unpacker.unpack()[REQUEST_TYPE]
        return code - 0x8000 if code else None

    def _read(self, size):
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            assert part, "the instance closed the connection"
            data += part
        return data

    def close(self):
        self.connection.close()


BODIES = {
    "no arguments": b"\x90",
    "nil": b"\x91\xc0",
    "a map": b"\x91\x80",
    "deep arrays": b"\x91" * 200 + b"\xc0",
    "very deep arrays": b"\x91" * 50_000 + b"\xc0",
    "invalid UTF-8": b"\x91\xa4\xff\xfe\xfd\xfc",
    "an unknown extension": b"\x92\xa1t\xc7\x03\x63abc",
    "a broken decimal": b"\x92\xa1t\xc7\x02\x01\xff\xff",
    "twenty arguments": b"\xdc\x00\x14" + b"\x01" * 20,
    "a float": b"\x91\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
    "a huge number": b"\x91\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    "binary data": b"\x91\xc4\x03abc",
    "a byte that means nothing": b"\x91\xc1",
}


@pytest.mark.parametrize("what", BODIES)
def test_strange_arguments_are_refused_by_every_function(cluster, what):
    raw = Raw(cluster[1])
    for function in FUNCTIONS:
        if function in ("status", "queries", "settings", "options"):
            continue  # They take none, and none of these is an error to them.
        code = raw.call(f"picodata.{function}", BODIES[what])
        assert code is not None and 20000 < code < 21000, (function, code)
    for function in PEER_FUNCTIONS:
        raw.call(f"picodata.peer.{function}", BODIES[what])
    raw.close()
    assert cluster[1].sql("SELECT 1") == [[1]]


INVALID = {
    "an array that ends early": b"\x95\x01",
    "a string that ends early": b"\x91\xa9SEL",
    "a map that ends early": b"\x91\x82\xa1a\x01",
    "arguments that are no array": b"\xa8SELECT 1",
    "nothing": b"",
}


@pytest.mark.parametrize("what", INVALID)
def test_invalid_messagepack_is_refused_by_every_function(cluster, what):
    raw = Raw(cluster[0])
    for function in FUNCTIONS:
        assert raw.call(f"picodata.{function}", INVALID[what]) == INVALID_MSGPACK, function
    for function in PEER_FUNCTIONS:
        assert raw.call(f"picodata.peer.{function}", INVALID[what]) == INVALID_MSGPACK, function
    # The connection goes on, too.
    assert raw.call("picodata.sql", msgpack.packb(["SELECT 1"])) is None
    raw.close()


def test_random_arguments_break_nothing(cluster):
    seed = int(os.environ.get("PICODATA_TEST_SEED", random.randrange(1 << 32)))
    print(f"PICODATA_TEST_SEED={seed}")
    rng = random.Random(seed)

    def value(depth=0):
        kind = rng.randrange(9 if depth < 3 else 6)
        if kind == 0:
            return None
        if kind == 1:
            return rng.choice([0, -1, 1, 1 << 31, -(1 << 63), (1 << 64) - 1])
        if kind == 2:
            return rng.choice(["", "t", "SELECT", "customers", "write", "x" * 300])
        if kind == 3:
            return rng.random() < 0.5
        if kind == 4:
            return rng.choice([0.5, float("nan"), float("inf")])
        if kind == 5:
            return bytes(rng.randrange(256) for _ in range(rng.randrange(20)))
        if kind == 6:
            return {
                rng.choice(["timeout", "rows_max", "name", "first", 1]): value(depth + 1)
                for _ in range(rng.randrange(3))
            }
        return [value(depth + 1) for _ in range(rng.randrange(5))]

    raw = Raw(cluster[2])
    for _ in range(1500):
        function = rng.choice([f for f in FUNCTIONS if f not in ("expel", "set_weight", "set_setting", "status")])
        raw.call(f"picodata.{function}", msgpack.packb([value() for _ in range(rng.randrange(5))]))
    raw.close()
    for instance in cluster:
        assert instance.is_running()
        assert instance.sql("SELECT 1") == [[1]]


def test_garbage_on_the_port_breaks_nothing(cluster):
    for noise in [b"\x00" * 1000, b"GET / HTTP/1.1\r\n\r\n", b"\xce\xff\xff\xff\xff" + b"x" * 100, b"\xc1" * 64]:
        with socket.create_connection(("127.0.0.1", cluster[3].port), 5) as stranger:
            stranger.recv(128)
            stranger.sendall(noise)
            stranger.shutdown(socket.SHUT_WR)
            while stranger.recv(1024):
                pass
    assert cluster[3].sql("SELECT 1") == [[1]]
