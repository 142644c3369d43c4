"""What the bench measures of an engine, and the figures that come out."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from zignet.bench.engine import Engine
from zignet.bench.world import load_command

__all__ = [
    "FIGURES",
    "MEASURES",
    "TUNNEL_MEASURES",
    "Figure",
    "Measure",
    "Plan",
    "Result",
    "add_differences",
    "medians",
]

MIB = 1 << 20
SETTLE_S = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how much."""

    seconds: float = 3.0  # of each throughput
    connections: int = 10_000
    then: int = 1_000  # connections watched for stalls, right after
    flows: int = 1_000  # idle ones
    rounds: int = 3
    pings: int = 2_000


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the table."""

    title: str
    unit: str
    higher_is_better: bool = True
    digits: int = 0


@dataclass(frozen=True, slots=True)
class Measure:
    """One kind of load. `run` gives figures by key."""

    title: str
    needs: str  # what the engine must carry: tcp, udp or icmp
    run: Callable[[Engine[Any], Plan], dict[str, float]]


@dataclass(slots=True)
class Result:
    """What one engine showed in one round."""

    way: str  # socks5, direct or tunnel
    engine: str
    round: int
    figures: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def memory(engine: Engine[Any], plan: Plan) -> dict[str, float]:
    """Resident at start, and what each idle flow adds; none of them may get another's bytes."""
    if not engine.running:
        return {}
    start = engine.resident()
    flows = min(plan.flows, engine.world.most_flows)
    client = engine.world.host.popen(
        load_command("idle", {"hosts": engine.targets, "flows": flows}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with client:
        if client.stdout is None or client.stdin is None or not client.stdout.readline():
            raise RuntimeError("the flows could not be opened")
        time.sleep(SETTLE_S)
        grown = engine.resident() - start
        client.stdin.write("\n")
        client.stdin.flush()
        checked = json.loads(client.stdout.readline())
    engine.world.host.children.remove(client)
    time.sleep(SETTLE_S)  # the closes are not the next measure's business
    return {
        "start": start / MIB,
        "per_flow": grown / 1024 / flows,
        "flows": flows,
        "crossed": checked["crossed"],
        "lost_flows": checked["failed"],
    }


def resident(engine: Engine[Any], plan: Plan) -> dict[str, float]:
    """Resident at start, of one end."""
    return {"start": engine.resident() / MIB / len(engine.running)} if engine.running else {}


def connections(engine: Engine[Any], plan: Plan) -> dict[str, float]:
    """Short connections, 16 at once, then the stalls among the next ones."""
    with engine.world.few_source_ports():
        first = engine.world.load("requests", hosts=engine.targets, count=plan.connections)
        after = engine.world.load("requests", hosts=engine.targets, count=plan.then)
    return {
        "conn": first["per_second"],
        "conn_failed": first["failed"] + after["failed"],
        "stalled": after["stalled"],
    }


def throughput(engine: Engine[Any], plan: Plan) -> dict[str, float]:
    """One stream and ten, up and down, and the engine's CPU time for them."""
    figures = {}
    carried = 0.0
    before = engine.cpu()
    for streams in (1, 10):
        for direction, load in (("up", "upload"), ("down", "download")):
            gbit_s = engine.world.load(load, host=engine.targets[0], streams=streams, seconds=plan.seconds)[
                "gbit_s"
            ]
            figures[f"{direction}{streams}"] = gbit_s
            carried += gbit_s * plan.seconds / 8
    if engine.running:
        figures["cpu"] = (engine.cpu() - before) / carried
    return figures


def datagrams(engine: Engine[Any], plan: Plan) -> dict[str, float]:
    """1,200-byte datagrams in trains."""
    result = engine.world.load("datagrams", host=engine.targets[0], seconds=plan.seconds)
    return {"udp": result["pps"] / 1000, "udp_lost": result["lost_share"] * 100}


def latency(engine: Engine[Any], plan: Plan) -> dict[str, float]:
    """A TCP ping-pong over a standing connection."""
    result = engine.world.load("pingpong", host=engine.targets[0], rounds=plan.pings)
    return {"tcp50": result["p50_us"], "tcp99": result["p99_us"]}


def ping(engine: Engine[Any], plan: Plan) -> dict[str, float]:
    """ICMP echo. Some engines answer it themselves."""
    result = engine.world.load("ping", host=engine.targets[0], rounds=plan.pings // 4)
    return {"icmp50": result["p50_us"], "icmp99": result["p99_us"]} if result["p50_us"] else {}


MEASURES: dict[str, Measure] = {  # in this order: memory first, while the engine is fresh
    "memory": Measure("memory", "tcp", memory),
    "conn": Measure("short connections", "tcp", connections),
    "latency": Measure("TCP latency", "tcp", latency),
    "ping": Measure("ICMP latency", "icmp", ping),
    "throughput": Measure("TCP throughput", "tcp", throughput),
    "udp": Measure("UDP throughput", "udp", datagrams),
}

TUNNEL_MEASURES: dict[str, Measure] = {"memory": Measure("memory", "tcp", resident)} | {
    key: MEASURES[key] for key in ("conn", "ping", "throughput", "udp")
}

FIGURES: dict[str, Figure] = {
    "up1": Figure("up 1", "Gbit/s", digits=2),
    "down1": Figure("down 1", "Gbit/s", digits=2),
    "up10": Figure("up 10", "Gbit/s", digits=2),
    "down10": Figure("down 10", "Gbit/s", digits=2),
    "cpu": Figure("CPU", "s/GB", False, 2),
    "conn": Figure("connections", "/s"),
    "conn_failed": Figure("failed", "", False),
    "stalled": Figure("stalled", "", False),
    "udp": Figure("UDP", "kpps"),
    "udp_lost": Figure("UDP lost", "%", False, 1),
    "tcp50": Figure("TCP p50", "µs", False),
    "tcp99": Figure("TCP p99", "µs", False),
    "icmp50": Figure("ping p50", "µs", False),
    "icmp99": Figure("ping p99", "µs", False),
    "added50": Figure("added p50", "µs", False),
    "added99": Figure("added p99", "µs", False),
    "start": Figure("at start", "MiB", False, 1),
    "per_flow": Figure("per flow", "KiB", False, 1),
    "flows": Figure("idle flows", ""),
    "crossed": Figure("crossed", "", False),
    "lost_flows": Figure("lost flows", "", False),
}


def add_differences(results: Sequence[Result], bare: str) -> None:
    """To one round's results: what each engine adds to the ping over the bare link."""
    base = next((result.figures for result in results if result.engine == bare), {})
    for result in results:
        for at in ("50", "99"):
            if result.engine != bare and f"icmp{at}" in base and f"icmp{at}" in result.figures:
                result.figures[f"added{at}"] = result.figures[f"icmp{at}"] - base[f"icmp{at}"]


def medians(results: Iterable[Result]) -> dict[str, dict[str, dict[str, float]]]:
    """way → engine → figure → the median of its rounds."""
    gathered: dict[str, dict[str, dict[str, list[float]]]] = {}
    for result in results:
        figures = gathered.setdefault(result.way, {}).setdefault(result.engine, {})
        for key, value in result.figures.items():
            figures.setdefault(key, []).append(value)
    return {
        way: {
            engine: {key: statistics.median(values) for key, values in figures.items()}
            for engine, figures in engines.items()
        }
        for way, engines in gathered.items()
    }
