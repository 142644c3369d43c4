"""What a datagram says, for people who look at packets: values fit for JSON, never a key.

    Describer.message -> the message (§2)  -> _frame (§6) -> _tcp, _udp, _icmp, _control (§7), _fragment

Nothing here raises for what is in a datagram: what can't be read is said to be so.
"""

from __future__ import annotations

from dataclasses import fields
from enum import IntEnum
from ipaddress import IPv6Address
from typing import Any

from nat.header import (
    ICMP_CODE,
    ICMP_LENGTH,
    ICMP_REST,
    ICMP_TYPE,
    TCP_ACKNOWLEDGEMENT,
    TCP_DATA_OFFSET,
    TCP_FLAGS,
    TCP_LENGTH,
    TCP_SEQUENCE,
    TCP_WINDOW,
    UDP_DATAGRAM_LENGTH,
    UDP_LENGTH,
)
from nat.header import Protocol as Ip
from nat.packet import Packet
from zignet.noise import MessageType, Suite
from zignet.wire.bundle import unbundle
from zignet.wire.data import DATA_HEADER, TAG, BadDatagram, kind_of, parse_data, unseal
from zignet.wire.exit import parse_exit
from zignet.wire.fragment import FRAGMENT_HEADER, Budget, Fragments
from zignet.wire.frame import (
    FRAME_HEADER,
    Answer,
    BadFrame,
    Challenge,
    Farewell,
    Flag,
    Offers,
    Protocol,
    Refused,
    is_known,
    parse_control,
)
from zignet.wire.icmp import is_error
from zignet.wire.keylog import KeyLog
from zignet.wire.offers import parse_offers

__all__ = ["Describer", "Facts"]

Facts = dict[str, Any]

_TCP_LETTERS = "FSRP.UEW"  # from bit 0 up, as tcpdump writes them
_QUOTED = {Ip.TCP: "tcp", Ip.UDP: "udp", Ip.ICMP: "icmp", Ip.ICMPV6: "icmp"}


class Describer:
    """Describes messages one by one; remembers no more than the pieces of unfinished frames."""

    def __init__(self, keys: KeyLog | None = None) -> None:
        self._keys = keys or KeyLog()
        self._budget = Budget()
        self._pieces: dict[tuple[int, int, bool], Fragments] = {}
        self._quote = bytearray(2048)
        self._packet = Packet(self._quote)
        self.unopened = 0  # data messages of sessions whose keys are not there

    def message(self, payload: memoryview, now: float, missing: int = 0) -> Facts | None:
        """A message, of which the capture does not have the last `missing` bytes; None: it is none of ours."""
        kind = kind_of(memoryview(bytes(payload) + bytes(missing)) if missing else payload)
        if kind is None:
            return None
        facts: Facts = {"message": kind.name.lower(), "length": len(payload) + missing}
        if missing:
            facts["missing"] = missing
        if kind is MessageType.DATA:
            return facts | self._data(payload, now, missing)
        return facts | self._handshake(kind, payload)

    def _handshake(self, kind: MessageType, payload: memoryview) -> Facts:
        first, second = _little(payload[4:8]), _little(payload[8:12])
        if kind is MessageType.COOKIE:
            return {"to_index": _hex(first)}
        facts: Facts = {"suite": Suite(payload[1]).name.lower(), "index": _hex(first)}
        if kind is MessageType.INITIATION:
            facts["dst"] = payload[8:40].hex()
        else:
            facts["to_index"] = _hex(second)
        for session, _, to_other in self._keys.find(first):
            return facts | {
                "peer": session.peer,
                "sent": not to_other,
            }  # the sender's index: it receives by it
        return facts

    # --- data messages

    def _data(self, payload: memoryview, now: float, missing: int) -> Facts:
        try:
            index, counter = parse_data(bytes(payload) + bytes(missing) if missing else payload)
        except BadDatagram as error:
            return {"sealed": str(error)}
        facts: Facts = {"index": _hex(index), "counter": counter}
        known = self._keys.find(index)
        if missing:
            return facts | {"sealed": "the capture does not have all of it"}
        for session, key, sent in known:
            try:
                frame = unseal(Suite(session.suite), key, payload)
            except BadDatagram:
                continue
            pieces = (session.local_index, session.remote_index, sent)
            return facts | {"peer": session.peer, "sent": sent, "frame": self._frame(frame, pieces, now)}
        self.unopened += not known
        return facts | {"sealed": "the seal is not good" if known else "no key"}

    def _frame(self, frame: bytes, pieces: tuple[int, int, bool] | None, now: float) -> Facts:
        if len(frame) < FRAME_HEADER:
            return {"malformed": "shorter than a frame header"}
        if frame[0] == Protocol.CONTROL:
            return _control(frame)
        if not is_known(frame):
            return {"protocol": frame[0], "flags": frame[1], "malformed": "unknown protocol or flags"}
        number, flags, body = Protocol(frame[0]), frame[1], frame[FRAME_HEADER:]
        facts: Facts = {"protocol": number.name.lower()}
        if number is Protocol.FRAGMENT:
            return facts | self._fragment(frame, pieces, now)
        if number is Protocol.WHOLE:
            return facts | {"packet": self._quoted(body), "payload": len(body)}
        if number is Protocol.BUNDLE:
            return facts | self._bundle(frame)
        if flags & Flag.EXIT:
            return facts | self._exit(frame)
        facts |= {"version": 6 if flags & Flag.V6 else 4, "partial": bool(flags & Flag.PARTIAL)}
        facts |= {"traffic_class": frame[2], "hop_limit": frame[3]}
        if number is Protocol.TCP:
            return facts | _tcp(body)
        if number is Protocol.UDP:
            return facts | _udp(body)
        return facts | self._icmp(body, bool(flags & Flag.V6))

    def _fragment(self, frame: bytes, pieces: tuple[int, int, bool] | None, now: float) -> Facts:
        if len(frame) < FRAGMENT_HEADER or pieces is None:
            return {"malformed": "shorter than a fragment header" if pieces else "a fragment in a fragment"}
        number, offset, length = _big(frame[4:8]), _big(frame[8:10]), _big(frame[10:12])
        facts: Facts = {
            "number": number,
            "offset": offset,
            "of": length,
            "payload": len(frame) - FRAGMENT_HEADER,
        }
        joined = self._pieces.setdefault(pieces, Fragments(self._budget)).add(frame, now)
        return facts if joined is None else facts | {"whole": self._frame(joined, None, now)}

    def _exit(self, frame: bytes) -> Facts:
        try:
            flow = parse_exit(frame)
        except BadFrame as error:
            return {"malformed": str(error)}
        facts: Facts = {"exit": "back" if flow.back else "out", "destination": flow.number}
        if flow.meaning:
            facts["destination_name"] = flow.meaning
        return facts | self._frame(flow.frame, None, 0.0)

    def _bundle(self, frame: bytes) -> Facts:
        frames, fault = unbundle(frame)
        facts: Facts = {"frames": [self._frame(inner, None, 0.0) for inner in frames]}
        return facts | {"malformed": fault} if fault else facts

    def _icmp(self, body: bytes, v6: bool) -> Facts:
        if len(body) < ICMP_LENGTH:
            return {"malformed": "shorter than its transport header"}
        kind = body[ICMP_TYPE]
        facts: Facts = {"icmp_type": kind, "icmp_code": body[ICMP_CODE], "payload": len(body) - ICMP_LENGTH}
        if is_error(v6, kind):
            return facts | {"about": self._quoted(body[ICMP_LENGTH:])}
        if kind in ((128, 129) if v6 else (0, 8)):
            rest = body[ICMP_REST:ICMP_LENGTH]
            return facts | {"identifier": _big(rest[:2]), "sequence": _big(rest[2:])}
        return facts

    def _quoted(self, packet: bytes) -> Facts:
        """The head of an IP packet inside."""
        head = packet[: len(self._quote)]
        self._quote[: len(head)] = head
        view = self._packet
        if view.parse(0, len(head), quoted=True):
            return {"malformed": "no IP packet"}
        facts: Facts = {"version": view.version, "protocol": _QUOTED.get(view.protocol, view.protocol)}
        if view.has_transport and view.protocol in (Ip.TCP, Ip.UDP):
            facts |= {"source_port": view.source_port, "target_port": view.target_port}
        return facts


