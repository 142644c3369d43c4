"""Frames of exit flows: there and back, cut at each byte, and what may be a name."""

from __future__ import annotations

import io
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.zignet.wire.fuzz import KEY, LINE
from zignet.cli.wire_dump import line
from zignet.noise import Suite
from zignet.wire import NUMBERS, BadFrame, address_of, good_name, parse_exit, seal, to_exit
from zignet.wire.describe import Describer
from zignet.wire.keylog import KeyLog

labels = st.text("abcxyz0189-_", min_size=1, max_size=63)
names = st.lists(labels, min_size=1, max_size=5).map(".".join).filter(lambda name: good_name(name.encode()))
addresses = st.one_of(
    st.binary(min_size=4, max_size=4).map(lambda raw: str(ip_address(raw))),
    st.binary(min_size=16, max_size=16).map(lambda raw: str(ip_address(raw))),
)
plain = st.tuples(st.sampled_from([6, 17]), st.integers(0, 3), st.binary(max_size=80)).map(
    lambda parts: bytes((parts[0], parts[1], 7, 64)) + parts[2]
)


@given(plain, st.integers(1, NUMBERS - 1), st.one_of(st.just(""), names, addresses), st.booleans())
def test_there_and_back(frame, number, meaning, back):
    back = back and not meaning
    made = to_exit(frame, number, meaning, back=back)
    got = parse_exit(made)
    assert (got.number, got.back, got.meaning, got.frame) == (number, back, meaning, frame)
    head = len(made) - len(frame) + 4
    for end in range(head):
        with pytest.raises(BadFrame):
            parse_exit(made[:end])


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "a.", ".a", "a..b", "A.b", "a b", "a\0b", "é", "a" * 64, ".".join(["a" * 63] * 4) + "x"),
        *("127.1", "1", "0x7f000001", "0x7f.1", "10.0.0.0x", "1.2.3.4", "a.1"),
    ],
)
def test_what_is_no_name(name):
    assert not good_name(name.encode())
    if name not in ("", "1.2.3.4"):
        with pytest.raises(BadFrame):
            to_exit(b"\6\0\0\0", 1, name)


@pytest.mark.parametrize("name", ["a", "a-b.c_d", "1a.b2", "xn--bcher-kva.example", "_dmarc.x", "a.b1"])
def test_what_is_a_name(name):
    assert good_name(name.encode())
    assert address_of(name) is None


@pytest.mark.parametrize(("frame", "number"), [(b"\1\0\0\0", 1), (b"\6\0\0\0", 0), (b"\6\0\0\0", NUMBERS)])
def test_what_can_not_be_one(frame, number):
    with pytest.raises(BadFrame):
        to_exit(frame, number, "a")


def test_one_is_not_put_into_another():
    with pytest.raises(BadFrame):
        to_exit(to_exit(b"\6\0\0\0", 1), 1)


def test_for_people_who_look_at_packets():
    describer = Describer(KeyLog.read(io.StringIO(LINE)))
    udp = b"\x11\0\0\x40" + bytes((0x9C, 0x41, 0, 53, 0, 9, 0, 0)) + b"x"
    named, back = to_exit(udp, 7, "www.example"), to_exit(udp, 7, back=True)
    texts = []
    for frame in (named, back, named[:12]):
        facts = describer.message(memoryview(seal(Suite.CHACHA, KEY, 2, 0, frame)), 0.0)
        texts.append(line({"time": 1.0, "from": "a", "to": "b", "ecn": 0} | facts))
    assert "udp 40001 > 53" in texts[0]
    assert "exit out, destination 7 = www.example" in texts[0]
    assert "exit back, destination 7)" in texts[1]
    assert "malformed: a destination is cut off" in texts[2]
