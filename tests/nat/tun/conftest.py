"""A host with one uplink, in network namespaces of its own: what tests of the real kernel start from."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nat.tun import Plan, open_tun
from zignet.lab.namespace import Namespace, join

PATH = os.pathsep.join(os.path.abspath(each) for each in sys.path)


class Host:
    """A namespace and what tests ask of it. `near` is its address, `far` one behind its gateway."""

    near4, gateway4, far4 = "192.0.2.2", "192.0.2.1", "198.51.100.9"
    near6, gateway6, far6 = "2001:db8:1::2", "2001:db8:1::1", "2001:db8:9::9"

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.opened: list[Any] = []

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return self.namespace.call(function, *args, **options)

    def open(self, name: str = "zig0", offload: str = "auto") -> Any:
        """A device that is closed after the test at the latest."""
        self.opened.append(self.call(open_tun, "auto", name, offload))
        return self.opened[-1]

    def shell(self, command: str) -> str:
        """What a command prints; it must succeed."""
        done = self.namespace.run(["sh", "-c", command], env={**os.environ, "PYTHONPATH": PATH})
        assert done.returncode == 0, done
        return done.stdout

    def python(self, code: str, through: str = "") -> str:
        """What a program prints; `through` is a command that runs another one."""
        return self.shell(f"{through} {shlex.quote(sys.executable)} -c {shlex.quote(code)}")

    def firewall(self, hook: str, rule: str) -> None:
        """Add a chain of nftables with one rule; `hook` is as in "input priority 0"."""
        chain = f"type filter hook {hook}\n{rule}\n"
        done = self.namespace.run(
            ["nft", "-f", "-"], input=f"table inet test {{\nchain test {{\n{chain}}}\n}}\n"
        )
        assert done.returncode == 0, done

    def lines(self, arguments: str) -> list[str]:
        """The lines that `ip ARGUMENTS` prints."""
        return [" ".join(line.split()) for line in self.shell(f"ip {arguments}").splitlines()]

    def way(self, destination: str, options: str = "") -> str:
        """The interface that the kernel would send a packet by."""
        words = self.shell(f"ip route get {destination} {options}").split()
        return words[words.index("dev") + 1]

    def state(self) -> str:
        """Everything that a plan may touch, as `ip` and the kernel print it."""
        return self.shell(
            "ip -4 rule; ip -6 rule; ip -4 route show table all; ip -6 route show table all; ip -br address;"
            "cd /proc/sys/net; grep -rs . ipv4/conf ipv6/conf | grep -v stable_secret | sort"
        )

    def close(self) -> None:
        for tun in self.opened:
            tun.close()


@pytest.fixture
def bare() -> Iterator[Host]:
    """A host with nothing but a loopback interface."""
    with Namespace("bare") as namespace:
        host = Host(namespace)
        yield host
        host.close()


@pytest.fixture
def host() -> Iterator[Host]:
    """A host whose default routes lead over `up0` to a gateway, which is `far4` and `far6` too."""
    with Namespace("host") as namespace, Namespace("far") as far:
        host = Host(namespace)
        for each in ("all", "default"):
            namespace.sysctl(f"net.ipv4.conf.{each}.rp_filter", 1)
        join(namespace, "up0", far, "down0")
        namespace.address("up0", f"{host.near4}/24", f"{host.near6}/64")
        far.address("down0", f"{host.gateway4}/24", f"{host.gateway6}/64")
        far.address("lo", f"{host.far4}/32", f"{host.far6}/128")
        namespace.route("default", host.gateway4)
        namespace.route("default6", host.gateway6)
        host.outside = far
        yield host
        host.close()


@pytest.fixture
def plan() -> Plan:
    """A global proxy for both families."""
    return Plan(
        name="zig0",
        addresses=("100.64.0.1", "fd7a::1"),
        aliases=("100.127.0.0/16", "fd7a:0:0:ffff::/64"),
        ranges=(("tun.range", "100.64.0.0/10"), ("tun.range6", "fd7a::/48")),
        capture=True,
        fwmark=0x5A49,
        table=7649,
        bypass=("203.0.113.0/24", "2001:db8:b::/48"),
    )
