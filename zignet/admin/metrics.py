"""The node's counters in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from zignet.control.messages import ExitStatus, NamesStatus, PeerCounts, Status

__all__ = ["MEDIA_TYPE", "exposition"]

MEDIA_TYPE = CONTENT_TYPE_LATEST


def exposition(status: Status) -> bytes:
    """All of them, and this process's own memory and time."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Node(status))
    ProcessCollector(namespace="zignet_control", registry=registry)
    return generate_latest(registry)


class Node(Collector):
    """A status, as metrics."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        status = self._status
        info = InfoMetricFamily("zignet", "The node")
        info.add_metric([], {"version": status["version"], "mode": status["mode"], "state": status["state"]})
        yield info
        yield GaugeMetricFamily("zignet_uptime_seconds", "Since the start", status["uptime_s"])
        yield GaugeMetricFamily("zignet_resident_memory_bytes", "Of the packet process", status["memory"])
        control = status["control"]
        if control is not None:
            text = "Times that the control process was started again"
            yield CounterMetricFamily("zignet_control_restarts", text, control["restarts"])
        yield GaugeMetricFamily("zignet_rules", "Rules in force", status["rules"])
        config = status["config"]
        yield GaugeMetricFamily("zignet_config_age_seconds", "Since it was read", config["loaded_age_s"])
        yield GaugeMetricFamily(
            "zignet_config_reload_failed",
            "1 while the old configuration is in force since the new one is wrong",
            int(config["last_reload_error"] is not None),
        )
        yield from _flows(status)
        yield from _exits(status["exits"])
        if status["peers"] is not None:
            yield from _peers(status["peers"])
        if status["names"] is not None:
            yield from _names(status["names"])


def _flows(status: Status) -> Iterator[Metric]:
    flows, totals = status["flows"], status["totals"]
    opened = {"tcp": flows["tcp"], "udp": flows["udp"], "icmp": flows["icmp"]}
    yield _gauge("zignet_flows", "Open flows", "protocol", opened)
    yield GaugeMetricFamily("zignet_flows_half_open", "TCP flows without a handshake yet", flows["half_open"])
    yield GaugeMetricFamily("zignet_flows_limit", "TCP flows that there can be", flows["limit"])
    yield CounterMetricFamily("zignet_flows_opened", "Flows since the start", totals["flows"])
    moved = {"up": totals["up"], "down": totals["down"]}
    yield _counter("zignet_bytes", "Bytes of flows", "direction", moved)
    packets = {"in": totals["packets_in"], "out": totals["packets_out"]}
    yield _counter("zignet_packets", "Packets read from and written to the interface", "direction", packets)
    yield _counter("zignet_dropped_packets", "Packets that went nowhere", "reason", totals["dropped"])


def _exits(exits: list[ExitStatus]) -> Iterator[Metric]:
    yield _gauge("zignet_exit_flows", "Open flows", "exit", {each["name"]: each["flows"] for each in exits})
    moved = CounterMetricFamily("zignet_exit_bytes", "Bytes of flows", labels=["exit", "direction"])
    for each in exits:
        moved.add_metric([each["name"], "up"], each["up_bytes"])
        moved.add_metric([each["name"], "down"], each["down_bytes"])
    yield moved
    dials = {each["name"]: each["dials"] for each in exits}
    yield _counter("zignet_exit_dials", "Connections that were tried", "exit", dials)
    failures = {each["name"]: each["failures"] for each in exits}
    yield _counter("zignet_exit_failures", "Connections that failed", "exit", failures)


def _peers(peers: PeerCounts) -> Iterator[Metric]:
    yield GaugeMetricFamily("zignet_peers_known", "Peers with an address here", peers["known"])
    yield GaugeMetricFamily("zignet_peers_connected", "Peers with a session", peers["connected"])
    yield GaugeMetricFamily("zignet_peers_pending", "Strangers that are not confirmed", peers["pending"])
    yield GaugeMetricFamily(
        "zignet_peers_under_load", "1 while cookies are asked for", int(peers["under_load"])
    )
    yield CounterMetricFamily("zignet_handshakes", "Handshakes since the start", peers["handshakes"])
    yield _counter("zignet_dropped_datagrams", "Of peers, that went nowhere", "reason", peers["dropped"])


def _names(names: NamesStatus) -> Iterator[Metric]:
    yield _counter("zignet_dns_queries", "By what became of them", "outcome", names["answered"])
    yield CounterMetricFamily("zignet_dns_forwarded", "Queries to the upstreams", names["asked"])
    yield GaugeMetricFamily("zignet_dns_outstanding", "Queries to the upstreams", names["outstanding"])
    yield GaugeMetricFamily("zignet_dns_fake_names", "Names with a fake address", names["names"])
    yield GaugeMetricFamily("zignet_dns_fake_room", "How many there can be", names["room"])


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for each, value in values.items():
        family.add_metric([each], value)
    return family


def _counter(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for each, value in values.items():
        family.add_metric([each], value)
    return family