def _tcp(body: bytes) -> Facts:
    if len(body) < TCP_LENGTH or not TCP_LENGTH <= (head := (body[TCP_DATA_OFFSET] >> 4) * 4) <= len(body):
        return {"malformed": "no TCP header"}
    flags = body[TCP_FLAGS]
    return {
        "source_port": _big(body[0:2]),
        "target_port": _big(body[2:4]),
        "tcp_flags": "".join(letter for bit, letter in enumerate(_TCP_LETTERS) if flags >> bit & 1) or "none",
        "seq": _big(body[TCP_SEQUENCE : TCP_SEQUENCE + 4]),
        "ack": _big(body[TCP_ACKNOWLEDGEMENT : TCP_ACKNOWLEDGEMENT + 4]),
        "window": _big(body[TCP_WINDOW : TCP_WINDOW + 2]),
        "payload": len(body) - head,
    }


def _udp(body: bytes) -> Facts:
    size = _big(body[UDP_DATAGRAM_LENGTH : UDP_DATAGRAM_LENGTH + 2])
    if len(body) < UDP_LENGTH or not UDP_LENGTH <= size <= len(body):
        return {"malformed": "no UDP header"}
    return {"source_port": _big(body[0:2]), "target_port": _big(body[2:4]), "payload": size - UDP_LENGTH}


def _control(frame: bytes) -> Facts:
    facts: Facts = {"protocol": "control"}
    try:
        control = parse_control(frame)
    except BadFrame as error:
        return facts | {"control": frame[1], "malformed": str(error)}
    facts["control"] = type(control).__name__.lower()
    for one in fields(control):
        value = getattr(control, one.name)
        name = f"refused_{one.name}" if one.name in ("flags", "protocol") else one.name
        facts[name] = value.hex() if isinstance(value, bytes) else int(value)
    if isinstance(control, Answer):
        address = IPv6Address(control.address)
        facts["address"] = str(address.ipv4_mapped or address)
    elif isinstance(control, Challenge):
        facts["datagram"] = DATA_HEADER + len(frame) + TAG
    elif isinstance(control, Offers):
        try:
            offers = [
                f"{offer.name} {Protocol(offer.protocol).name.lower()}/{offer.port}"
                for offer in parse_offers(control.body)
            ]
        except BadFrame as error:
            offers = [f"malformed: {error}"]
        facts["because"] = ", ".join(offers) or "nothing"
    elif isinstance(control, Refused | Farewell) and isinstance(control.reason, IntEnum):
        facts["because"] = control.reason.name.lower().replace("_", " ")
    return facts


def _hex(index: int) -> str:
    return f"{index:08x}"


def _little(data: memoryview) -> int:
    return int.from_bytes(data, "little")


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")
