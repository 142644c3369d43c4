"""Hosts as proxies want to read them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat.exit import Target
from zignet.exits.names import address_text, authority, host_port, is_sendable


@pytest.mark.parametrize(
    "name", ["a", "www.video.example", "xn--bcher-kva.example", "_dns.example", "A.b", "a" * 255]
)
def test_sendable(name: str) -> None:
    assert is_sendable(name)


@pytest.mark.parametrize(
    "name", ["", "a" * 256, "a b", "a\n", "a:1", "[::1]", "a/b", "é.example", "a@b", "a\0"]
)
def test_not_sendable(name: str) -> None:
    assert not is_sendable(name)


@given(st.ip_addresses())
def test_addresses_read_back(address: object) -> None:
    packed = ip_address(str(address)).packed
    assert ip_address(address_text(packed)).packed == packed


def test_authority() -> None:
    four, six = bytes((192, 0, 2, 1)), ip_address("2001:db8::1").packed
    assert host_port(four, 80) == authority(Target(four, 80)) == "192.0.2.1:80"
    assert host_port(six, 80) == authority(Target(six, 80)) == "[2001:db8::1]:80"
    assert authority(Target(six, 80, "a.example")) == "a.example:80"
