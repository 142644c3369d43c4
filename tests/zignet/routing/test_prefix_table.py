"""The flat radix table against a walk through all networks."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zignet.routing.prefixes import NO_RULE, PrefixTable, pack
from zignet.routing.rule import Prefix


def table(width: int, prefixes: list[Prefix]) -> PrefixTable:
    return PrefixTable(width, [pack(prefix, index) for index, prefix in enumerate(prefixes)])


def naive(prefixes: list[Prefix], address: bytes) -> int:
    for index, prefix in enumerate(prefixes):
        network = ipaddress.ip_network((prefix.network, prefix.length), strict=False)
        if ipaddress.ip_address(address) in network:
            return index
    return NO_RULE


@st.composite
def worlds(draw: st.DrawFn, size: int) -> tuple[list[Prefix], list[bytes]]:
    """Networks that nest, and addresses at and around their edges."""
    octet = st.sampled_from([0, 1, 127, 128, 254, 255])
    address = st.lists(octet, min_size=size, max_size=size).map(bytes)
    prefixes = draw(
        st.lists(st.builds(Prefix, address, st.integers(0, size * 8), st.just(False)), max_size=12)
    )
    probes = draw(st.lists(address, min_size=1, max_size=6))
    for prefix in prefixes:
        network = ipaddress.ip_network((prefix.network, prefix.length), strict=False)
        first, last = int(network.network_address), int(network.broadcast_address)
        probes += [
            edge.to_bytes(size) for edge in (first - 1, first, last, last + 1) if 0 <= edge < 1 << size * 8
        ]
    return prefixes, probes


@given(worlds(4) | worlds(16))
def test_the_same_as_one_network_after_the_other(world: tuple[list[Prefix], list[bytes]]):
    prefixes, probes = world
    size = len(probes[0])
    found = table(size * 8, prefixes)
    for probe in probes:
        expected = naive(prefixes, probe)
        assert found.first(probe, NO_RULE) == expected
        assert found.first(probe, 0) == 0
        assert found.first(probe, 3) == min(expected, 3)


@pytest.mark.parametrize("size", [4, 16])
def test_the_whole_space_and_its_last_address(size: int):
    everything = Prefix(bytes(size), 0, False)
    last = Prefix(b"\xff" * size, size * 8, False)
    found = table(size * 8, [last, everything])
    assert found.first(b"\xff" * size, NO_RULE) == 0
    assert found.first(b"\xff" * (size - 1) + b"\xfe", NO_RULE) == 1
    assert found.first(bytes(size), NO_RULE) == 1


def test_an_inner_network_with_a_later_rule_never_wins():
    outer, inner = Prefix(bytes((10, 0, 0, 0)), 8, False), Prefix(bytes((10, 1, 0, 0)), 16, False)
    assert table(32, [outer, inner]).first(bytes((10, 1, 2, 3)), NO_RULE) == 0
    assert table(32, [inner, outer]).first(bytes((10, 1, 2, 3)), NO_RULE) == 0
    assert table(32, [inner, outer]).first(bytes((10, 2, 2, 3)), NO_RULE) == 1


def test_an_empty_table_matches_nothing():
    assert table(32, []).first(bytes(4), NO_RULE) == NO_RULE
