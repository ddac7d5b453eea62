"""Fixtures: clusters that are gone when their test is over, with their logs in the report when it failed."""

import shutil

import ports
import pytest
from harness import LOG_TAIL_CHARS, Cluster, Instance
from relay import Relay


class Workshop:
    """Makes clusters and instances in the test's folder and remembers them."""

    def __init__(self, folder):
        self.folder = folder
        self.instances = []
        self.clusters = []
        self.relays = []

    def cluster(self, size, replication_factor=1, **config):
        """A cluster that is not started yet."""
        cluster = Cluster(self.folder / f"c{len(self.clusters) + 1}", size, replication_factor, **config)
        self.clusters.append(cluster)
        return cluster

    def pairs(self, **config):
        """Two replicasets of two, started, all members in sync, with a table t."""
        cluster = self.cluster(4, replication_factor=2, **config).start().wait_balanced()
        cluster[0].sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
        cluster.wait_in_sync()
        return cluster

    def pair_behind_relay(self):
        """A master, its replica, in sync, with a table t, and the relay that the replica reaches the master through."""
        port = ports.take()
        relay = Relay(port)
        self.relays.append(relay)
        cluster = self.cluster(0, replication_factor=2)
        cluster.peers = [relay.address]
        master = cluster.add(listen=f"127.0.0.1:{port}", advertise=relay.address)
        replica = cluster.add()
        cluster.start().wait_in_sync()
        assert cluster.leader() is master
        master.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
        return cluster, relay, master, replica

    def instance(self, folder_name=None, **config):
        """An instance on its own, not started."""
        folder = self.folder / (folder_name or config.get("name", "nameless"))
        instance = Instance(folder, **{"name": "i1", **config})
        self.instances.append(instance)
        return instance

    def all(self):
        return self.instances + [i for cluster in self.clusters for i in cluster]

    def close(self):
        for instance in self.all():
            instance.kill()
        for relay in self.relays:
            relay.close()


_open = []


def _workshop(folder):
    workshop = Workshop(folder)
    _open.append(workshop)
    yield workshop
    workshop.close()
    _open.remove(workshop)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def workshop(tmp_path):
    yield from _workshop(tmp_path)


@pytest.fixture(scope="module")
def shared_workshop(tmp_path_factory):
    yield from _workshop(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def cluster(shared_workshop):
    """Four instances in two replicasets, shared by the tests of a file that break nothing."""
    cluster = shared_workshop.cluster(4, replication_factor=2).start()
    cluster.wait_balanced()
    return cluster


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        for instance in [instance for workshop in _open for instance in workshop.all()]:
            code = instance.process and instance.process.poll()
            state = "running" if instance.is_running() else f"ended with {code}"
            title = f"{instance.name} at {instance.address}, {state}"
            report.sections.append((title, instance.log()[-LOG_TAIL_CHARS:]))
    return report
