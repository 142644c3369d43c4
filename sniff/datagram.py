"""The front for UDP: QUIC's client Initial packets, versions 1, 2 and draft-29."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from sniff.outcome import LIMIT, NEED_MORE, NOT_THIS, Answer, Found
from sniff.quic import CryptoStream, LongPacket, Malformed, crypto_frames, packet_number, packets
from sniff.tls import client_hello

if TYPE_CHECKING:
    from sniff.quic_keys import InitialKeys

__all__ = ["DatagramSniffer"]

_MAX_DATAGRAMS = 8
_MAX_PACKETS = 8  # of one datagram; each that does not open costs a derivation of keys
_MESSAGE_HEADER = 4  # of a TLS handshake message: type, length
_CLIENT_HELLO = 1

_RESERVED_OR_NUMBER_SIZE = 0x0F  # what header protection covers of a long header's first byte
_SAMPLE_OFFSET = 4  # bytes from the packet number on, RFC 9001 §5.4.2
_SAMPLE_SIZE = 16


class DatagramSniffer:
    """Sniffs one UDP flow. Keeps no datagram, only what was learned of it."""

    __slots__ = ("_answer", "_cid", "_crypto", "_datagrams", "_keys", "_largest", "_limit")

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit  # bytes of the CRYPTO stream
        self._answer: Answer = NEED_MORE
        self._datagrams = 0
        self._keys: dict[bytes, InitialKeys] = {}  # by salt: one for each version in use
        self._cid: bytes | None = None  # the connection ID that the keys are of; None before the first
        self._largest = -1  # largest packet number seen
        self._crypto: CryptoStream | None = None

    def feed(self, datagram: bytes | bytearray | memoryview) -> Answer:
        """The answer after this whole datagram of the client's. A final answer stays the same for ever."""
        if self._answer is not NEED_MORE:
            return self._answer
        try:
            answer = self._read(bytes(datagram))
        except Malformed:
            answer = NOT_THIS
        self._datagrams += 1
        if answer is NEED_MORE and self._datagrams >= _MAX_DATAGRAMS:
            answer = NOT_THIS
        if answer is not NEED_MORE:
            self._crypto = None
            self._keys = {}
        self._answer = answer
        return answer

    def _read(self, datagram: bytes) -> Answer:
        """Takes in the Initial packets of a datagram; others (0-RTT, say) may come along or ahead of them."""
        sensible = self._crypto is not None
        for packet in islice(packets(datagram), _MAX_PACKETS):
            if packet.initial:
                payload = self._open(datagram, packet)
                if payload is None:
                    continue
                answer = self._take(payload)
                if answer is not NEED_MORE:
                    return answer
            sensible = True
        return NEED_MORE if sensible else NOT_THIS

    def _take(self, payload: bytes) -> Answer:
        """Adds the CRYPTO frames of a packet, and reads the ClientHello once it is whole."""
        crypto = self._crypto
        if crypto is None:
            crypto = self._crypto = CryptoStream(self._limit)
        closed = False
        for frame in crypto_frames(payload):
            if frame is None:
                closed = True
            else:
                crypto.add(*frame)
        crypto.settle()
        hello = crypto.received
        if hello and hello[0] != _CLIENT_HELLO:
            return NOT_THIS
        if len(hello) >= _MESSAGE_HEADER:
            size = _MESSAGE_HEADER + int.from_bytes(hello[1:_MESSAGE_HEADER], "big")
            if size > self._limit:
                return NOT_THIS
            if len(hello) >= size:
                return client_hello(hello, 0, size, "quic")
        return Found("quic", "") if closed else NEED_MORE

    def _open(self, datagram: bytes, packet: LongPacket) -> bytes | None:
        """The frames of an Initial packet; None when no keys of this flow fit it.

        A client goes on with its first keys when the server names another connection ID, but takes new ones
        after a Retry (RFC 9001 §5.2): the keys at hand are tried first, then those of the packet's own ID.
        """
        if self._cid is not None:
            payload = self._open_with(datagram, packet)
            if payload is not None or self._cid == packet.destination_cid:
                return payload
        before = self._cid, self._keys
        self._cid, self._keys = packet.destination_cid, {}
        payload = self._open_with(datagram, packet)
        if payload is None:
            self._cid, self._keys = before
        else:
            self._crypto = None  # the ClientHello begins anew
        return payload

    def _open_with(self, datagram: bytes, packet: LongPacket) -> bytes | None:
        """The frames of a packet, opened with the keys of `_cid`; None when they do not fit."""
        from sniff.quic_keys import header_mask, initial_keys, open_payload  # 11 MiB: only where QUIC is seen

        cid, version = self._cid or b"", packet.version
        keys = self._keys.get(version.salt)
        if keys is None:
            keys = self._keys[version.salt] = initial_keys(cid, version.salt, version.label)
        sample = packet.number + _SAMPLE_OFFSET
        if sample + _SAMPLE_SIZE > packet.stop:
            return None
        mask = header_mask(keys, datagram[sample : sample + _SAMPLE_SIZE])
        first = datagram[packet.start] ^ mask[0] & _RESERVED_OR_NUMBER_SIZE
        size = (first & 3) + 1
        masked = int.from_bytes(datagram[packet.number : packet.number + size], "big")
        truncated = masked ^ int.from_bytes(mask[1 : 1 + size], "big")
        body = packet.number + size
        header = (
            bytes((first,)) + datagram[packet.start + 1 : packet.number] + truncated.to_bytes(size, "big")
        )
        number = packet_number(truncated, size, self._largest)
        payload = open_payload(keys, number, header, datagram[body : packet.stop])
        if payload is not None:
            self._largest = max(self._largest, number)
        return payload
