"""Instances and clusters of real processes, for tests and benchmarks.

An `Instance` is one tarantool process in a folder of its own, started with one call of `picodata.start`; a `Cluster` is
a set of them that know one another. Everything is asked through the public face: IPROTO calls by the official
connector.
"""

import contextlib
import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import time

import ports
import tarantool

ROOT = pathlib.Path(__file__).resolve().parents[2]
PASSWORD = "secret"
WAIT_S = 30
POLL_S = 0.02
LOG_TAIL_CHARS = 6000

# What a process that refuses to start says, for tests to read.
START = """
local ok, err = pcall(require('picodata').start, {})
if not ok then
    io.stderr:write(('refused with %s: %s\\n'):format(err.code, err.message or err))
    os.exit(1)
end
"""

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def _die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def environment():
    """The environment in which a tarantool finds the build of this checkout."""
    return {
        **os.environ,
        "LUA_PATH": f"{ROOT}/lua/?.lua;;",
        "LUA_CPATH": f"{ROOT}/build/?.so;;",
        "RUST_BACKTRACE": "1",
    }


def lua(value):
    """A Python value as Lua source."""
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\{ord(c):03}" for c in value) + '"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"[{lua(k)}]={lua(v)}" for k, v in value.items()) + "}"
    return "{" + ", ".join(lua(v) for v in value) + "}"


def wait_until(condition, what, timeout_s=WAIT_S):
    """Asks `condition` until it answers something true, which is returned. What it raises counts as 'not yet'."""
    deadline = time.monotonic() + timeout_s
    last = None
    while True:
        try:
            answer = condition()
            if answer:
                return answer
            last = f"it answered {answer!r}"
        except (tarantool.error.Error, OSError, KeyError, IndexError) as error:
            last = f"it raised {error!r}"
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s for {what}; last {last}")
        time.sleep(POLL_S)


