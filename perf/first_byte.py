"""Time to the first byte on a link of 20 ms, by a peer's exit and directly: `python -m perf.first_byte`, as root.

    laptop ── 10 ms each way ── switch ── peer_us (the exit), web

curl over HTTP, the ways in turns, after the name was looked up. "direct" is what the application's TCP costs anyway: a
round trip of the link for its handshake, and one for the request. The exit's own dial is a question to its name server
and a connection to the site. "cold" is the first page after the laptop's node was started: no session yet. "fast open"
has the request in the SYN, which net.ipv4.tcp_fastopen of both hosts has to allow.
"""

from __future__ import annotations

import argparse
import statistics

from zignet.lab.regions import EDITIONS, NAME_SERVERS, Regions

NAME, PLAIN = "www.video.example", "www.plain.example"


def dial(net: Regions) -> float:
    """Seconds that the exit needs for a look-up and a connection on its own side."""
    asked = net["peer_us"].namespace.run(["dig", "-u", f"@192.0.2.{NAME_SERVERS['us']}", NAME])
    lookup = float(asked.stdout.partition("Query time: ")[2].partition(" ")[0]) / 1e6
    return lookup + net.first_byte(f"192.0.2.{EDITIONS['us']}", "peer_us")[0]


def restarted(net: Regions) -> float:
    """Seconds until the first byte, with no session."""
    node = net["laptop"].node
    assert node is not None
    node.stop()
    node.start()
    net.wait_for_names()
    return net.first_byte(NAME)[1]


def fast_open(net: Regions) -> float:
    """Seconds until the first byte, the request in the SYN."""
    for machine, allowed in (("laptop", 5), ("peer_us", 3)):
        net[machine].namespace.sysctl("net.ipv4.tcp_fastopen", allowed)
    return net.first_byte(NAME, "laptop", "--tcp-fastopen")[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--milliseconds", type=float, default=10.0, help="of the link, each way")
    given = parser.parse_args()
    with Regions() as net:
        net.delay("laptop", given.milliseconds / 1e3)
        net.up()
        net.first_byte(NAME)  # now there is a session
        direct, by_exit, dials = [], [], []
        for _ in range(given.rounds):
            direct.append(net.first_byte(PLAIN))
            by_exit.append(net.first_byte(NAME))
            dials.append(dial(net))
        early = statistics.median(fast_open(net) for _ in range(given.rounds))
        cold = statistics.median(restarted(net) for _ in range(max(1, given.rounds // 4)))
    trip, first_direct = (statistics.median(times) for times in zip(*direct, strict=True))
    connected, first = (statistics.median(times) for times in zip(*by_exit, strict=True))
    own = statistics.median(dials)
    print(f"a round trip of the link {trip * 1e3:.2f} ms, the exit's own dial {own * 1e3:.2f} ms")
    print(f"direct: first byte after {first_direct * 1e3:.2f} ms, {first_direct / trip:.2f} round trips")
    print(f"exit: connected after {connected * 1e3:.2f} ms")
    for what, seconds in (("exit", first), ("fast open", early), ("cold", cold)):
        print(f"{what}: {seconds * 1e3:.2f} ms, the dial + {(seconds - own) / trip:.2f} round trips")


if __name__ == "__main__":
    main()
