"""The values themselves: derived addresses, defaults, JSON."""

from __future__ import annotations

import dataclasses
import json
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zignet.config import Config, InboundConfig, Listen, PeerConfig, TunConfig, parse_config
from zignet.identity import PublicKey, SecretKey


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
    assert (config.listen, config.peers, config.inbound) == ((), (), InboundConfig())
    assert config.inbound.default_action == "deny"
    assert (config.cipher, config.key_log, config.tun.peer_mtu) == ("auto", None, 1420)


KEY = SecretKey(bytes(32)).public
OTHER = SecretKey(bytes(31) + b"\1").public


def test_where_it_listens():
    assert Config().listening == ()
    assert parse_config("inbound: {default_action: deny}").listening == ()
    usual = (Listen("::", 51830),)
    assert parse_config("inbound: {default_action: allow}").listening == usual
    assert parse_config(f"inbound: {{allow: [{KEY}]}}").listening == usual
    assert parse_config(f"peers: [{{name: a, key: {KEY}}}]").listening == usual
    text = f"listen: ['udp://192.0.2.1:7']\npeers: [{{name: a, key: {KEY}}}]"
    assert parse_config(text).listening == (Listen("192.0.2.1", 7),)


def test_where_the_key_is(tmp_path: Path):
    assert Config(state_dir=tmp_path).identity_file == tmp_path / "identity"
    config = parse_config("key_file: ./my.key\nkey_log: /tmp/log", tmp_path / "z.yaml")
    assert config.identity_file == tmp_path / "my.key"
    assert config.key_log == Path("/tmp/log")


def test_routes_to_peers_fit_the_interface():
    assert TunConfig(mtu=1280).route_mtu == 1280
    assert TunConfig(mtu=9000, peer_mtu=8920).route_mtu == 8920


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


def test_json_of_peers_reads_back():
    text = f"""
listen: ["udp://[::]:51830"]
peers:
  - {{name: us, key: {KEY}, endpoint: "[2001:db8::1]:51830", keepalive: 25, address: 100.64.0.7}}
  - {{name: de, key: {OTHER.base58}}}
inbound: {{default_action: allow, deny: [{OTHER.hex}]}}
cipher: aes
"""
    shown = json.loads(json.dumps(parse_config(text).to_json()))
    assert shown["listen"] == ["udp://[::]:51830"]
    expected = {
        "default_action": "allow",
        "allow": [],
        "deny": [OTHER.name],
        "policies": [],
        "recheck": 300.0,
        "services": "all",
    }
    assert shown["inbound"] == expected
    assert shown["peers"][0] == {
        "name": "us",
        "key": KEY.name,
        "endpoint": "[2001:db8::1]:51830",
        "psk_file": None,
        "keepalive": 25,
        "address": "100.64.0.7",
    }
    shown["peers"] = [
        {key: value for key, value in peer.items() if value is not None} for peer in shown["peers"]
    ]
    for section in ("listen", "peers", "inbound", "cipher"):
        again = parse_config(json.dumps({section: shown[section]}))
        assert getattr(again, section) == getattr(parse_config(text), section)


def test_a_reload_sees_what_changed():
    first, second = (
        PeerConfig("a", PublicKey.from_bytes(KEY.ed), address=IPv4Address("100.64.0.9")) for _ in "ab"
    )
    assert Config(peers=(first,)) == Config(peers=(second,))
    assert Config(peers=(first,)) != Config(peers=(dataclasses.replace(second, keepalive_s=5),))
    assert first != dataclasses.replace(first, key=OTHER)
