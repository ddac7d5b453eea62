"""A PostgreSQL server of the test's own, to compare answers with.

Debian's, in a temporary folder, over a Unix socket, by an unprivileged user (PostgreSQL refuses to run as root), with
the C locale so that texts order as bytes. It is gone with the process that started it.
"""

import ctypes
import os
import pathlib
import pwd
import re
import shutil
import signal
import subprocess
import tempfile

import psycopg
from psycopg import adapt
from psycopg.types.string import TextLoader

USER = "postgres"
START_TIMEOUT_S = 30
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def _programs():
    """Debian keeps initdb and postgres in a folder by version."""
    folders = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    if not folders:
        raise RuntimeError("PostgreSQL is not installed: run `make deps`")
    return folders[-1]


def _as_user():
    """Words for subprocess: another user when this is root."""
    return {"user": USER, "group": pwd.getpwnam(USER).pw_gid, "extra_groups": []} if os.getuid() == 0 else {}


def _die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Server:
    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="picodata-pg-"))
        self.process = None

    def start(self):
        programs, data = _programs(), self.folder / "data"
        if os.getuid() == 0:
            os.chown(self.folder, pwd.getpwnam(USER).pw_uid, -1)
        options = {"cwd": self.folder, "env": {"PATH": os.environ["PATH"], "TZ": "UTC"}, **_as_user()}
        made = [programs / "initdb", "-D", data, "-A", "trust", "-U", USER, "-E", "UTF8", "--locale=C", "-N"]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL, **options)
        settings = {"listen_addresses": "", "unix_socket_directories": self.folder, "fsync": "off", "timezone": "UTC"}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self.process = subprocess.Popen(
            [programs / "postgres", "-D", data, *words],
            stdout=open(self.folder / "log", "ab"),  # noqa: SIM115 (the server's own, until it ends)
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent,
            **options,
        )
        ready = [programs / "pg_isready", "-h", self.folder, "-U", USER, "-t", "1"]
        for _ in range(START_TIMEOUT_S * 20):
            if self.process.poll() is not None:
                raise RuntimeError((self.folder / "log").read_text())
            if subprocess.run(ready, stdout=subprocess.DEVNULL, check=False).returncode == 0:
                return self
            try:
                self.process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
        raise RuntimeError("PostgreSQL did not start: " + (self.folder / "log").read_text())

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(START_TIMEOUT_S)
        shutil.rmtree(self.folder, ignore_errors=True)

    def connect(self, schema=None):
        """A session whose tables are in a schema of its own, made anew."""
        connection = psycopg.connect(host=str(self.folder), user=USER, dbname="postgres", autocommit=True)
        _as_text(connection.adapters)
        connection.execute("SET client_min_messages = error")
        if schema:
            connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
            connection.execute(f"CREATE SCHEMA {schema}")
            connection.execute(f"SET search_path = {schema}")
        return connection


def _as_text(adapters: adapt.AdaptersMap):
    """Times as the server prints them, as our results have them too."""
    for name in ("date", "time", "timestamp", "timestamptz", "interval", "json", "jsonb"):
        adapters.register_loader(name, TextLoader)


_PLACEMENT = re.compile(
    r"\s+(DISTRIBUTED\s+(GLOBALLY|BY\s*\([^)]*\)(\s+IN\s+TIER\s+\w+)?)|USING\s+(memtx|vinyl)|OPTION\s*\([^)]*\))",
    re.IGNORECASE,
)


def run(connection, sql):
    """Rows as tuples, or the number of rows changed. What only our dialect has, where rows lie, is left out."""
    if re.match(r"\s*CREATE\s+TABLE", sql, re.IGNORECASE):
        sql = _PLACEMENT.sub("", sql)
    cursor = connection.cursor()
    # Without parameters a percent sign is just one.
    cursor.execute(sql.encode())
    return cursor.fetchall() if cursor.description is not None else cursor.rowcount
