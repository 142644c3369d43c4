"""Peers as exits, in the demo: a laptop, two nodes abroad, and an internet that answers each region differently.

    laptop ── sealed ── peer_us ─┐
        └─────sealed ── peer_jp ─┴── web: three editions of each site, and a name server for each region

The laptop's own name server leads to the edition "here". A page says which edition it is, and who asked. Programs on
the laptop know nothing of ZigNet: its node changes the laptop's resolv.conf.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from zignet.lab.browser import Browser, NoPage
from zignet.lab.certificates import Authority
from zignet.lab.etc import cover_etc
from zignet.lab.hosts import UNDERLAY, Hosts
from zignet.lab.namespace import start_module
from zignet.lab.running import NotReady

__all__ = ["ROUTES", "TARGETS", "Regions", "Visit", "shown"]

ROUTES = ["*.video.example -> peer_us", "*.anime.example -> peer_jp", "MATCH,direct"]
EDITIONS = {"here": 40, "us": 41, "jp": 42}  # the last part of 192.0.2.x
NAME_SERVERS = {"here": 50, "us": 51, "jp": 52}
SITES = ("video.example", "anime.example", "plain.example")
TARGETS = (("www.video.example", "us"), ("www.anime.example", "jp"), ("www.plain.example", "here"))
NAMES_S = 30.0  # until the laptop's names come to its node
FACTS = "JSON.parse(document.querySelector('pre').innerText)"
WINDOW = "--window-size=1200,520"
FRAME = 'style="width: 31%; height: 24em; margin: 0.5%; border: 1px solid gray"'
FRAMES = """\
new Promise(done => {
  let left = NAMES.length
  document.body.innerHTML = NAMES.map(name => `<iframe FRAME src="https://${name}/"></iframe>`).join("")
  for (const frame of document.querySelectorAll("iframe")) frame.onload = () => --left || done()
})"""


@dataclass(frozen=True, slots=True)
class Visit:
    """A page that the laptop has fetched."""

    program: str
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
        laptop = self["laptop"]
        self.etc = cover_etc(
            laptop.namespace, laptop.directory, f"nameserver 192.0.2.{NAME_SERVERS['here']}\n"
        )
        self.start("laptop", dns={"mode": "resolvconf"}, routes=ROUTES)
        self.wait_for_names()

    def wait_for_names(self) -> None:
        """Until the laptop's names come to its node. Raises NotReady."""
        deadline = time.monotonic() + NAMES_S
        while "100.64.0.1" not in (self.etc / "resolv.conf").read_text():
            if time.monotonic() > deadline:
                node = self["laptop"].node
                raise NotReady(f"the laptop's names do not come to its node:\n{node.log() if node else ''}")
            time.sleep(0.02)

    def address(self, name: str, kind: str = "A") -> str:
        """That a program on the laptop finds for a name."""
        return self["laptop"].namespace.run(["dig", "+short", "+time=5", name, kind]).stdout.strip()

    def curl(self, name: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Ask for a page."""
        command = ["curl", "-sS", "--max-time", "15", "--cacert", str(self.authority.file), *options]
        return self["laptop"].namespace.run([*command, f"https://{name}/"])

    def first_byte(self, name: str, machine: str = "laptop", *options: str) -> tuple[float, float]:
        """Seconds from the start of a connection until it stands, and until a page begins. Raises RuntimeError."""
        times = "%{time_namelookup} %{time_connect} %{time_starttransfer}"
        command = [
            "curl",
            "-sS4",
            "--max-time",
            "60",
            "-o",
            "/dev/null",
            "-w",
            times,
            *options,
            f"http://{name}/",
        ]
        done = self[machine].namespace.run(command, timeout_s=70.0)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        begin, connected, first = map(float, done.stdout.split())
        return connected - begin, first - begin

    def visit(self, name: str, edition: str) -> Visit:
        """Fetch a page with curl."""
        done = self.curl(name)
        page: dict[str, Any] = {}
        with contextlib.suppress(ValueError):
            page = json.loads(done.stdout)
        return Visit("curl", name, self.address(name), edition, page, done.stderr.strip())

    def browser(self, *options: str) -> Browser:
        """Chromium on the laptop, with a profile of its own. Raises FileNotFoundError where there is none."""
        laptop = self["laptop"]
        directory = Path(tempfile.mkdtemp(prefix="chromium-", dir=laptop.directory))
        return Browser(laptop.namespace, directory, self.authority.pins, WINDOW, *options)

    def view(self, browser: Browser, name: str, edition: str) -> Visit:
        """Load a page with the browser."""
        page, error = {}, ""
        try:
            browser.open(f"https://{name}/")
            page = browser.run(FACTS)
        except NoPage as why:
            error = str(why)
        return Visit("Chromium", name, self.address(name), edition, page, error)

    def picture(self, browser: Browser, file: Path) -> None:
        """The three sites in one window, as PNG."""
        browser.open(f"https://{TARGETS[-1][0]}/")
        names = json.dumps([name for name, _ in TARGETS])
        browser.run(FRAMES.replace("NAMES", names).replace("FRAME", FRAME))
        browser.screenshot(file)


def shown(visits: list[Visit]) -> Table:
    """What came of them."""
    table = Table(title="Exits that are peers", title_justify="left")
    for heading in ("by", "request", "its address on the laptop", "the page that came", "the site saw", ""):
        table.add_column(heading, overflow="fold")
    for visit in visits:
        page = visit.page
        table.add_row(
            visit.program,
            f"https://{visit.name}/",
            visit.address,
            page.get("server") or visit.error,
            page.get("client", "–"),
            "✓" if visit.expected else "✗",
            style="" if visit.expected else "red",
        )
    return table
