"""Where a bench happens: namespaces, the servers in them, and a machine on which loads run."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

from zignet.lab.hosts import UNDERLAY, Hosts
from zignet.lab.lab import Lab
from zignet.lab.namespace import Namespace, join, start_module

__all__ = [
    "EXIT",
    "HOST",
    "ORIGINS",
    "OUTSIDE",
    "SOCKS_PORT",
    "UPLINK",
    "ProxyWorld",
    "TunnelWorld",
    "World",
    "load_command",
]

HOST = "192.0.2.2"
EXIT = "192.0.2.1"  # the host's gateway, and the SOCKS5 server's address
OUTSIDE = "198.51.100.1"  # the exit's address as origins see it
SOCKS_PORT = 1080
ORIGINS = [f"198.51.100.{last}" for last in range(2, 18)]
UPLINK = UNDERLAY  # the machine's real interface, in every world
PORT_RANGE = "net.ipv4.ip_local_port_range"
FEW_PORTS = "20000 23999"
MANY_PORTS = "1024 65535"
LOAD_TIMEOUT_S = 120.0
SPARE_DESCRIPTORS = 200


class World(Lab):
    """Any of them: loads run in `host` against the servers in `origin`."""

    host: Namespace
    origin: Namespace

    @property
    def most_flows(self) -> int:
        """That one process can hold; a proxy needs two descriptors for each."""
        return (self.most_open - SPARE_DESCRIPTORS) // 2

    def serve(self) -> None:
        """The servers of the origin."""
        self.host.sysctl(PORT_RANGE, MANY_PORTS)
        start_module(self.origin, "zignet.bench.origin", "small")
        start_module(self.origin, "zignet.bench.origin", "bulk")

    @contextlib.contextmanager
    def few_source_ports(self) -> Iterator[None]:
        """So few that they come round while the old connections are still remembered."""
        self.host.sysctl(PORT_RANGE, FEW_PORTS)
        try:
            yield
        finally:
            self.host.sysctl(PORT_RANGE, MANY_PORTS)

    def load(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Run a load in the host and give its result. Raises RuntimeError with what it said when it fails."""
        done = self.host.run(load_command(name, arguments), timeout_s=LOAD_TIMEOUT_S)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip().rpartition("\n")[2] or f"{name} failed")
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result


class ProxyWorld(World):
    """host ── exit ── origin, three namespaces in a row."""

    def build(self) -> None:
        """Namespaces, cables, addresses, servers."""
        self.host, self.exit, self.origin = (self.add(role) for role in ("host", "exit", "origin"))
        join(self.host, UPLINK, self.exit, "eth0")
        join(self.exit, "eth1", self.origin, "eth0")
        self.host.address(UPLINK, f"{HOST}/24")
        self.exit.address("eth0", f"{EXIT}/24")
        self.exit.address("eth1", f"{OUTSIDE}/24")
        self.origin.address("eth0", *(f"{address}/24" for address in ORIGINS))
        self.host.route("default", EXIT)
        self.origin.route("default", OUTSIDE)
        self.exit.sysctl("net.ipv4.ip_forward", 1)
        self.serve()
        self.proxy = start_module(self.exit, "zignet.lab.proxy", EXIT, str(SOCKS_PORT))


class TunnelWorld(World, Hosts):
    """near ── far, one cable. The loads go from one to the other, the way that a tunnel offers."""

    def __init__(self) -> None:
        super().__init__("near", "far")

    def build(self) -> None:
        """The two machines, and the servers in one."""
        super().build()
        self.near, self.far = self["near"], self["far"]
        self.host, self.origin = self.near.namespace, self.far.namespace
        self.serve()


def load_command(name: str, arguments: dict[str, Any]) -> list[str]:
    """The command line of a load."""
    return [sys.executable, "-m", "zignet.bench.loads", name, json.dumps(arguments)]
