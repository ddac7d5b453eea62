"""What statements are asked of: clusters in memory, real clusters, PostgreSQL. All answer `rows(sql)`."""

import decimal
import pathlib
import struct
import subprocess
import sys
import uuid

import msgpack

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "test" / "cluster"))


class Refused(Exception):
    """The statement was refused; the text says why."""


def _decimal(payload):
    """MessagePack's extension for decimals: a scale, then packed digits and a sign."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(payload)
    scale = unpacker.unpack()
    digits = payload[unpacker.tell() :].hex()
    sign = "-" if digits[-1] in "bd" else ""
    return decimal.Decimal(f"{sign}{digits[:-1]}e{-scale}")


def _extension(code, payload):
    return _decimal(payload) if code == 1 else uuid.UUID(bytes=payload)


class Memory:
    """A cluster in a process of its own, without the host."""

    def __init__(self, program, replicasets, *words):
        self.name = f"memory-{replicasets}" + "".join(f"-{word}" for word in words)
        self.command = [program, str(replicasets), *words]
        self.process = None

    def rows(self, sql):
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        text = sql.encode()
        self.process.stdin.write(struct.pack(">I", len(text)) + text)
        self.process.stdin.flush()
        head = self.process.stdout.read(4)
        if len(head) < 4:
            raise RuntimeError(f"{self.name} died of: {sql}")
        answer = self.process.stdout.read(struct.unpack(">I", head)[0])
        answer = msgpack.unpackb(answer, ext_hook=_extension, strict_map_key=False)
        if not answer[0]:
            raise Refused(f"{answer[1]}: {answer[2]}")
        return answer[1].get("rows", [])

    def stop(self):
        if self.process:
            self.process.stdin.close()
            self.process.wait(10)


class Cluster:
    """Real instances; each statement is asked of another one."""

    def __init__(self, folder, replicasets):
        import harness

        self.name = f"cluster-{replicasets}"
        self.cluster = harness.Cluster(folder, replicasets, replication_factor=1).start()
        self.cluster.wait_balanced()
        self.number = 0

    def rows(self, sql):
        import tarantool

        self.number += 1
        try:
            answer = self.cluster[self.number % len(self.cluster)].sql(sql)
        except tarantool.error.DatabaseError as error:
            raise Refused(f"{error.args[0]}: {error.args[1]}") from None
        return answer if isinstance(answer, list) else []

    def stop(self):
        self.cluster.kill()


class Postgres:
    def __init__(self):
        import postgres

        self.name = "postgresql"
        self.module = postgres
        self.server = postgres.Server().start()
        self.connection = self.server.connect("differential")
        self.connection.execute("SET statement_timeout = '20s'")

    def rows(self, sql):
        try:
            answer = self.module.run(self.connection, sql)
        except self.module.psycopg.Error as error:
            raise Refused(str(error).split("\n")[0]) from None
        return answer if isinstance(answer, list) else []

    def stop(self):
        self.server.stop()
