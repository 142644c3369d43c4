import json
from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat.tun import Applied, Neighbour, Plan, Survey, TunError

blocks = st.one_of(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(lambda at: IPv4Network(at, strict=False)),
    st.tuples(st.integers(0, 2**128 - 1), st.integers(0, 128)).map(lambda at: IPv6Network(at, strict=False)),
).map(str)
lists = st.lists(blocks, max_size=4).map(tuple)
plans = st.builds(
    Plan,
    name=st.text(min_size=1, max_size=15),
    mtu=st.integers(68, 65535),
    queue_length=st.integers(0, 10**6),
    addresses=st.sampled_from([(), ("100.64.0.1",), ("fd7a::1",), ("100.64.0.1", "fd7a::1")]),
    aliases=lists,
    routes=lists,
    ranges=st.lists(st.tuples(st.text(max_size=9), blocks), max_size=3).map(tuple),
    route_localnet=st.booleans(),
    capture=st.booleans(),
    fwmark=st.integers(1, 2**32 - 1),
    table=st.integers(256, 2**32 - 1),
    bypass=lists,
)


@given(plans)
def test_a_plan_survives_the_way_through_json(plan):
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_answers_survive_the_way_through_json():
    applied = {"ipv6": True, "notes": ["one"]}
    assert Applied.from_json(applied) == Applied(True, ("one",))
    neighbour = {"name": "wg0", "kind": "wireguard", "addresses": ["10.2.0.2"]}
    survey = {
        "ipv6": False,
        "overlaps": ["a"],
        "neighbours": [neighbour],
        "rules": 3,
        "owner": "",
        "defaults": [],
    }
    back = Survey.from_json(survey)
    assert back == Survey(False, ("a",), (Neighbour("wg0", "wireguard", ("10.2.0.2",)),), 3, "", ())


def test_the_address_of_a_family():
    plan = Plan(name="zig0", addresses=("100.64.0.1/32", "fd7a::1"))
    assert (plan.address(4), plan.address(6)) == ("100.64.0.1", "fd7a::1")
    assert Plan(name="zig0").address(6) is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"addresses": ("100.64.0.300",)}, "100.64.0.300"),
        ({"addresses": ("100.64.0.1", "100.64.0.2")}, "one address a family"),
        ({"aliases": ("100.127.0.1/16",)}, "host bits"),
        ({"bypass": ("example.org",)}, "example.org"),
        ({"ranges": (("tun.range", "x"),)}, "'x'"),
        ({"capture": True, "table": 254, "fwmark": 1}, "table 254"),
        ({"capture": True, "table": 0, "fwmark": 1}, "table 0"),
        ({"capture": True, "table": 1000, "fwmark": 0}, "mark 0"),
    ],
)
def test_a_plan_that_cannot_work_is_refused(fields, said):
    with pytest.raises(TunError, match=said):
        Plan(name="zig0", **fields)
