"""Packets by scapy, which knows nothing of ours: what a host sends, what its frame carries, what another host gets."""

from __future__ import annotations

import ipaddress
import logging
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP  # noqa: E402
from scapy.layers.inet6 import (  # noqa: E402
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    ICMPv6Unknown,
    IPv6,
)
from scapy.packet import Packet, Raw  # noqa: E402

NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1}
KINDS = ("tcp", "udp", "icmp")


def text(address: bytes) -> str:
    return str(ipaddress.ip_address(address))


def ip(source: bytes, target: bytes, traffic: int, hops: int, **fields: Any) -> Packet:
    """An IP header; in IPv4 with the fields that a host may choose."""
    if len(source) == 4:
        return IP(src=text(source), dst=text(target), tos=traffic, ttl=hops, **fields)
    fields = {"fl": fields.get("id", 0)}
    return IPv6(src=text(source), dst=text(target), tc=traffic, hlim=hops, **fields)


@dataclass(frozen=True)
class Case:
    """A packet without its addresses. `upper` has no checksum yet: scapy computes it for each pair of them."""

    v6: bool
    kind: str
    upper: Packet
    traffic: int
    hops: int

    @property
    def head(self) -> int:
        return 40 if self.v6 else 20

    def sent(self, source: bytes, target: bytes, **fields: Any) -> bytes:
        return bytes(ip(source, target, self.traffic, self.hops, **fields) / self.upper.copy())

    def received(self, source: bytes, target: bytes) -> bytes:
        """As protocol §6 says a receiver writes it."""
        fields = {} if self.v6 else {"id": 0, "flags": "DF"}
        return bytes(ip(source, target, self.traffic, self.hops, **fields) / self.upper.copy())

    def frame(self) -> bytes:
        """The frame: the packet between zero addresses, without its IP header."""
        zero = bytes(16 if self.v6 else 4)
        return (
            bytes((NUMBERS[self.kind], int(self.v6), self.traffic, self.hops))
            + self.sent(zero, zero)[self.head :]
        )


bytes_ = st.integers(0, 255)
ports = st.integers(0, 0xFFFF)
words = st.integers(0, 0xFFFFFFFF)
addresses4 = st.tuples(st.binary(min_size=4, max_size=4), st.binary(min_size=4, max_size=4))
addresses6 = st.tuples(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
payloads = st.binary(max_size=80)

tcp_options = st.lists(
    st.sampled_from(
        [("MSS", 1460), ("NOP", None), ("WScale", 7), ("SAckOK", b""), ("Timestamp", (1, 2)), ("MSS", 0xFFFF)]
    ),
    max_size=4,
)


@st.composite
def tcp(draw: Any) -> Packet:
    return TCP(
        sport=draw(ports),
        dport=draw(ports),
        seq=draw(words),
        ack=draw(words),
        flags=draw(bytes_),
        window=draw(ports),
        options=draw(tcp_options),
    ) / Raw(draw(payloads))


@st.composite
def udp(draw: Any) -> Packet:
    return UDP(sport=draw(ports), dport=draw(ports)) / Raw(draw(payloads))


@st.composite
def echo(draw: Any, v6: bool) -> Packet:
    fields = {"id": draw(ports), "seq": draw(ports)}
    if v6:
        return draw(st.sampled_from((ICMPv6EchoRequest, ICMPv6EchoReply)))(data=draw(payloads), **fields)
    return ICMP(type=draw(st.sampled_from((0, 8))), **fields) / Raw(draw(payloads))


@st.composite
def cases(draw: Any) -> Case:
    v6, kind = draw(st.booleans()), draw(st.sampled_from(KINDS))
    upper = draw({"tcp": tcp, "udp": udp}[kind]() if kind != "icmp" else echo(v6))
    return Case(v6, kind, upper, draw(bytes_), draw(bytes_))


def addresses(v6: bool) -> Any:
    return addresses6 if v6 else addresses4


ERRORS6 = {1: ICMPv6DestUnreach, 2: ICMPv6PacketTooBig, 3: ICMPv6TimeExceeded}


def error(source: bytes, target: bytes, quote: bytes, kind: int, code: int, rest: int = 0) -> bytes:
    """An ICMP error from `source` to `target` around these bytes, as whole packet."""
    if len(source) == 4:
        message = ICMP(bytes((kind, code, 0, 0)) + rest.to_bytes(4, "big"))
        del message.chksum
        return bytes(IP(src=text(source), dst=text(target), id=0, flags="DF") / message / Raw(quote))
    if kind in ERRORS6:
        field = "mtu" if kind == 2 else "unused"
        return bytes(ip(source, target, 0, 64) / ERRORS6[kind](code=code, **{field: rest}) / Raw(quote))
    body = ICMPv6Unknown(type=kind, code=code, msgbody=rest.to_bytes(4, "big") + quote)
    return bytes(ip(source, target, 0, 64) / body)


def quoted_under(quote: bytes, source: bytes, target: bytes) -> bytes:
    """The head of a packet with other addresses, and in IPv4 the header checksum to them; all else as it was."""
    if len(source) == 16:
        return quote[:8] + source + target + quote[40:]
    head = (quote[0] & 15) * 4
    changed = IP(quote)
    changed.src, changed.dst = text(source), text(target)
    del changed.chksum
    return bytes(changed)[:head] + quote[head:]


def ip_with_options(source: bytes, target: bytes, count: int = 4) -> Packet:
    return IP(src=text(source), dst=text(target), options=[IPOption_NOP()] * count)
