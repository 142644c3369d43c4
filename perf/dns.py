"""Cached fake answers per second, beside dnsmasq answering the same names: `python -m perf.dns`, as root.

A namespace of its own, a real node and a real dnsmasq in it, dnsperf at each in turns. Needs `dnsperf` and `dnsmasq`
(Debian: dnsperf, dnsmasq-base). Prints one line for each round, then the medians and their ratio.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from zignet.lab.namespace import Namespace
from zignet.lab.running import Running

NAMES = 1000
OURS, THEIRS = 53530, 53531
CONFIG = f"""\
proxy: {{mode: "off"}}
dns: {{listen: ["127.0.0.1:{OURS}"], upstreams: [127.0.0.99], fake: ["*.video.example"]}}
"""
RATE = re.compile(r"Queries per second:\s+([\d.]+)")
LOST = re.compile(r"Queries lost:\s+(\d+)")


def measure(namespace: Namespace, port: int, queries: Path, seconds: float) -> tuple[float, int]:
    """(answers a second, queries lost)."""
    done = namespace.run(
        [
            "dnsperf",
            "-s",
            "127.0.0.1",
            "-p",
            str(port),
            "-d",
            str(queries),
            "-l",
            f"{seconds:g}",
            "-c",
            "4",
            "-q",
            "64",
        ]
    )
    rate, lost = RATE.search(done.stdout), LOST.search(done.stdout)
    if rate is None or lost is None:
        raise RuntimeError(done.stderr or done.stdout)
    return float(rate[1]), int(lost[1])


def run(rounds: int, seconds: float) -> None:
    names = [f"host{number}.video.example" for number in range(NAMES)]
    with tempfile.TemporaryDirectory(prefix="zignet-dns-") as folder, Namespace("dns") as namespace:
        directory = Path(folder)
        directory.chmod(0o755)
        namespace.link("lo", state="up")
        queries = directory / "queries"
        queries.write_text("".join(f"{name} {kind}\n" for name in names for kind in ("A", "AAAA")))
        hosts = directory / "hosts"
        hosts.write_text(
            "".join(
                f"198.19.{n >> 8}.{n & 255} {name}\n2001:2::{n:x} {name}\n" for n, name in enumerate(names, 2)
            )
        )
        options = (
            "--keep-in-foreground",
            "--no-resolv",
            "--no-hosts",
            "--local-ttl=1",
            "--bind-interfaces",
            "--user=root",
        )
        where = (
            "--bind-interfaces",
            "--listen-address=127.0.0.1",
            f"--port={THEIRS}",
            f"--addn-hosts={hosts}",
            "--pid-file=",
        )
        dnsmasq = namespace.popen(
            ["dnsmasq", "--conf-file=/dev/null", *options, *where], stderr=subprocess.DEVNULL
        )
        try:
            with Running(namespace, directory / "node", CONFIG):
                time.sleep(1)
                compare(namespace, queries, rounds, seconds)
        finally:
            dnsmasq.kill()
            dnsmasq.wait()


def compare(namespace: Namespace, queries: Path, rounds: int, seconds: float) -> None:
    rates: dict[int, list[float]] = {OURS: [], THEIRS: []}
    for number in range(rounds):
        for port in (OURS, THEIRS) if number % 2 else (THEIRS, OURS):
            rate, lost = measure(namespace, port, queries, seconds)
            rates[port].append(rate)
            print(
                f"{'zignet' if port == OURS else 'dnsmasq':8} {rate:9.0f} a second, {lost} lost", flush=True
            )
    ours, theirs = (statistics.median(rates[port]) for port in (OURS, THEIRS))
    print(f"zignet {ours:.0f}, dnsmasq {theirs:.0f}: {ours / theirs:.2f} x (medians of {rounds} rounds)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    run(options.rounds, options.seconds)


if __name__ == "__main__":
    main()
