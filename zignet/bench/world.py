"""Where the bench happens: host ── exit ── origin, three namespaces in a row, and the servers in them."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zignet.lab.namespace import Namespace, join, more_descriptors, start_module, sweep

__all__ = ["EXIT", "HOST", "ORIGINS", "OUTSIDE", "SOCKS_PORT", "UPLINK", "World", "load_command"]

HOST = "192.0.2.2"
EXIT = "192.0.2.1"  # the host's gateway, and the SOCKS5 server's address
OUTSIDE = "198.51.100.1"  # the exit's address as origins see it
SOCKS_PORT = 1080
ORIGINS = [f"198.51.100.{last}" for last in range(2, 18)]
UPLINK = "eth0"  # of the host
PORT_RANGE = "net.ipv4.ip_local_port_range"
FEW_PORTS = "20000 23999"
MANY_PORTS = "1024 65535"
LOAD_TIMEOUT_S = 120.0
SPARE_DESCRIPTORS = 200


class World:
    """The three namespaces. A context manager: afterwards nothing of it is left."""

    def __init__(self) -> None:
        sweep()
        self.most_flows = (more_descriptors() - SPARE_DESCRIPTORS) // 2  # a proxy needs two for each
        self._directory = tempfile.TemporaryDirectory(prefix="zn-bench-")
        self.directory = Path(self._directory.name)
        self.namespaces: list[Namespace] = []
        try:
            self.build()
        except BaseException:
            self.close()
            raise

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
        self.host.sysctl(PORT_RANGE, MANY_PORTS)
        start_module(self.origin, "zignet.bench.origin", "small")
        start_module(self.origin, "zignet.bench.origin", "bulk")
        self.proxy = start_module(self.exit, "zignet.lab.proxy", EXIT, str(SOCKS_PORT))

    def add(self, role: str) -> Namespace:
        """One more namespace, closed with the world."""
        namespace = Namespace(role)
        self.namespaces.append(namespace)
        return namespace

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

    def close(self) -> None:
        """Take everything down. Harmless when repeated."""
        for namespace in self.namespaces:
            namespace.close()
        self._directory.cleanup()

    def __enter__(self) -> World:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def load_command(name: str, arguments: dict[str, Any]) -> list[str]:
    """The command line of a load."""
    return [sys.executable, "-m", "zignet.bench.loads", name, json.dumps(arguments)]
