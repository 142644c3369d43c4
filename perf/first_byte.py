"""Time to the first byte of a page on a link of 20 ms, by a peer's exit and without: `python -m perf.first_byte`, as root.

    near ── 10 ms each way ── switch ── far (the exit), web

curl over HTTP, the ways in turns. "direct" is the same page without ZigNet: two round trips of the link, one for TCP's
handshake and one for the request. "dial" is what the exit does on its own side: it asks its name server, and connects.
Then, by the exit again, the first page after near's node was started, with no session yet.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

from zignet.lab.certificates import Authority
from zignet.lab.hosts import Host, Hosts
from zignet.lab.namespace import start_module

NAME = "www.video.example"
TIMES = "%{time_namelookup} %{time_connect} %{time_starttransfer}"


def milliseconds(host: Host, address: str) -> tuple[float, float]:
    """(until the connection stands, until the first byte), from the start of the connection on."""
    command = ["curl", "-sS", "--max-time", "20", "-o", "/dev/null", "-w", TIMES, f"http://{address}/"]
    done = host.namespace.run(command)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    begin, connected, first = (float(word) * 1e3 for word in done.stdout.split())
    return connected - begin, first - begin


def lookup_ms(host: Host, server: str) -> float:
    done = host.namespace.run(["dig", "-u", f"@{server}", "+tries=1", "+time=5", NAME])
    return float(done.stdout.partition("Query time: ")[2].partition(" ")[0]) / 1e3


def build(net: Hosts) -> str:
    """Servers and nodes. The fake address of the name."""
    near, far, web = net
    plan = net.directory / "names.json"
    plan.write_text(json.dumps({"records": {NAME: {"A": [web.address]}}, "addresses": [web.address]}))
    start_module(web.namespace, "zignet.lab.nameserver", str(plan))
    files = [str(file) for file in Authority(net.directory).issue(NAME)]
    plan = net.directory / "servers.json"
    plan.write_text(json.dumps({"sites": {}, "files": {NAME: files}}))
    start_module(web.namespace, "zignet.lab.servers", str(plan))
    dns: dict[str, Any] = {"upstreams": [web.address]}
    net.start("near", net.config("near", dns=dns, routes=[f"{NAME} -> far", "MATCH,direct"]))
    net.start("far", net.config("far", dns=dns, exit={"allow": ["near"]}))
    assert near.reaches(near.inner(far))
    asked = near.namespace.run(["dig", "@127.0.0.1", "-p", "53530", "+short", NAME, "A"])
    return asked.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--milliseconds", type=float, default=10.0, help="of the link, each way")
    given = parser.parse_args()
    with Hosts("near", "far", "web") as net:
        near, far, web = net
        net.delay("near", given.milliseconds / 1e3)
        fake = build(net)
        ways = {"direct": (near, web.address), "exit": (near, fake), "dial": (far, web.address)}
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(given.rounds):
            for way, (host, address) in ways.items():
                found[way].append(milliseconds(host, address))
        cold = []
        for _ in range(max(1, given.rounds // 4)):
            assert near.node is not None
            near.node.stop()
            near.node.start()
            cold.append(milliseconds(near, fake)[1])
        lookup = statistics.median(lookup_ms(far, web.address) for _ in range(given.rounds))
    connect = {way: statistics.median(times[0] for times in found[way]) for way in ways}
    first = {way: statistics.median(times[1] for times in found[way]) for way in ways}
    round_trip = connect["direct"]
    dial = connect["dial"] + lookup
    for way in ("direct", "exit"):
        print(f"{way:6} connected after {connect[way]:6.2f} ms, first byte after {first[way]:6.2f} ms")
    print(f"the exit's own dial {dial:.2f} ms; a round trip of the link {round_trip:.2f} ms")
    print(f"by the exit: the dial + {(first['exit'] - dial) / round_trip:.2f} round trips")
    trips = (statistics.median(cold) - dial) / round_trip
    print(
        f"no session yet: first byte after {statistics.median(cold):.2f} ms, the dial + {trips:.2f} round trips"
    )


if __name__ == "__main__":
    main()
