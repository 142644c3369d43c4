"""Whole packets on the packet path: each frame and each packet is that of the slow path, `wrap` and `unwrap`.

What a super-packet must become, and what a kernel makes of what is written, is said by `pair.cut` and `pair.kernel`.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.nat.world import NO_VIRTIO
from tests.zignet.peers.pair import (
    ALL,
    CSUM,
    ONE4,
    ONE6,
    PLACE4,
    PLACE6,
    ROOM,
    Came,
    Judge,
    as_kernel,
    cut,
    echo,
    host,
    met,
    tcp,
    trains,
    udp,
    unfinished,
)
from tests.zignet.peers.test_rare import frames_sent, joined
from zignet.wire import split, unbundle, unwrap, wrap

pytestmark = pytest.mark.packet_path

FAR4, FAR6 = bytes((203, 0, 113, 5)), bytes.fromhex("20010db8000f") + bytes(9) + b"\5"
families = pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
ways = pytest.mark.parametrize("back", [False, True], ids=["out", "back"])
patient = settings(deadline=None, max_examples=80)
SYN, ACK, PSH, FIN = 0x02, 0x10, 0x08, 0x01


def between(v6: bool, back: bool) -> tuple[bytes, bytes]:
    """From the application's host to the far end, or back: as the one that sends the frame knows it."""
    near, far = (PLACE6 if back else ONE6, FAR6) if v6 else (PLACE4 if back else ONE4, FAR4)
    return (far, near) if back else (near, far)


def give(lab: Any, link: Any, packet: bytes, virtio: bytes, back: bool) -> bool:
    """The gateway has read a packet; whether it left whole."""
    raw = (virtio if lab.device.header else b"") + packet
    lab.gateway.raw[: len(raw)] = raw
    at, length = lab.device.header, len(raw) - lab.device.header
    if back:
        lab.hub.is_answer = lambda peer, at, v6: True
        lab.sender.outward(at, length)
        left = True
    else:
        lab.hub.way = lambda key: link.peer
        left = lab.sender.whole(at, length)
    lab.sender.settle()
    return left


def inside(frames: list[bytes]) -> list[bytes]:
    return [one for frame in joined(frames) for one in (unbundle(frame)[0] if frame[0] == 255 else [frame])]


def headed(packet: bytes) -> int:
    start = 40 if packet[0] >> 4 == 6 else 20
    return start + ((packet[start + 12] >> 4) * 4 if packet[6 if start == 40 else 9] == 6 else 8)


@st.composite
def flows(draw: Any) -> tuple[bool, bool, bytes, int]:
    """(v6, back, packet, size of its segments or 0)."""
    v6, back = draw(st.booleans()), draw(st.booleans())
    ends = between(v6, back)
    size = draw(st.sampled_from((0, 1, 100, 400, 1200)))
    count = draw(st.integers(1, 6))
    length = size * (count - 1) + draw(st.integers(1, size)) if size else draw(st.integers(0, 1300))
    payload = draw(st.randoms()).randbytes(length)
    traffic, hops = draw(st.integers(0, 63)) << 2, draw(st.integers(0, 255))
    if draw(st.booleans()):
        return v6, back, udp(ends, payload, traffic=traffic, hops=hops), size
    options = draw(st.sampled_from((b"", bytes((1,)) * 12, bytes((1,)) * 40)))
    flags = draw(st.sampled_from((ACK, ACK | PSH, ACK | FIN)))
    return (
        v6,
        back,
        tcp(ends, payload, flags=flags, options=options, traffic=traffic, hops=hops, seq=2**32 - 500),
        size,
    )


@patient
@given(flows(), st.booleans())
def test_out(flow, bare):
    """Each segment is a frame; with the near address of the other side it is the kernel's own."""
    v6, back, packet, size = flow
    size = 0 if bare else size
    pieces = cut(packet, headed(packet), size) if size else [packet]
    with host(header=0 if bare else 10, plain=False) as lab:
        lab.hub.slow_whole = lab.rare.slow_whole
        link, keys = met(lab)
        virtio, raw = unfinished(packet, size) if size and len(pieces) > 1 else (NO_VIRTIO, packet)
        assert give(lab, link, raw, virtio, back)
        frames = inside(frames_sent(keys, lab.sent()))
        known_as = (PLACE6, PLACE4)[not v6]
        assert [unwrap(frame, known_as) for frame in frames] == [
            unwrap(wrap(piece, back=back), known_as) for piece in pieces
        ]
        if len(pieces) == 1:
            assert frames == [wrap(packet, back=back)]
        assert not lab.dropped + lab.sender.dropped


