"""A little internet: a host, a router, two proxies and a hall of origin servers.

    host 192.0.2.2 ───── router ───── origin 203.0.113.10 video.example, .20 news.example, .30 plain.example,
    … │    │ tokyo 198.51.100.10┘    └198.51.100.74 office

Each has IPv6 as well, below 2001:db8::/32. Names are in the hosts file that every program in the lab sees.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

from zignet.lab.certificates import Authority
from zignet.lab.lab import Lab
from zignet.lab.namespace import Namespace, join, start_module

__all__ = ["SITES", "Internet"]

HOST, HOST6 = "192.0.2.2", "2001:db8:1::2"
TOKYO, TOKYO6 = "198.51.100.10", "2001:db8:2::10"
OFFICE, OFFICE6 = "198.51.100.74", "2001:db8:3::74"
SITES: dict[str, list[str]] = {
    "video.example": ["203.0.113.10", "2001:db8:4::10"],
    "news.example": ["203.0.113.20", "2001:db8:4::20"],
    "plain.example": ["203.0.113.30", "2001:db8:4::30"],
    "quic.example": ["203.0.113.40", "2001:db8:4::40"],
    "other.example": ["203.0.113.50", "2001:db8:4::50"],
}
ALSO = {"www.video.example": "video.example"}  # further names of a site


class Internet(Lab):
    """All of it."""

    def build(self) -> None:
        """Everything but the proxies."""
        self.authority = Authority(self.directory)
        hosts = self.directory / "hosts"
        hosts.write_text(_hosts())
        self.host, self.router, self.tokyo, self.office, self.origin = (
            self.add(role, hosts) for role in ("host", "router", "tokyo", "office", "origin")
        )
        self.connect()
        self.serve()
        self.wait_for_carriers()

    def connect(self) -> None:
        """Cables, addresses, routes."""
        self.router.sysctl("net.ipv4.ip_forward", 1)
        self.router.sysctl("net.ipv6.conf.all.forwarding", 1)
        self.router.sysctl("net.ipv4.icmp_ratelimit", 0)  # an unreachable for each who asks
        self.router.sysctl("net.ipv6.icmp.ratelimit", 0)
        self.attach(self.host, "192.0.2.1/24", "2001:db8:1::1/64", f"{HOST}/24", f"{HOST6}/64")
        self.attach(self.tokyo, "198.51.100.1/26", "2001:db8:2::1/64", f"{TOKYO}/26", f"{TOKYO6}/64")
        self.attach(self.office, "198.51.100.65/26", "2001:db8:3::1/64", f"{OFFICE}/26", f"{OFFICE6}/64")
        origins = [f"{v4}/24" for v4, _ in SITES.values()] + [f"{v6}/64" for _, v6 in SITES.values()]
        self.attach(self.origin, "203.0.113.1/24", "2001:db8:4::1/64", *origins)

    def attach(self, leaf: Namespace, gateway: str, gateway6: str, *addresses: str) -> None:
        """A cable from a leaf to the router, and default routes over it."""
        join(leaf, "eth0", self.router, leaf.role)
        self.router.address(leaf.role, gateway, gateway6)
        leaf.address("eth0", *addresses)
        leaf.route("default", gateway.partition("/")[0])
        leaf.route("default6", gateway6.partition("/")[0])

    def serve(self) -> None:
        """The origin servers."""
        files = {name: [str(path) for path in self.authority.issue(name)] for name in SITES}
        plan = self.directory / "servers.json"
        plan.write_text(json.dumps({"sites": SITES, "files": files}))
        self.servers = start_module(self.origin, "zignet.lab.servers", str(plan))

    def proxy(self, where: Namespace, port: int, *users: str) -> subprocess.Popen[Any]:
        """A SOCKS5 and HTTP proxy on the address of an exit; `users` are written name:password."""
        host = {"tokyo": TOKYO, "office": OFFICE}[where.role]
        return start_module(where, "zignet.lab.proxy", host, str(port), *users)


def _hosts() -> str:
    """A hosts file with every name of the lab."""
    lines = ["127.0.0.1 localhost", "::1 localhost"]
    names = {name: [name] for name in SITES}
    for also, name in ALSO.items():
        names[name].append(also)
    for name, addresses in SITES.items():
        lines += [f"{address} {' '.join(names[name])}" for address in addresses]
    return "\n".join(lines) + "\n"
