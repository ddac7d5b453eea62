"""A network of namespaces on this machine, whose ways can be cut: one address an instance, all on one bridge.

Needs root and the `ip` of iproute2. A cut is a route into a black hole at the sending side, so it can go one way.
"""

import os
import shutil
import subprocess

# Private addresses that no other test run on the machine has: the number comes from the process.
_NET = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"


def why_not():
    """Why there can be no such network here; None when there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need the command ip (Debian package iproute2)"
    probe = f"pico{os.getpid()}probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if made.returncode != 0:
        return f"this machine makes no network namespaces: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", probe], check=True)
    return None


def _ip(*words, namespace=None):
    inside = ["ip", "netns", "exec", namespace] if namespace else []
    subprocess.run([*inside, "ip", *words], check=True, capture_output=True)


class Network:
    """`size` hosts, numbered from 0; clients reach all of them from the machine itself."""

    def __init__(self, size):
        self.tag = f"pc{os.getpid() % 100000}"
        self.bridge = f"{self.tag}b"
        self.namespaces = [f"{self.tag}n{i}" for i in range(size)]
        self.cuts = set()
        _ip("link", "add", self.bridge, "type", "bridge")
        _ip("addr", "add", f"{_NET}.254/24", "dev", self.bridge)
        _ip("link", "set", self.bridge, "up")
        for i, namespace in enumerate(self.namespaces):
            inner, outer = f"{self.tag}i{i}", f"{self.tag}o{i}"
            _ip("netns", "add", namespace)
            _ip("link", "add", inner, "type", "veth", "peer", "name", outer)
            _ip("link", "set", inner, "netns", namespace)
            _ip("link", "set", outer, "master", self.bridge, "up")
            _ip("addr", "add", f"{self.address(i)}/24", "dev", inner, namespace=namespace)
            _ip("link", "set", inner, "up", namespace=namespace)
            _ip("link", "set", "lo", "up", namespace=namespace)

    def address(self, host):
        return f"{_NET}.{host + 1}"

    def prefix(self, host):
        """The words that run a command on a host."""
        return ["ip", "netns", "exec", self.namespaces[host]]

    def cut(self, sender, receiver):
        """What `sender` sends to `receiver` is lost from now on."""
        if (sender, receiver) not in self.cuts:
            _ip("route", "add", "blackhole", f"{self.address(receiver)}/32", namespace=self.namespaces[sender])
            self.cuts.add((sender, receiver))

    def part(self, group, others):
        """Cuts all ways between two groups of hosts."""
        for a in group:
            for b in others:
                self.cut(a, b)
                self.cut(b, a)

    def heal(self):
        for sender, receiver in self.cuts:
            _ip("route", "del", "blackhole", f"{self.address(receiver)}/32", namespace=self.namespaces[sender])
        self.cuts.clear()

    def close(self):
        for namespace in self.namespaces:
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True)
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True)