@patient
@given(st.lists(flows(), min_size=1, max_size=4), st.sampled_from(((0, 0), (10, 0), (10, CSUM), (10, ALL))))
def test_in(flows, device):
    """What is written is what `unwrap` says of each frame, joined or not."""
    header, offload = device
    frames = []
    for _, back, packet, size in flows:
        pieces = cut(packet, headed(packet), size) if size else [packet]
        if size:
            frames += [wrap(unfinished(piece)[1], back=back, partial=True) for piece in pieces]
        else:
            frames.append(wrap(packet, back=back))
    with host(header=header, offload=offload, plain=False) as lab:
        lab.hub.refused_whole = lab.rare.refused_whole
        _, keys = met(lab)
        lab.receiver.packets = lab.rare.packets = Judge()  # type: ignore[assignment]
        batches = trains([keys.seal(number, frame) for number, frame in enumerate(frames)])
        got = lab.read(*batches)
        wanted = []
        for frame in frames:
            v6, back = frame[4] >> 4 == 6, frame[1] & 8 != 0
            near = (ONE6 if v6 else ONE4) if back else (PLACE6 if v6 else PLACE4)
            wanted.append(unwrap(frame, near))
        assert got == wanted
        assert not lab.dropped + lab.receiver.dropped


@families
@ways
def test_a_stream_is_joined(v6, back):
    """44 segments come as one write, as by any other way."""
    packet = tcp(between(v6, back), bytes(range(256)) * 120, flags=ACK)
    pieces = cut(packet, headed(packet), 700)
    with host() as lab:
        _, keys = met(lab)
        judge = lab.receiver.packets = Judge()
        frames = [wrap(unfinished(piece)[1], back=back, partial=True) for piece in pieces]
        written = lab.take([keys.seal(number, frame) for number, frame in enumerate(frames)])
        assert len(written) == 1
        assert len(judge.asked) == 1
        near = (ONE6 if v6 else ONE4) if back else (PLACE6 if v6 else PLACE4)
        assert as_kernel(written) == [unwrap(frame, near) for frame in frames]


@families
@ways
def test_what_is_judged_and_found_wanting(v6, back):
    with host() as lab:
        link, keys = met(lab)
        judge = lab.receiver.packets = Judge()
        judge.no = {FAR4, FAR6}
        frame = wrap(udp(between(v6, back), b"no", ports=(7, 9)), back=back)
        assert lab.take([keys.seal(0, frame)]) == []
        ((told, quoted),) = lab.hub.of("refused_whole")
        assert told is link
        assert frame.startswith(quoted)
        assert len(quoted) >= 4 + len(frame[4:]) - 2
        far = FAR6 if v6 else FAR4
        assert judge.asked == [far if back else far + bytes((17, 0, 9))]


def test_without_a_judge_nothing_passes():
    with host() as lab:
        _, keys = met(lab)
        assert lab.take([keys.seal(0, wrap(udp(between(False, False), b"no")))]) == []
        assert lab.hub.of("refused_whole")


@families
def test_no_connection_begins_the_wrong_way_round(v6):
    with host() as lab:
        _, keys = met(lab)
        lab.receiver.packets = Judge()
        frames = [wrap(tcp(between(v6, True), flags=flags), back=True) for flags in (SYN, SYN | ACK)]
        got = lab.read(*([keys.seal(number, frame)] for number, frame in enumerate(frames)))
        assert got == [unwrap(frames[1], ONE6 if v6 else ONE4)]
        assert lab.receiver.dropped == {"from exits: a connection the wrong way round": 1}


@families
def test_only_what_this_host_sends_itself(v6):
    with host() as lab:
        link, _ = met(lab)
        source, target = between(v6, False)
        foreign = udp((bytes(len(source) - 1) + b"\7", target), b"not ours")
        assert give(lab, link, foreign, NO_VIRTIO, False)
        assert lab.sent() == []
        assert lab.sender.dropped == {"to exits: not from this host": 1}