class Instance:
    """One process. `config` holds the options of `picodata.start`; `prefix` are words before the command, `env`
    goes to its environment."""

    def __init__(self, folder, prefix=(), env=None, **config):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        listen = config.get("listen") or f"127.0.0.1:{ports.take()}"
        self.host, self.port = listen.rsplit(":", 1)[0], int(listen.rsplit(":", 1)[1])
        self.prefix, self.env = list(prefix), env or {}
        self.config = {
            "data_dir": str(self.folder / "data"),
            "listen": listen,
            "admin_password": PASSWORD,
            "cluster_secret": PASSWORD,
            "memtx_memory": 128 << 20,
            **config,
        }
        self.name = self.config["name"]
        self.address = self.config["listen"]
        self.log_path = self.folder / f"{self.name}.log"
        self.process = None
        self._connection = None

    def start(self):
        """Starts the process and does not wait for it."""
        assert not self.is_running()
        script = self.folder / f"{self.name}.lua"
        script.write_text(START.format(lua(self.config)))
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, "tarantool", str(script)],
                cwd=self.folder,
                env={**environment(), **self.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,
            )
        return self

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def is_listening(self):
        """Whether somebody takes connections at the instance's address."""
        with socket.socket() as probe:
            return probe.connect_ex((self.host, self.port)) == 0

    def stop(self, timeout_s=WAIT_S):
        """Asks the process to end and waits for it."""
        self._end(signal.SIGTERM, timeout_s)

    def kill(self):
        """Ends the process as a power failure would."""
        self._end(signal.SIGKILL, WAIT_S)

    def _end(self, number, timeout_s):
        self.disconnect()
        if self.is_running():
            self.process.send_signal(number)
            self.process.wait(timeout_s)

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def exit_code(self, timeout_s=WAIT_S):
        """Waits until the process has ended of its own accord."""
        return self.process.wait(timeout_s)

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def connect(self, user="admin", password=PASSWORD, timeout_s=10):
        """A connection of the caller's own."""
        return tarantool.Connection(
            self.host,
            self.port,
            user=user,
            password=password,
            socket_timeout=timeout_s,
            connection_timeout=2,
            reconnect_max_attempts=0,
            fetch_schema=False,
        )

    @property
    def connection(self):
        if self._connection is None or self._connection.is_closed():
            self._connection = self.connect(timeout_s=60)
        return self._connection

    def disconnect(self):
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.close()
        self._connection = None

    def call(self, function, *args):
        """Calls a function by its name below `picodata` and answers its value."""
        try:
            answer = self.connection.call(f"picodata.{function}", args)
        except (tarantool.error.NetworkError, OSError):
            self.disconnect()
            raise
        return answer[0] if len(answer) else None

    def sql(self, text, *params):
        """Rows as lists, or the number of rows changed."""
        answer = self.call("sql", text, list(params))
        return answer["rows"] if "rows" in answer else answer["row_count"]

    def eval(self, code, *args):
        return list(self.connection.eval(code, args))

    def status(self):
        return self.call("status")

    def replicaset(self, name):
        """What this instance knows of a replicaset."""
        return next(r for r in self.status()["replicasets"] if r["name"] == name)

    def state_of(self, other):
        """What another instance is, as this one knows it."""
        return next(i["state"] for i in self.status()["instances"] if i["name"] == other.name)

    def in_sync(self, name):
        """The names of the members that are in sync."""
        return set(self.replicaset(name)["in_sync"])

    def cpu_s(self):
        """CPU seconds that the process has used, all threads."""
        return self._cpu_s("stat")

    def tx_cpu_s(self):
        """CPU seconds of the thread that runs the host's fibers."""
        return self._cpu_s(f"task/{self.process.pid}/stat")

    def _cpu_s(self, file):
        fields = pathlib.Path(f"/proc/{self.process.pid}/{file}").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Cluster:
    """Instances i1, i2, ... that name one another as peers; each on a host of its own when there is a `network`."""

    def __init__(self, folder, size, replication_factor=1, network=None, **config):
        self.folder = pathlib.Path(folder)
        self.config = {"cluster": "test", "replication_factor": replication_factor, **config}
        self.instances = []
        hosts = [network.address(i) if network else "127.0.0.1" for i in range(size)]
        self.peers = [f"{host}:{3301 if network else ports.take()}" for host in hosts]
        for i, listen in enumerate(self.peers):
            self.add(listen=listen, prefix=network.prefix(i) if network else ())

    def __getitem__(self, index):
        return self.instances[index]

    def __iter__(self):
        return iter(self.instances)

    def __len__(self):
        return len(self.instances)

    def add(self, **config):
        """One more instance, not started."""
        name = f"i{len(self.instances) + 1}"
        config = {"name": name, "peers": self.peers, **self.config, **config}
        instance = Instance(self.folder / config["name"], **config)
        self.instances.append(instance)
        return instance

    def replace(self, old):
        """Another instance, not started, at the address of one that has ended."""
        at = self.instances.index(old)
        name = f"{old.name}n"
        config = {"name": name, "peers": self.peers, **self.config}
        new = Instance(self.folder / name, listen=old.address, prefix=old.prefix, env=old.env, **config)
        self.instances[at] = new
        return new

    def start(self):
        """Starts all instances at once and waits until the cluster is whole."""
        for instance in self.instances:
            instance.start()
        return self.wait_whole()

    def stop(self):
        for instance in self.instances:
            if instance.is_running():
                instance.process.send_signal(signal.SIGTERM)
        for instance in self.instances:
            instance.stop()

    def kill(self):
        for instance in self.instances:
            instance.kill()

    def by_name(self, name):
        return next(i for i in self.instances if i.name == name)

    def running(self):
        return [i for i in self.instances if i.is_running()]

    def wait_whole(self, timeout_s=WAIT_S):
        """Waits until every running instance sees all of them online, a leader, and all buckets with masters."""
        for instance in self.running():
            self.wait_on(instance, lambda i: self._is_whole(i.status()), "a whole cluster", timeout_s)
        return self

    def is_whole(self):
        """Whether that is so now. Raises what an instance that does not answer raises."""
        return all(self._is_whole(instance.status()) for instance in self.running())

    def _is_whole(self, status):
        online = {i["name"] for i in status["instances"] if i["state"] == "Online"}
        served = all(r["master"] for r in status["replicasets"]) and any(r["buckets"] for r in status["replicasets"])
        return status["leader"] and served and online >= {i.name for i in self.running()}

    def wait_balanced(self, timeout_s=WAIT_S):
        """Waits until the replicasets own equal shares of the buckets, as far as their number allows."""

        def balanced(instance):
            shares = [r["buckets"] for r in instance.status()["replicasets"]]
            return max(shares) - min(shares) <= 1

        for instance in self.running():
            self.wait_on(instance, balanced, "equal shares of the buckets", timeout_s)
        return self

    def wait_in_sync(self, timeout_s=WAIT_S):
        """Waits until all members of all replicasets are in sync."""

        def all_in_sync():
            status = self.running()[0].status()
            homes = [i["replicaset"] for i in status["instances"] if i["state"] != "Expelled"]
            return all(len(r["in_sync"]) == homes.count(r["name"]) for r in status["replicasets"])

        wait_until(all_in_sync, "all members to be in sync", timeout_s)

    def wait_on(self, instance, condition, what, timeout_s=WAIT_S):
        """Waits for a condition on one instance; fails at once when its process has ended."""

        def checked():
            if not instance.is_running():
                raise AssertionError(f"{instance.name} ended with {instance.process.poll()} during the wait for {what}")
            return condition(instance)

        return wait_until(checked, f"{what} on {instance.name}", timeout_s)

    def leader(self):
        """The instance that leads, as the others agree."""

        def agreed():
            leaders = {i.status()["leader"] for i in self.running()}
            return leaders.pop() if len(leaders) == 1 else None

        return self.by_name(wait_until(agreed, "one leader"))

    def master_of(self, replicaset):
        return self.by_name(self.running()[0].replicaset(replicaset)["master"])

    def pick(self, with_leader=False):
        """A replicaset, with the Raft leader or without: its name, its master, its replica and an instance outside."""
        leader = self.leader().name
        status = self.running()[0].status()
        homes = {i["name"]: i["replicaset"] for i in status["instances"]}
        name = next(r["name"] for r in status["replicasets"] if (r["name"] == homes[leader]) == with_leader)
        master = self.master_of(name)
        replica = next(i for i in self if homes[i.name] == name and i is not master)
        return name, master, replica, next(i for i in self if homes[i.name] != name)
