"""The values themselves: derived addresses, defaults, JSON."""

from __future__ import annotations

import dataclasses
import json
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zignet.config import Config, TunConfig, parse_config


@pytest.mark.parametrize(
    ("text", "address", "aliases"),
    [
        ("100.64.0.0/10", "100.64.0.1", "100.127.0.0/16"),
        ("10.0.0.0/8", "10.0.0.1", "10.255.0.0/16"),
        ("10.2.0.0/15", "10.2.0.1", "10.3.0.0/16"),
        ("10.2.0.0/16", "10.2.0.1", "10.2.128.0/17"),
        ("192.168.7.0/24", "192.168.7.1", "192.168.7.128/25"),
    ],
)
def test_ipv4_addresses_of_a_range(text: str, address: str, aliases: str):
    tun = TunConfig(range=IPv4Network(text))
    assert (str(tun.address), str(tun.aliases)) == (address, aliases)


@pytest.mark.parametrize(
    ("text", "address", "aliases"),
    [
        ("fd5a:6967:6e65::/48", "fd5a:6967:6e65::1", "fd5a:6967:6e65:ffff::/64"),
        ("fd00:1:2:3::/64", "fd00:1:2:3::1", "fd00:1:2:3:8000::/65"),
    ],
)
def test_ipv6_addresses_of_a_range(text: str, address: str, aliases: str):
    tun = TunConfig(range6=IPv6Network(text))
    assert (str(tun.address6), str(tun.aliases6)) == (address, aliases)


@given(st.integers(8, 24), st.integers(0, 255))
def test_our_own_address_is_never_an_alias(length: int, second: int):
    tun = TunConfig(range=IPv4Network((bytes((10, second, 0, 0)), length), strict=False))
    assert tun.address in tun.range
    assert tun.aliases.subnet_of(tun.range)
    assert tun.address not in tun.aliases


def test_what_holds_without_a_file():
    config = Config.default()
    assert config == Config()
    assert config == parse_config("")
    assert config.state_dir == Path.home() / ".zignet"
    assert (config.mark, config.table) == (0x7A67, 31335)
    assert (config.limits.flows, config.limits.half_open, config.limits.udp) == (65536, 8192, 16384)
    assert (config.sniff.timeout_s, config.sniff.limit) == (0.3, 16384)
    timeouts = config.timeouts
    assert (timeouts.tcp_idle_s, timeouts.udp_idle_s, timeouts.dns_idle_s, timeouts.dial_s) == (
        3600,
        60,
        30,
        30,
    )
    assert len(config.routes) == 0


def test_it_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().mark = 1  # type: ignore[misc]


def test_json_has_the_files_words_and_reads_back():
    text = """
tun: {name: zig9, device: fd:5, range: 10.9.0.0/16}
exits: {tokyo: {type: socks5, address: "192.0.2.1:1080", udp: off}}
routes: ["*.a.example -> tokyo"]
sniff: {timeout: 150ms, server_first: [2200]}
timeouts: {tcp: 2h}
"""
    shown = json.loads(json.dumps(parse_config(text, "f.yaml").to_json()))
    assert shown["tun"]["device"] == "fd:5"
    assert shown["tun"]["range"] == "10.9.0.0/16"
    assert "descriptor" not in shown["tun"]
    assert shown["sniff"] == {"timeout": 0.15, "limit": 16384, "server_first": [2200]}
    assert shown["timeouts"]["tcp"] == 7200
    assert shown["exits"]["tokyo"]["udp"] is False
    assert shown["routes"] == [{"rule": "*.a.example -> tokyo", "where": "f.yaml:4"}]
    for section in ("tun", "proxy", "limits", "sniff", "timeouts"):
        again = parse_config(json.dumps({section: shown[section]}))
        assert again.to_json()[section] == shown[section]
