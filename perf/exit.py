"""TCP through a peer's exit against the tunnel itself, between the same two nodes: `python -m perf.exit`, as root.

    near ── sealed ── far ── web          tunnel: near to far's address; exit: near to a name, which far dials

One iperf3 stream at a time, the two ways in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from typing import Any

from zignet.lab.hosts import Host, Hosts
from zignet.lab.namespace import start_module

NAME = "www.video.example"


def gbit_s(host: Host, address: str, seconds: int, *options: str) -> float:
    command = ["iperf3", "-c", address, "-t", str(seconds), "-J", *options]
    done = host.namespace.run(command, timeout_s=seconds + 30.0)
    return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    given = parser.parse_args()
    with Hosts("near", "far", "web") as net:
        near, far, web = net
        plan = net.directory / "names.json"
        plan.write_text(json.dumps({"records": {NAME: {"A": [web.address]}}, "addresses": [web.address]}))
        start_module(web.namespace, "zignet.lab.nameserver", str(plan))
        dns: dict[str, Any] = {"upstreams": [web.address]}
        net.start("near", net.config("near", dns=dns, routes=[f"{NAME} -> far", "MATCH,direct"]))
        net.start("far", net.config("far", dns=dns, exit={"allow": ["near"]}))
        for host in (far, web):
            host.namespace.popen(["iperf3", "-s"], stdout=subprocess.DEVNULL)
        asked = near.namespace.run(["dig", "@127.0.0.1", "-p", "53530", "+short", NAME, "A"])
        ways = {"tunnel": near.inner(far), "exit": asked.stdout.strip()}
        assert near.reaches(ways["tunnel"])
        found: dict[tuple[str, str], list[float]] = {}
        for _ in range(given.rounds):
            for way, address in ways.items():
                for direction, options in (("down", ("-R",)), ("up", ())):
                    figure = gbit_s(near, address, given.seconds, *options)
                    found.setdefault((way, direction), []).append(figure)
        for direction in ("down", "up"):
            tunnel, by_exit = (statistics.median(found[way, direction]) for way in ways)
            print(f"{direction}: tunnel {tunnel:.2f}, exit {by_exit:.2f} Gbit/s: {by_exit / tunnel:.2f} x")


if __name__ == "__main__":
    main()
