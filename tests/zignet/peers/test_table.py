"""Peers by key, address and name; sessions by index."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zignet.config import PeerConfig
from zignet.identity import BadKey, PublicKey, SecretKey
from zignet.peers.peer import Peer
from zignet.peers.table import Indices, Table

KEYS = [SecretKey(bytes((number,)) * 32).public for number in range(1, 9)]


def peer(number: int, name: str | None = "", address4: bytes | None = None) -> Peer:
    """A peer of a configuration; with name None one that came by itself."""
    key = KEYS[number]
    settings = None if name is None else PeerConfig(name or f"peer{number}", key)
    four = bytes((100, 64, 0, 2 + number)) if address4 is None else address4
    return Peer(key, settings, four, b"\xfd" + bytes(14) + bytes((2 + number,)))


def table(*peers: Peer) -> Table:
    made = Table()
    for one in peers:
        made.add(one)
    return made


# --- look-ups


def test_each_peer_is_found_by_key_and_both_addresses() -> None:
    peers = [peer(number) for number in range(4)]
    known = table(*peers)
    for one in peers:
        assert known.by_key[one.key.x] is one
        assert known.by_address[one.address4] is one
        assert known.by_address[one.address6] is one
        for text in (one.key.name, one.key.name.upper(), one.key.base58, one.key.hex, one.settings.name):  # type: ignore[union-attr]
            assert known.find(text) is one, text
        for address in (one.address4, one.address6):
            assert known.find(str(ip_address(address))) is one
    assert len(known) == 4
    assert list(known) == peers


def test_nothing_is_found_of_who_was_removed() -> None:
    one, other = peer(0), peer(1)
    known = table(one, other)
    known.remove(one)
    assert (len(known), set(known.by_address)) == (1, {other.address4, other.address6})
    assert known.find("peer0") is known.find(one.key.name) is known.find("100.64.0.2") is None
    known.remove(one)  # harmless
    known.remove(other)
    assert (known.by_key, known.by_address) == ({}, {})


def test_an_address_that_another_has_by_now_is_left_to_it() -> None:
    one, other = peer(0), peer(1, address4=bytes((100, 64, 0, 2)))
    known = table(one, other)
    known.remove(one)
    assert known.by_address[other.address4] is other


def test_a_stranger_without_an_address() -> None:
    known = table(peer(0, None, b""))
    assert list(known.by_address) == [peer(0).address6]
    known.remove(known.by_key[KEYS[0].x])
    assert known.by_address == {}


def test_the_loop_over_all_stands_changes() -> None:
    known = table(*(peer(number) for number in range(4)))
    for one in known:
        known.remove(one)
    assert len(known) == 0


def test_what_the_policy_asks() -> None:
    """Whether the configuration names a key: not whether it is here, and whatever its sign."""
    known = table(peer(0), peer(1, None))
    assert KEYS[0] in known
    assert PublicKey(KEYS[0].x, not KEYS[0].odd) in known
    assert KEYS[1] not in known
    assert KEYS[2] not in known
    assert KEYS[0].x not in known
    assert None not in known


# --- what people type


def test_names_are_found_in_any_case() -> None:
    one = peer(0, "Peer-US")
    known = table(one, peer(1))
    assert known.find("peer-us") is known.find("PEER-US") is one


def test_a_name_comes_before_what_it_looks_like() -> None:
    one = peer(0, "100.64.0.3")
    assert table(one, peer(1)).find("100.64.0.3") is one


def test_an_ipv6_address_in_any_notation() -> None:
    one = peer(0)
    known = table(one)
    assert known.find("fd00::2") is known.find("FD00:0:0:0:0:0:0:2") is one


def test_a_key_and_its_negation_are_found_alike() -> None:
    one = peer(0)
    assert table(one).find(PublicKey(KEYS[0].x, not KEYS[0].odd).name) is one


@pytest.mark.parametrize(
    "text", ["", "x", "nobody", "100.64.0.99", "fd00::99", "1.2.3", "x" * 31, "-", "::1%eth0"]
)
def test_nobody(text: str) -> None:
    assert table(peer(0)).find(text) is None


def test_a_good_key_that_nobody_has() -> None:
    assert table(peer(0)).find(KEYS[5].name) is None


def test_a_mistyped_key_is_told_apart() -> None:
    name = KEYS[0].name
    wrong = ("b" if name[10] != "b" else "c").join((name[:10], name[11:]))
    for text in (wrong, name[:-1], "x" * 40, "0" * 64, KEYS[0].base58 + "1"):
        with pytest.raises(BadKey):
            table(peer(0)).find(text)


# Invariant: any text finds a peer or nobody, or raises BadKey.
@given(
    st.one_of(
        st.text(), st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=50, max_size=60), st.ip_addresses()
    )
)
def test_any_text(text: Any) -> None:
    known = table(peer(0))
    with suppress(BadKey):
        assert known.find(str(text)) in (None, known.by_key[KEYS[0].x])


def test_an_idle_peer_is_small() -> None:
    """There may be 100,000. The table's part of it, without key and settings."""
    one = peer(0)
    assert not hasattr(one, "__dict__")
    assert sys.getsizeof(one) + sys.getsizeof(one.address4) + sys.getsizeof(one.address6) < 200


# --- indices


def numbers(*values: int) -> Callable[[int], bytes]:
    """A source of randomness that gives these."""
    left = iter(values)

    def random(size: int) -> bytes:
        assert size == 4
        return next(left).to_bytes(4, "little")

    return random


def test_an_index_is_random_and_never_0() -> None:
    indices = Indices(numbers(0, 0, 7, 0xFFFFFFFF))
    owner: Any = object()
    assert indices.new(owner) == 7
    assert indices.new(owner) == 0xFFFFFFFF
    assert indices.tunnels == {7: owner, 0xFFFFFFFF: owner}


def test_an_index_that_is_taken_is_not_given_again() -> None:
    indices = Indices(numbers(7, 7, 7, 8, 7))
    one: Any = "one"
    other: Any = "other"
    assert indices.new(one) == 7
    assert indices.new(other) == 8
    indices.openings[7] = "opening"
    indices.free(7)
    assert (indices.tunnels, indices.openings) == ({8: other}, {})
    assert indices.new(other) == 7


def test_free_is_harmless_when_repeated() -> None:
    indices = Indices(numbers(7))
    indices.new("one")  # type: ignore[arg-type]
    for _ in range(2):
        indices.free(7)
    indices.free(12345)
    assert indices.tunnels == {}
