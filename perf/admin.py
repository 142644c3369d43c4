"""The Admin API's speed, and what it costs the packet path: `python -m perf.admin`, as root.

Two machines with a node each, a file transfer between them; in turns nobody asks the
API, and several connections of another process ask for `/api/whoami` by the unix socket as fast as they are answered.
Prints the requests a second, idle and under load, and the share of throughput that is left.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from zignet.admin.listen import ADMIN_SOCKET
from zignet.bench.tunnels import TUNNELS
from zignet.bench.world import TunnelWorld
from zignet.lab.namespace import Namespace

CONNECTIONS = 16


def ask(path: str, seconds: float, target: str) -> dict[str, float]:
    """Keep as many requests under way as there are connections."""
    request = f"GET {target} HTTP/1.1\r\nHost: admin.zignet\r\n\r\n".encode()
    selector = selectors.DefaultSelector()
    for _ in range(CONNECTIONS):
        end = socket.socket(socket.AF_UNIX)
        end.connect(path)
        end.sendall(request)
        selector.register(end, selectors.EVENT_READ)
    count = 0
    begin = now = time.monotonic()
    while now < begin + seconds:
        for key, _ in selector.select(1):
            end: Any = key.fileobj
            if not (heard := end.recv(1 << 16)).startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(heard[:200].decode("latin-1"))
            count += 1
            end.sendall(request)
        now = time.monotonic()
    return {"per_second": count / (now - begin)}


def load(namespace: Namespace, path: Path, seconds: float, target: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "perf.admin", "ask", str(path), f"{seconds:g}", target]
    child: subprocess.Popen[str] = namespace.popen(command, stdout=subprocess.PIPE, text=True)
    return child


def result(child: subprocess.Popen[str]) -> float:
    said, _ = child.communicate()
    return float(json.loads(said)["per_second"])


class World(TunnelWorld):
    """Both nodes have an API."""

    def config(self, name: str, **changes: Any) -> dict[str, Any]:
        return super().config(name, admin={}, **changes)


def run(rounds: int, seconds: float, target: str) -> None:
    with World() as world:
        tunnel = TUNNELS["zignet"](world, "tunnel")
        tunnel.start()
        path = world.near.directory / "state" / ADMIN_SOCKET
        try:
            idle = [result(load(world.host, path, seconds, target)) for _ in range(rounds)]
            print(f"node idle: {statistics.median(idle):.0f} requests a second", flush=True)
            control = world.near.status()["control"]
            assert control is not None
            print(f"resident: {control['memory'] / (1 << 20):.1f} MiB", flush=True)
            alone, beside, asked = [], [], []
            for number in range(rounds):
                for busy in (True, False) if number % 2 else (False, True):
                    asking = load(world.host, path, seconds + 2, target) if busy else None
                    time.sleep(0.7)
                    rate = world.load("download", host=tunnel.inner[1], streams=1, seconds=seconds)["gbit_s"]
                    (beside if busy else alone).append(rate)
                    if asking is not None:
                        asked.append(result(asking))
                    print(f"{'API busy' if busy else 'API idle'}: {rate:.2f} Gbit/s", flush=True)
            without, with_load = statistics.median(alone), statistics.median(beside)
            per_s = statistics.median(asked)
            print(f"with {per_s:.0f} requests a second: {with_load:.2f} of {without:.2f} Gbit/s")
            print(f"left: {with_load / without:.2f} x (medians of {rounds} rounds)")
        finally:
            tunnel.stop()


def main() -> None:
    if sys.argv[1:2] == ["ask"]:
        print(json.dumps(ask(sys.argv[2], float(sys.argv[3]), sys.argv[4])))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--target", default="/api/whoami")
    options = parser.parse_args()
    run(options.rounds, options.seconds, options.target)


if __name__ == "__main__":
    main()
