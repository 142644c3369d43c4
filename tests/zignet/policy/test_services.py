"""What may be reached, against a plain evaluator."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zignet.config import parse_config
from zignet.config.services import ServiceConfig
from zignet.policy.services import may_reach

PROTOS = ("tcp", "udp", "icmp")
ports = st.integers(1, 6)
ranges = st.lists(st.tuples(ports, st.integers(0, 2)).map(lambda pair: (pair[0], sum(pair))), max_size=2)
services = st.builds(
    ServiceConfig,
    proto=st.sampled_from([*PROTOS, ""]),
    ports=ranges.map(tuple),
    allow=st.none() | st.lists(st.sampled_from("abc"), max_size=2).map(tuple),
)


@given(st.lists(services, max_size=4), st.sampled_from(PROTOS), ports, st.sampled_from("abcd"))
def test_as_the_naive_evaluator(some, proto, port, who):
    expected = False
    for service in some:
        open_ports = {each for low, high in service.ports for each in range(low, high + 1)}
        everywhere = len(service.ports) == 0
        if service.proto == proto and (everywhere or port in open_ports):
            expected = expected or service.allow is None or who in service.allow
    assert may_reach(some, proto, port, lambda text: text == who)[0] is expected


def test_reasons():
    text = '[{proto: tcp, port: "22,80"}, {proto: udp, allow: ["file:x"]}, {proto: udp, allow: []}]'
    some = parse_config(f"inbound: {{services: {text}}}").inbound.services
    assert may_reach(None, "tcp", 22, lambda text: False)[0]
    assert may_reach((), "tcp", 22, lambda text: True) == (False, "tcp port 22 is not among inbound.services")
    assert (
        may_reach(some, "tcp", 22, lambda text: False)[1] == "inbound.services[0] is for all who may come in"
    )
    assert may_reach(some, "udp", 53, lambda text: True)[1].endswith("/x")
    assert may_reach(some, "udp", 53, lambda text: False) == (
        False,
        "udp port 53 is not for this key (inbound.services[1] and inbound.services[2])",
    )
    assert not may_reach(some, "icmp", None, lambda text: True)[0]
    assert not may_reach(some, "tcp", None, lambda text: True)[0]  # not all of tcp
    assert may_reach(some, "udp", None, lambda text: True)[0]
