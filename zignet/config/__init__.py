"""The configuration: a YAML file in, one frozen `Config` out, or every mistake in it with its line and key.

    load_config(path)    the file and what it names, rule lines checked; raises `ConfigError`
    parse_config(text)   the same for text in memory
    Config()             what holds without a file

The file's keys are the fields of the dataclasses in `model`, each with the reader that understands its value:

    state_dir: ~/.zignet
    key_file: ~/.zignet/identity
    listen: ["udp://[::]:51830"]
    peers:
      - {name: peer_us, key: ..., endpoint: "203.0.113.9:51830", psk_file: ./us.psk, keepalive: 25}
      - file: ./peers.txt
    inbound: {default_action: deny, allow: [...], deny: [], policies: [...], recheck: 5m}
    exit:    {allow: [peer_us], ports: [80, 443], private: false, tcp: true, udp: true}
    admin:   {http: yes}
    cipher: auto
    tun:    {name: zig0, mtu: 1500, range: 100.64.0.0/10, listener: loopback, offload: auto}
    proxy:  {mode: global, bypass: [192.168.0.0/16]}
    exits:
      tokyo: {type: socks5, address: 192.0.2.10:1080, username: me, password_file: ./pw}
    routes:
      - "*.video.example -> tokyo"
      - file: ./more-rules.txt
      - MATCH,direct
    limits:   {flows: 65536, half_open: 8192, udp: 16384}
    sniff:    {timeout: 300ms, limit: 16KiB, server_first: [2200]}
    timeouts: {tcp: 1h, udp: 60s, dns: 30s, dial: 30s}
    dns:      {listen: ["127.0.0.1:53530"], fake: ["*.anime.example"], real: [ntp.video.example]}
    mark: 0x7a67
    table: 31335

No secret is ever shown of it: passwords and keys live in files of their own, which are named here and read by who needs
them, but for the URL of a database, which shows itself without its password.
"""

from zignet.config.load import load_config, parse_config
from zignet.config.model import (
    AdminConfig,
    Config,
    DnsConfig,
    DnsServer,
    ExitConfig,
    InboundConfig,
    LimitsConfig,
    Listen,
    OfferConfig,
    PeerConfig,
    ProxyConfig,
    SniffConfig,
    TimeoutsConfig,
    TunConfig,
)
from zignet.config.policy import DatabasePolicy, FilePolicy, PolicyConfig, ScriptPolicy, SolanaPolicy
from zignet.config.problem import ConfigError, Problem
from zignet.config.url import Url

load = load_config

__all__ = [
    "AdminConfig",
    "Config",
    "ConfigError",
    "DatabasePolicy",
    "DnsConfig",
    "DnsServer",
    "ExitConfig",
    "FilePolicy",
    "InboundConfig",
    "LimitsConfig",
    "Listen",
    "OfferConfig",
    "PeerConfig",
    "PolicyConfig",
    "Problem",
    "ProxyConfig",
    "ScriptPolicy",
    "SniffConfig",
    "SolanaPolicy",
    "TimeoutsConfig",
    "TunConfig",
    "Url",
    "load",
    "load_config",
    "parse_config",
]
