"""What peers need of this machine: a key, a port, and a kernel that moves datagrams many at a time."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

from zignet.config import Config, PeerConfig
from zignet.system.check import Check, State, fail, ok, warn
from zignet.system.privileges import instance

__all__ = ["checks"]

_ADVICE_NAME = "peers that are behind a NAT can't find this one by it; check the name, or write an address"
_LOOKED_UP = 20  # endpoints with a name


def checks(config: Config) -> list[Check]:
    """Nothing where no peers are configured."""
    if not config.listening:
        return []
    return [_key(config), _port(config), _offload(), _cipher(config), *_packets(config), *_endpoints(config)]


def _key(config: Config) -> Check:
    from zignet.identity import KeyFileError, read_key

    try:
        return ok("identity", f"{read_key(config.identity_file).public.name} ({config.identity_file})")
    except KeyFileError as error:
        return fail("identity", str(error), "`zignet init` makes a key, `zignet key import` brings one along")


def _port(config: Config) -> Check:
    from zignet.transport import Udp, UdpError

    (listen,) = config.listening
    try:
        Udp.open(listen.host, listen.port).close()
    except UdpError as error:
        if instance(config).state is State.WARN:  # a node holds the state directory
            return ok("underlay port", f"{listen} is this configuration's running node's")
        return fail("underlay port", str(error), "free the port, or choose another in `listen`")
    return ok(
        "underlay port", f"{listen} is free; peers behind no NAT of their own need it open in the firewall"
    )


def _offload() -> Check:
    from zignet.transport.udp import UDP_GRO, UDP_SEGMENT

    missing = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for name, option in (("UDP_SEGMENT", UDP_SEGMENT), ("UDP_GRO", UDP_GRO)):
            try:
                probe.setsockopt(socket.IPPROTO_UDP, option, 1)
            except OSError:
                missing.append(name)
    if missing:
        lacks = " and ".join(missing)
        return warn(
            "UDP offload", f"the kernel lacks {lacks}", "it works, slower; Linux 5.0 and newer have both"
        )
    return ok("UDP offload", "UDP_SEGMENT and UDP_GRO: up to 64 datagrams a call")


def _cipher(config: Config) -> Check:
    from zignet.noise import Suite
    from zignet.peers.hardware import has_aes, proposes_aes
    from zignet.peers.report import CIPHERS

    aes, proposed = has_aes(), proposes_aes(config.cipher)
    chosen = CIPHERS[Suite.AES if proposed else Suite.CHACHA]
    if proposed and not aes:
        return warn(
            "cipher", f"{chosen} is configured, without AES instructions", "`cipher: auto` is faster here"
        )
    return ok("cipher", f"{chosen} is proposed; AES instructions: {'yes' if aes else 'no'}")


def _packets(config: Config) -> list[Check]:
    """What it takes to send peers' packets on, if this host does."""
    from zignet.system.forwarding import state

    name = "whole packets"
    if not config.exit.packets:
        return []
    if not config.exit.allow:
        return [
            warn(name, "exit.packets, but exit.allow names nobody", "name peers in `exit.allow`, or `all`")
        ]
    program, forwarded = state()
    if program is None:
        return [fail(name, "there is no `nft`, which sets the rules for `exit.packets`", "install nftables")]
    how = "is on" if forwarded else "is off, and is switched on while the node runs"
    return [ok(name, f"{program} sets the rules; forwarding {how}; other firewalls have to let it pass")]


def _endpoints(config: Config) -> list[Check]:
    """One for each endpoint with a name; they are looked up side by side."""
    from zignet.peers.endpoints import is_numeric, split

    named = [peer for peer in config.peers if peer.endpoint and not is_numeric(split(peer.endpoint)[0])]
    with ThreadPoolExecutor(_LOOKED_UP) as pool:
        return list(pool.map(_endpoint, named[:_LOOKED_UP]))


def _endpoint(peer: PeerConfig) -> Check:
    from zignet.peers.endpoints import split

    host, port = split(peer.endpoint or "")
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        return warn(f"peer {peer.name}", f"{host} does not resolve: {error}", _ADVICE_NAME)
    return ok(f"peer {peer.name}", f"{host} is {addresses[0][4][0]}")
