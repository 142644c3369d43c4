"""A real node and many peers, or a flood: `python -m perf.scale memory|handshakes|flood`, as root.

memory      resident memory of `zignet up`, without and with so many connected strangers, and configured idle peers
handshakes  how many a second one node completes, of strangers that it admits
flood       a TCP stream through the tunnel, without and with a flood of what is no good (the kinds of `perf.flood`)
"""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from perf.crowd import NETWORK
from zignet.bench.world import load_command
from zignet.identity import SecretKey
from zignet.lab.hosts import PORT, Host, Hosts
from zignet.lab.namespace import start_module

CONNECTED = 5_000
IDLE = 100_000
RATE = 50_000  # datagrams a second
ROUNDS = 3
SECONDS = 3.0


class Helper:
    """A program of this folder that is told what to do, line by line."""

    def __init__(self, host: Host, module: str, arguments: dict[str, Any]) -> None:
        command = [sys.executable, "-m", module, json.dumps(arguments)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = host.namespace.popen(command, cwd=Path(__file__).parents[1], **pipes)
        assert self.process.stdout.readline() == "ready\n"

    def begin(self, line: str) -> None:
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        return json.loads(self.process.stdout.readline())

    def ask(self, line: str) -> dict[str, Any]:
        self.begin(line)
        return self.answer()


def resident(host: Host) -> int:
    """Bytes."""
    text = Path(f"/proc/{host.node.process.pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Rss:"))


def cpu(host: Host) -> tuple[float, float]:
    """Seconds in user and kernel mode."""
    times = psutil.Process(host.node.process.pid).cpu_times()
    return times.user, times.system


def many_addresses(host: Host, *others: Host) -> None:
    """The host has a whole network of them, and the others know that."""
    host.namespace.run(["ip", "route", "add", "local", NETWORK, "dev", "lo"])
    for other in others:
        other.namespace.run(["ip", "route", "add", NETWORK, "via", host.address])


def crowd_of(host: Host, node: Host, count: int) -> Helper:
    target = {"node": node.address, "port": PORT, "x": node.secret.public.x.hex()}
    return Helper(host, "perf.crowd", {**target, "count": count})


def memory() -> None:
    with Hosts("crowd", "node") as net:
        crowd, node = net
        many_addresses(crowd, node)
        net.start("node", net.config("node", inbound={"default_action": "allow"}))
        helper = crowd_of(crowd, node, CONNECTED)
        before = resident(node)
        helper.ask(f"connect 0 {CONNECTED}")
        helper.ask("ping")
        connected = node.status()["peers"]["connected"]
        each = (resident(node) - before) / 1024 / connected
        print(f"{connected} connected peers: {before / 2**20:.1f} MiB without, {each:.2f} KiB each")
        node.node.stop()
        path = node.directory / "peers.txt"
        keys = (SecretKey(hashlib.sha256(b"%d" % n).digest()).public for n in range(IDLE))
        path.write_text(
            "".join(f"p{n} {key.name} 192.0.2.1:{1024 + n % 60000}\n" for n, key in enumerate(keys))
        )
        config = net.config("node")
        net.start("node", config)
        before = resident(node)
        node.node.stop()
        begin = time.monotonic()
        net.start("node", {**config, "peers": [*config["peers"], {"file": str(path)}]})
        took = time.monotonic() - begin
        each = (resident(node) - before) / 1024 / IDLE
        print(f"{IDLE} configured idle peers: {each:.2f} KiB each; the node was ready after {took:.1f} s")


def handshakes() -> None:
    with Hosts("crowd", "node") as net:
        crowd, node = net
        many_addresses(crowd, node)
        net.start("node", net.config("node", inbound={"default_action": "allow"}))
        helper = crowd_of(crowd, node, 5_000)
        for first in range(0, 5_000, 1_000):
            before = sum(cpu(node))
            found = helper.ask(f"connect {first} {first + 1000}")
            each = (sum(cpu(node)) - before) / 1000
            text = f"{found['per_second']:.0f} a second, {found['cookies']} cookies"
            print(f"{text}; {1 / each:.0f} a CPU second of the node")


def flood() -> None:
    with Hosts("near", "far", "flood") as net:
        near, far, noise = net
        many_addresses(noise, near, far)
        net.start("near")
        net.start("far")
        inner = near.inner(far)
        assert near.reaches(inner)
        start_module(far.namespace, "zignet.bench.origin", "bulk")
        target = {"node": far.address, "port": PORT, "x": far.secret.public.x.hex()}
        for kind in ("random", "forged", "sealed", "data"):
            helper = Helper(noise, "perf.flood", {**target, "kind": kind})
            ratios = []
            for _ in range(ROUNDS):
                quiet = stream(near, inner)
                helper.begin(f"{RATE} {SECONDS + 2}")
                time.sleep(0.5)
                loud = stream(near, inner)
                sent = helper.answer()
                ratios.append(loud / quiet)
            share = f"the flood's sender takes {sent['share']:.2f} of a core for {sent['per_second']:.0f} a second"
            print(f"{kind}: {statistics.median(ratios):.2f} of {quiet:.2f} Gbit/s are left; {share}")


def stream(near: Host, inner: str) -> float:
    """Gbit/s of one TCP stream."""
    load = load_command("upload", {"host": inner, "streams": 1, "seconds": SECONDS})
    return float(json.loads(near.namespace.run(load).stdout)["gbit_s"])


if __name__ == "__main__":
    {"memory": memory, "handshakes": handshakes, "flood": flood}[sys.argv[1]]()