def test_where_there_is_no_way():
    """The engine has it, and the answer is asked for once."""
    with host() as lab:
        link, _ = met(lab)
        packet = udp(between(False, False), b"x", ports=(7, 53))
        lab.sender.ways[FAR4 + bytes((17, 0, 53))] = None
        assert not give(lab, link, packet, NO_VIRTIO, False)
        assert not lab.sender.whole(10, 12)  # not even a header
        pieces = bytearray(packet)
        pieces[6] = 0x20
        assert not give(lab, link, bytes(pieces), NO_VIRTIO, False)  # it comes again when it is put together


@families
@ways
def test_what_is_rare_goes_the_slow_way(v6, back):
    with host() as lab:
        link, _ = met(lab)
        for packet in (echo(between(v6, back), b"ping"), udp(between(v6, back), bytes(ROOM))):
            give(lab, link, packet, NO_VIRTIO, back)
            assert lab.hub.of("slow_whole") == [(link, packet, back)]
            lab.hub.notes.clear()
        assert lab.sent() == []


@families
def test_the_mss_of_a_syn_leaves_room_for_its_header(v6):
    with host(plain=False) as lab:
        link, keys = met(lab)
        give(
            lab, link, tcp(between(v6, False), flags=SYN, options=bytes((2, 4, 0x05, 0xB4))), NO_VIRTIO, False
        )
        (frame,) = inside(frames_sent(keys, lab.sent()))
        start = 40 if v6 else 20
        assert frame[4 + start + 20 :] == bytes((2, 4)) + (ROOM - 4 - start - 20).to_bytes(2, "big")
        assert unwrap(frame, PLACE6 if v6 else PLACE4)


@families
def test_ecn(v6):
    """RFC 6040: the mark of the datagram comes to the packet inside; one that cannot bear it is lost."""
    with host() as lab:
        _, keys = met(lab)
        lab.receiver.packets = Judge()
        for traffic, wanted in ((2, 3), (0, None)):
            frame = wrap(udp(between(v6, False), b"x", traffic=traffic))
            got = lab.read(Came(keys.seal(traffic, frame), 0, ("192.0.2.1", 51830), 3))
            assert [_traffic(packet) for packet in got] == ([] if wanted is None else [wanted])


def _traffic(packet: bytes) -> int:
    return (int.from_bytes(packet[:2], "big") >> 4) & 0xFF if packet[0] >> 4 == 6 else packet[1]


@families
def test_headers_that_lie(v6):
    """What the quick way does not take is left to the slow one, which says what is wrong."""
    frame = wrap(udp(between(v6, False), b"x"))
    with host() as lab:
        _, keys = met(lab)
        lab.receiver.packets = Judge()
        at = [4, 5, 7, 1, 6] if v6 else [1, 2, 3, 8, 10, 11, 12, 15, 6, 7, 9]
        for number, each in enumerate(at):
            bent = bytearray(frame)
            bent[4 + each] |= 0x81
            assert lab.take([keys.seal(number, bytes(bent))]) == []
        assert len(lab.hub.of("slow_frame")) == len(at)


@families
def test_answers_are_no_way_round_the_limits_of_a_peer(v6):
    """A peer that may reach some services here brings datagrams from afar only to ports that have asked."""
    near, far = (ONE6, FAR6) if v6 else (ONE4, FAR4)
    with host(plain=False) as lab:
        link, keys = met(lab)
        lab.receiver.packets = lab.rare.packets = Judge()
        asked: set[tuple[int, int]] = set()
        link.services = SimpleNamespace(
            asks=lambda protocol, own, far, now: asked.add((own, far)),
            expects=lambda protocol, own, far, now: (own, far) in asked,
        )
        known_as = PLACE6 if v6 else PLACE4
        answer = wrap(udp((far, known_as), b"answer", ports=(53, 7000)), back=True)
        big = split(wrap(udp((far, known_as), bytes(2000), ports=(53, 7000)), back=True), 1, ROOM)
        ping = wrap(echo((far, known_as), b"?"), back=True)
        for number, frame in enumerate((answer, *big, ping)):
            assert lab.take([keys.seal(number, frame)]) == []
        give(lab, link, udp((near, far), b"?", ports=(7000, 53)), NO_VIRTIO, False)
        assert asked == {(7000, 53)}
        assert lab.read([keys.seal(9, answer)]) == [unwrap(answer, near)]
