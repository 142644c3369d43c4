"""What the kernel does for a guarded socket: it drops what is no message of ours, and parts handshakes from data."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zignet import bpf as kernel
from zignet.transport import Udp, UdpError, marked
from zignet.transport.udp import UDP_SEGMENT

HOSTS = {"v4": "127.0.0.1", "v6": "::1", "v4 by v6": "::"}
X = bytes(range(100, 132))
SECRET = 0x9E3779B1
INDEX = marked(0x12345678, SECRET).to_bytes(4, "little")
DATA, COOKIE = b"\4\0\0\0" + INDEX, b"\3\0\0\0" + INDEX
INITIATIONS = [b"\1" + suite + b"\0\0" + b"abcd" + X for suite in (b"\1", b"\2")]
RESPONSES = [b"\2" + suite + b"\0\0" + b"abcd" + INDEX for suite in (b"\1", b"\2")]


def of(head, size):
    return head + bytes((at * 7) & 0xFF for at in range(size - len(head)))


GOOD_DATA = [of(DATA, size) for size in (36, 37, 1000, 9000)]
GOOD_REST = [
    *(of(head, 220) for head in INITIATIONS),
    *(of(head, 104) for head in RESPONSES),
    of(COOKIE, 64),
]
BAD = [
    b"",
    b"\1",
    b"\4\0\0\0",
    of(DATA, 35),
    *(of(head, 219) for head in INITIATIONS),
    *(of(head, 103) for head in RESPONSES),
    of(COOKIE, 63),
    *(of(bytes((kind,)) + bytes(3), 220) for kind in (0, 1, 2, 5, 6, 128, 255)),
    *(of(b"\1\1\0\0abcd" + X[:at] + bytes((X[at] ^ 1,)) + X[at + 1 :], 220) for at in range(32)),
    *(
        of(good[:at] + bytes((1 << bit,)) + good[at + 1 : 40], size)
        for good, size in ((DATA, 36), (COOKIE, 64), (INITIATIONS[0], 220), (RESPONSES[0], 104))
        for at in (2, 3)
        for bit in range(8)
    ),
    *(
        of(good[: at + byte] + bytes((good[at + byte] ^ (1 << bit),)) + good[at + byte + 1 : 40], size)
        for good, at, size in ((DATA, 4, 36), (COOKIE, 4, 64), (RESPONSES[0], 8, 104))
        for byte in range(4)
        for bit in range(8)
    ),
    of(b"\1\3\0\0abcd" + X, 220),
    of(b"\2\0\0\0abcd" + INDEX, 104),
    of(b"\3\1\0\0" + INDEX, 64),
    of(b"\4\1\0\0" + INDEX, 64),
]


@pytest.fixture(params=HOSTS)
def ends(request):
    """(a guarded socket, a plain one that is connected to it)."""
    host = HOSTS[request.param]
    near = "127.0.0.1" if host == "::" else host
    udp = Udp.open(host, 0)
    udp.guard(X, SECRET)
    with socket.socket(socket.AF_INET6 if ":" in near else socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.connect((near, udp.port))
        yield udp, plain
    udp.close()


def heard(receive, seconds=0.2):
    """All that comes until nothing does."""
    buffer, found = memoryview(bytearray(65_536)), []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        got = receive(buffer)
        if got is None:
            time.sleep(0.01)
            continue
        count, size, _, _ = got
        found += [
            bytes(buffer[at : min(at + (size or count), count)]) for at in range(0, count, size or count or 1)
        ]
    return found


def test_messages_come_by_the_socket_of_their_kind(ends):
    udp, plain = ends
    for message in (*GOOD_DATA, *GOOD_REST):
        plain.send(message)
    assert sorted(heard(udp.receive_into)) == sorted(GOOD_DATA)
    assert sorted(heard(udp.receive_beside)) == sorted(GOOD_REST)


def test_what_is_no_message_does_not_come(ends):
    udp, plain = ends
    for message in BAD:
        plain.send(message)
    for _ in range(200):
        plain.send(os.urandom(220))
    plain.send(GOOD_DATA[0])
    plain.send(GOOD_REST[0])
    assert heard(udp.receive_into) == [GOOD_DATA[0]]
    assert heard(udp.receive_beside) == [GOOD_REST[0]]


def train(plain, size, messages):
    plain.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
    plain.send(b"".join(messages))
    plain.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 0)


@pytest.mark.parametrize(("size", "last"), [(36, 36), (1000, 36), (1000, 999), (1400, 20)])
def test_trains_of_data_pass_whole(ends, size, last):
    """The kernel hands them over as one: the filter sees the first, and the length of all."""
    udp, plain = ends
    messages = [of(DATA + bytes((number,)), size) for number in range(40)] + [of(DATA, last)]
    train(plain, size, messages)
    assert heard(udp.receive_into) == messages


def test_a_train_that_begins_with_a_handshake_passes_whole(ends):
    udp, plain = ends
    messages = [GOOD_REST[0], of(DATA, 220), GOOD_REST[1], of(DATA, 40)]
    train(plain, 220, messages)
    assert heard(udp.receive_beside) == messages


def test_what_is_put_back_comes_next(ends):
    udp, plain = ends
    plain.send(GOOD_DATA[0])
    udp.put_back(b"one", 0, ("x", 1), 2)
    udp.put_back(b"twotwo", 3, ("x", 1), 0)
    buffer = memoryview(bytearray(65_536))
    assert udp.receive_into(buffer) == (3, 0, ("x", 1), 2)
    assert udp.receive_into(buffer) == (6, 3, ("x", 1), 0)
    assert bytes(buffer[:6]) == b"twotwo"
    assert heard(udp.receive_into) == [GOOD_DATA[0]]


def test_a_flood_of_handshakes_leaves_room_for_data(ends):
    udp, plain = ends
    for _ in range(30_000):
        plain.send(GOOD_REST[0])
    for number in range(100):
        plain.send(of(DATA + bytes((number,)), 1000))
    assert len(heard(udp.receive_into)) == 100
    assert 100 < len(heard(udp.receive_beside)) < 30_000


def test_both_sockets_wake_whoever_waits(ends):
    udp, plain = ends
    plain.send(GOOD_REST[0])
    assert select.select([udp.sock, udp.side], [], [], 5.0)[0] == [udp.side]


def test_answers_leave_from_the_port_that_was_asked(ends):
    udp, plain = ends
    plain.settimeout(5.0)
    plain.send(GOOD_REST[0])
    buffer = memoryview(bytearray(65_536))
    assert select.select([udp.side], [], [], 5.0)[0]
    _, _, sender, _ = udp.receive_beside(buffer)
    udp.send(memoryview(b"answer"), 0, sender)
    assert plain.recv(100) == b"answer"  # it is connected, so it came from there


def test_the_port_is_taken():
    first = Udp.open("127.0.0.1", 0)
    first.guard(X, SECRET)
    with contextlib.closing(first), pytest.raises(UdpError, match="another program has this port"):
        Udp.open("127.0.0.1", first.port)


def test_a_kernel_that_parts_nothing(monkeypatch):
    """All comes by the one socket."""
    monkeypatch.setattr(kernel, "SO_ATTACH_REUSEPORT_CBPF", 9_999)
    everything(Udp.open("127.0.0.1", 0), [*GOOD_DATA, *GOOD_REST])


def test_a_kernel_that_filters_nothing(monkeypatch):
    monkeypatch.setattr(kernel, "SO_ATTACH_FILTER", 9_999)
    monkeypatch.setattr(kernel, "SO_ATTACH_REUSEPORT_CBPF", 9_999)
    everything(Udp.open("127.0.0.1", 0), [*GOOD_DATA, *GOOD_REST, *BAD[1:]])


def test_a_second_socket_is_refused(monkeypatch):
    udp = Udp.open("127.0.0.1", 0)

    def refuse(*_):
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr("zignet.transport.udp._join", refuse)
    everything(udp, [*GOOD_DATA, *GOOD_REST])


def everything(udp, messages):
    with contextlib.closing(udp), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        udp.guard(X, SECRET)
        assert udp.side is None
        assert udp.receive_beside(memoryview(bytearray(65_536))) is None
        plain.connect(("127.0.0.1", udp.port))
        for message in messages:
            plain.send(message)
        assert heard(udp.receive_into) == messages


# --- marks


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**31 - 1).map(lambda half: 2 * half + 1))
def test_a_mark_is_ten_bits_and_follows_from_the_rest(number, secret):
    index = marked(number, secret)
    assert 0 <= index < 2**32
    assert marked(index, secret) == index
    kept = int.from_bytes(number.to_bytes(4, "little"), "big") >> 10
    assert int.from_bytes(index.to_bytes(4, "little"), "big") >> 10 == kept


def test_one_in_a_thousand_is_right_by_chance():
    """So many that are no index of ours come through."""
    numbers = [number * 0x9E3779B1 % 2**32 for number in range(200_000)]
    assert 100 < sum(marked(number, 0x85EBCA77) == number for number in numbers) < 300


def test_the_kernel_and_we_mark_alike(ends):
    """Of random indices, those come through that are marked so."""
    udp, plain = ends
    indices = [os.urandom(4) for _ in range(3_000)]
    indices += [marked(int.from_bytes(one, "little"), SECRET).to_bytes(4, "little") for one in indices[:300]]
    numbers = [int.from_bytes(one, "little") for one in indices]
    ours = [one for one, number in zip(indices, numbers, strict=True) if marked(number, SECRET) == number]
    assert 300 <= len(ours) < 330
    for one in indices:
        plain.send(of(b"\4\0\0\0" + one, 36))
    assert [message[4:8] for message in heard(udp.receive_into)] == ours
