"""`scripts/demo`: ZigNet's main job on real input, in a little internet that is made for it and removed.

Real curl and a real HTTP/3 client in the host's namespace, real TLS servers, two upstream proxies; and then three
nodes, two of which are exits of the third, for curl and, where it is installed, Chromium. Each request has an expected
way; the demo fails when one goes another.

    --screenshot FILE    what Chromium showed of the three sites, as PNG
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from zignet.bench.world import load_command
from zignet.lab.browser import chromium
from zignet.lab.internet import HOST, HOST6, OFFICE, OFFICE6, SITES, TOKYO, Internet
from zignet.lab.namespace import start_module
from zignet.lab.regions import ROUTES, TARGETS, Regions, shown
from zignet.lab.running import NotReady, Running

__all__ = ["main"]

CONFIG = f"""\
exits:
  tokyo: {{type: socks5, address: "{TOKYO}:1080"}}
  office: {{type: http, address: "{OFFICE}:3128"}}
routes:
  - DST-PORT,81,direct
  - "*.video.example -> tokyo"
  - DOMAIN-SUFFIX,news.example,office
  - DOMAIN,quic.example,tokyo
  - DOMAIN,other.example,block
  - DST-PORT,5001,tokyo
  - DST-PORT,5002,tokyo
  - MATCH,direct
