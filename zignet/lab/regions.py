"""Peers as exits, in the demo: a laptop, two nodes abroad, and an internet that answers each region differently.

    laptop ── sealed ── peer_us ─┐
        └─────sealed ── peer_jp ─┴── web: three editions of each site, and a name server for each region

The laptop's own name server leads to the edition "here". A page says which edition it is, and who asked.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from zignet.lab.certificates import Authority
from zignet.lab.hosts import UNDERLAY, Hosts
from zignet.lab.namespace import start_module

__all__ = ["ROUTES", "TARGETS", "Regions", "Visit", "shown"]

ROUTES = ["*.video.example -> peer_us", "*.anime.example -> peer_jp", "MATCH,direct"]
EDITIONS = {"here": 40, "us": 41, "jp": 42}  # the last part of 192.0.2.x
NAME_SERVERS = {"here": 50, "us": 51, "jp": 52}
SITES = ("video.example", "anime.example", "plain.example")
TARGETS = (("www.video.example", "us"), ("www.anime.example", "jp"), ("www.plain.example", "here"))


@dataclass(frozen=True, slots=True)
class Visit:
    """A page that the laptop has fetched."""

    name: str
    address: str  # that the name had on the laptop
    edition: str  # that was wanted
    page: dict[str, Any]
    error: str

    @property
    def expected(self) -> bool:
        """Whether it is the right edition."""
        return self.page.get("server") == f"edition {self.edition}"


class Regions(Hosts):
    """The machines. `visit` is what a person would do."""

    def __init__(self) -> None:
        super().__init__("laptop", "peer_us", "peer_jp", "web")

    def build(self) -> None:
        """Machines, editions, name servers."""
        super().build()
        web = self["web"].namespace
        web.address(
            UNDERLAY, *(f"192.0.2.{last}/24" for last in (*EDITIONS.values(), *NAME_SERVERS.values()))
        )
        self.authority = Authority(self.directory)
        files = {f"www.{site}": [str(file) for file in self.authority.issue(f"www.{site}")] for site in SITES}
        sites = {f"edition {name}": [f"192.0.2.{last}"] for name, last in EDITIONS.items()}
        files |= dict.fromkeys(sites, files[f"www.{SITES[0]}"])  # for clients that say no name
        plan = self.directory / "servers.json"
        plan.write_text(json.dumps({"sites": sites, "files": files}))
        start_module(web, "zignet.lab.servers", str(plan))
        for region, last in NAME_SERVERS.items():
            records = {f"www.{site}": {"A": [f"192.0.2.{EDITIONS[region]}"]} for site in SITES}
            plan = self.directory / f"names-{region}.json"
            plan.write_text(json.dumps({"records": records, "addresses": [f"192.0.2.{last}"]}))
            start_module(web, "zignet.lab.nameserver", str(plan))

    def up(self) -> None:
        """Start the three nodes. Raises NotReady."""
        for name, region in (("peer_us", "us"), ("peer_jp", "jp")):
            dns = {"upstreams": [f"192.0.2.{NAME_SERVERS[region]}"]}
            self.start(name, dns=dns, exit={"allow": ["laptop"]})
        self.start("laptop", dns={"upstreams": [f"192.0.2.{NAME_SERVERS['here']}"]}, routes=ROUTES)

    def visit(self, name: str, edition: str) -> Visit:
        """Ask for the name's address, and for the page."""
        laptop = self["laptop"]
        asked = laptop.namespace.run(["dig", "@127.0.0.1", "-p", "53530", "+short", "+time=5", name])
        address = asked.stdout.strip()
        command = ["curl", "-sS", "--max-time", "15", "--cacert", str(self.authority.file)]
        done = laptop.namespace.run([*command, "--resolve", f"{name}:443:{address}", f"https://{name}/"])
        page: dict[str, Any] = {}
        with contextlib.suppress(ValueError):
            page = json.loads(done.stdout)
        return Visit(name, address, edition, page, done.stderr.strip())


def shown(visits: list[Visit]) -> Table:
    """What came of them."""
    table = Table(title="Exits that are peers", title_justify="left")
    for heading in ("request", "its address on the laptop", "the page that came", "the site saw", ""):
        table.add_column(heading, overflow="fold")
    for visit in visits:
        page = visit.page
        table.add_row(
            f"https://{visit.name}/",
            visit.address,
            page.get("server") or visit.error,
            page.get("client", "–"),
            "✓" if visit.expected else "✗",
            style="" if visit.expected else "red",
        )
    return table
