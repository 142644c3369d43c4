"""The two kinds of bench: what a proxy does on a laptop, and what a tunnel does between two machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zignet.bench.engine import Engine
from zignet.bench.engines import ENGINES
from zignet.bench.measures import MEASURES, TUNNEL_MEASURES, Measure
from zignet.bench.tunnels import TUNNELS
from zignet.bench.world import ProxyWorld, TunnelWorld, World

__all__ = ["LAPTOP", "TUNNEL", "Kind"]


@dataclass(frozen=True, slots=True)
class Kind:
    """Where it happens, who takes part, what is asked of them, and how it is shown."""

    world: Callable[[], World]
    engines: Mapping[str, type[Engine[Any]]]
    ways: Mapping[str, str]  # the tasks of an engine, and their titles
    measures: Mapping[str, Measure]
    bare: str  # the engine that adds nothing
    bases: Sequence[str]  # ratios are to the first of these that ran
    tables: Mapping[str, Sequence[str]]  # titles, and the figures of each
    pictured: Sequence[str]

    def base(self, names: Sequence[str]) -> str:
        """The engine whose figures the others' are compared with; "" if it did not run."""
        return next((name for name in self.bases if name in names), "")


LAPTOP = Kind(
    world=ProxyWorld,
    engines=ENGINES,
    ways={"socks5": "exit socks5", "direct": "exit direct"},
    measures=MEASURES,
    bare="none",
    bases=("zignet",),
    tables={
        "throughput": ("up1", "down1", "up10", "down10", "cpu", "udp", "udp_lost"),
        "connections and latency": ("conn", "conn_failed", "stalled", "tcp50", "tcp99", "icmp50", "icmp99"),
        "memory and idle flows": ("start", "per_flow", "flows", "crossed", "lost_flows"),
    },
    pictured=("up1", "down1", "up10", "down10", "conn", "udp", "tcp50", "per_flow"),
)

TUNNEL = Kind(
    world=TunnelWorld,
    engines=TUNNELS,
    ways={"tunnel": "tunnel"},
    measures=TUNNEL_MEASURES,
    bare="bare",
    bases=("zignet", "zignet-chacha"),
    tables={
        "throughput, CPU time of both ends": ("up1", "down1", "up10", "down10", "cpu", "udp", "udp_lost"),
        "latency": ("icmp50", "icmp99", "added50", "added99"),
        "connections, memory of one end": ("conn", "conn_failed", "stalled", "start"),
    },
    pictured=("up1", "down1", "up10", "down10", "conn", "udp", "added50", "cpu"),
)