"""
BULK = SITES["plain.example"][0]
SECONDS = 1.0  # of each throughput
WIDTH = 150  # columns, where there is no terminal to ask


@dataclass(frozen=True, slots=True)
class Request:
    """One request, and the way it must go. `seen` are the addresses that the origin may see."""

    url: str
    target: str  # host:port as a flow's target shows it
    exit: str
    known_by: str
    seen: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    http3: bool = False
    refused: bool = False  # nobody listens there, and the application must be told so by its connect


REQUESTS = [
    Request("https://video.example/", "203.0.113.10:443", "tokyo", "sni", (TOKYO,), ("-4",)),
    Request("https://news.example/", "[2001:db8:4::20]:443", "office", "sni", (OFFICE, OFFICE6), ("-6",)),
    Request("http://plain.example/", "203.0.113.30:80", "direct", "host", (HOST, HOST6), ("-4",)),
    Request("https://quic.example/", "203.0.113.40:443", "tokyo", "quic", (TOKYO,), http3=True),
    Request("https://other.example/", "203.0.113.50:443", "block", "sni", (), ("-4",)),
    Request("http://203.0.113.50:81/", "203.0.113.50:81", "direct", "address", (), refused=True),
]


@dataclass(slots=True)
class Outcome:
    """What became of a request."""

    request: Request
    page: dict[str, Any]
    error: str
    seconds: float
    flow: dict[str, Any]

    @property
    def expected(self) -> bool:
        """Whether it went the way it should."""
        request = self.request
        if request.seen:
            arrived = self.page.get("client") in request.seen
        else:
            arrived = self.error == "Connection refused" if request.refused else bool(self.error)
        way = self.flow.get("exit"), self.flow.get("known_by")
        return arrived and way == (request.exit, request.known_by)


def fetch(net: Internet, node: Running, request: Request) -> Outcome:
    """Make a request in the host, and find its flow."""
    ca_file = str(net.authority.file)
    if request.http3:
        command = [sys.executable, "-m", "zignet.lab.quic", ca_file, request.url, SITES["quic.example"][0]]
    else:
        command = ["curl", "-sSv", "--max-time", "5", "--cacert", ca_file, *request.options, request.url]
    begin = time.monotonic()
    done = net.host.run(command)
    seconds = time.monotonic() - begin
    error = "" if done.returncode == 0 else reason(done.stderr)
    flows = [flow for flow in node.flows() if flow["target"] == request.target]
    return Outcome(request, json.loads(done.stdout or "{}"), error, seconds, flows[-1] if flows else {})


def reason(text: str) -> str:
    """Why a client failed, out of all that it said."""
    if "Connection refused" in text:  # what connect() said; curl's last line is vaguer
        return "Connection refused"
    return (text.strip().splitlines() or ["failed"])[-1].rpartition(": ")[2]


def table(outcomes: list[Outcome]) -> Table:
    """The way that each request went."""
    shown = Table(title="Which way each request went", title_justify="left")
    for heading in ("request", "name", "known by", "rule", "exit"):
        shown.add_column(heading, overflow="fold")
    for heading in ("up", "down", "time"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("the origin saw", overflow="fold")
    shown.add_column("")
    for outcome in outcomes:
        flow = outcome.flow
        shown.add_row(
            ("HTTP/3 " if outcome.request.http3 else "") + outcome.request.url,
            flow.get("name") or "–",
            flow.get("known_by", "–"),
            flow.get("rule", "–"),
            flow.get("exit", "–"),
            f"{flow.get('up', 0):,} B",
            f"{flow.get('down', 0):,} B",
            f"{outcome.seconds * 1e3:.0f} ms",
            outcome.page.get("client") or outcome.error,
            "✓" if outcome.expected else "✗",
            style="" if outcome.expected else "red",
        )
    return shown


def throughput(net: Internet) -> tuple[float, float]:
    """Gbit/s up and down, one stream."""
    found = []
    for load in ("upload", "download"):
        done = net.host.run(load_command(load, {"host": BULK, "streams": 1, "seconds": SECONDS}))
        found.append(float(json.loads(done.stdout)["gbit_s"]) if done.returncode == 0 else 0.0)
    return found[0], found[1]


@contextlib.contextmanager
def step(console: Console, text: str) -> Iterator[None]:
    """Say what happens, and how long it took."""
    begin = time.monotonic()
    with console.status(text):
        yield
    console.print(f"[dim]{time.monotonic() - begin:5.1f} s[/dim]  {text}")


def peers_as_exits(console: Console, screenshot: Path | None) -> bool:
    """The second act: names, fake addresses, and peers that resolve and dial. Whether each page was the right one."""
    with contextlib.ExitStack() as stack:
        with step(
            console, "another one: laptop, peer_us, peer_jp, and sites with an edition for each region"
        ):
            net = stack.enter_context(Regions())
        console.print("\n".join(ROUTES), style="cyan", markup=False, highlight=False)
        with step(console, "zignet up, on all three"):
            net.up()
        visits = []
        for name, edition in TARGETS:
            with step(console, f"curl https://{name}/"):
                visits.append(net.visit(name, edition))
        if chromium() is None:
            console.print("Chromium is not installed: no page is loaded with a browser.")
        else:
            with step(console, "Chromium starts, on the laptop"):
                browser = stack.enter_context(net.browser())
            for name, edition in TARGETS:
                with step(console, f"Chromium https://{name}/"):
                    visits.append(net.view(browser, name, edition))
            if screenshot is not None:
                with step(console, f"what it shows: {screenshot}"):
                    net.picture(browser, screenshot)
    console.print()
    console.print(shown(visits))
    return all(visit.expected for visit in visits)


def left_behind(namespaces: list[str], directory: Path) -> list[str]:
    """What is still there of a lab that was taken down."""
    found = [name for name in namespaces if Path("/run/netns", name).exists()]
    return found + ([str(directory)] if directory.exists() else [])


def show(console: Console) -> bool:
    """The whole demo; whether everything went as expected."""
    good = True
    with contextlib.ExitStack() as stack:
        with step(
            console, "a little internet: host, router, exits tokyo (SOCKS5) and office (HTTP), five sites"
        ):
            net = stack.enter_context(Internet())
            net.proxy(net.tokyo, 1080)
            net.proxy(net.office, 3128)
            start_module(net.origin, "zignet.bench.origin", "bulk")
        console.print(CONFIG, style="cyan", markup=False, highlight=False)
        with step(console, "one stream without a proxy, for comparison"):
            bare = throughput(net)
        before = net.host.snapshot()
        node = Running(net.host, net.directory / "node", CONFIG)
        with step(console, "zignet up, in the host"):
            stack.enter_context(node)
        outcomes = []
        for request in REQUESTS:
            with step(console, f"{'HTTP/3' if request.http3 else 'curl'} {request.url}"):
                outcomes.append(fetch(net, node, request))
        with step(console, "one stream through the TUN and tokyo"):
            proxied = throughput(net)
        with step(console, "zignet stopped"):
            code = node.stop()
        after = net.host.snapshot()
        names = [namespace.name for namespace in net.namespaces]
    console.print()
    console.print(table(outcomes))
    console.print(
        f"Throughput, one stream, exit tokyo: {proxied[0]:.1f} Gbit/s up, {proxied[1]:.1f} down "
        f"(without a proxy {bare[0]:.1f} and {bare[1]:.1f})."
    )
    for outcome in outcomes:
        if not outcome.expected:
            console.print(
                f"✗ {outcome.request} went {outcome.flow}, {outcome.page} {outcome.error}", markup=False
            )
    if code != 0 or after != before:
        good = False
        console.print(
            f"✗ zignet ended with {code} and left the host changed: {before} → {after}", markup=False
        )
    remains = left_behind(names, net.directory)
    if remains:
        console.print(f"✗ left behind: {', '.join(remains)}")
    else:
        console.print(
            "Nothing left behind: addresses, routes and rules are as before, the namespaces are gone."
        )
    return good and not remains and all(outcome.expected for outcome in outcomes)


def main() -> int:
    """Run the demo; the exit code is 0 when every request went the way that the rules say."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description="ZigNet's main job on real input.")
    parser.add_argument("--screenshot", type=Path, metavar="FILE", help="write what Chromium shows, as PNG")
    given = parser.parse_args()
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    if os.geteuid() != 0:
        console.print("The demo makes network namespaces: run it as root (sudo scripts/demo).")
        return 2
    for program in ("curl", "dig"):
        if shutil.which(program) is None:
            console.print(f"The demo needs {program}.")
            return 2
    if given.screenshot is not None and chromium() is None:
        console.print("A screenshot needs Chromium (Debian: apt install chromium).")
        return 2
    try:
        first = show(console)
        return 0 if peers_as_exits(console, given.screenshot) and first else 1
    except NotReady as error:
        console.print(f"zignet did not start:\n{error}", markup=False)
        return 1


if __name__ == "__main__":
    sys.exit(main())
