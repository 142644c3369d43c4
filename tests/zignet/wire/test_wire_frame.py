"""Control frames: each there and back, cut, padded; and which frames this version knows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zignet.wire import (
    Answer,
    BadFrame,
    Challenge,
    Control,
    Farewell,
    FarewellReason,
    Flag,
    Keepalive,
    Offers,
    Ping,
    Pong,
    Protocol,
    Refusal,
    Refused,
    is_known,
    parse_control,
)

T8, T16 = bytes(range(8)), bytes(range(16))
other = st.integers(0, 255).filter(lambda number: number != 4)  # protocols; a whole packet's quote is longer
u8, u16, u32 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32))


def exactly(size):
    return st.binary(min_size=size, max_size=size)


frames = st.one_of(
    st.just(Keepalive()),
    st.builds(Ping, exactly(8)),
    st.builds(Pong, exactly(8)),
    st.builds(Challenge, exactly(16), u32, st.integers(0, 1400)),
    st.builds(Answer, exactly(16), u32, u16, u16, exactly(16)),
    st.builds(Refused, u8, u8.map(lambda flags: flags & ~4), other, exactly(8)),
    st.builds(Refused, u8, u8.map(lambda flags: flags | 4), other, exactly(8), u32, u16),
    st.builds(Refused, u8, u8.map(lambda flags: flags & ~4), st.just(4), exactly(48)),
    st.builds(Refused, u8, u8.map(lambda flags: flags | 4), st.just(4), exactly(48), u32, u16),
    st.builds(Farewell, u8),
)


@given(frames)
def test_there_and_back(frame):
    assert parse_control(frame.encode()) == frame
    assert parse_control(memoryview(frame.encode())) == frame


@given(frames, st.integers(1, 50))
def test_padding_is_zero_and_means_nothing(frame, count):
    padded = frame.encode() + bytes(count)
    got = parse_control(padded)
    if isinstance(frame, Challenge):
        assert got == Challenge(frame.token, frame.path, frame.padding + count)
    else:
        assert got == frame
    with pytest.raises(BadFrame, match="padding"):
        parse_control(padded[:-1] + b"\1")


@given(frames)
def test_cut_at_each_byte(frame):
    encoded = frame.encode()
    least = len(encoded) - (frame.padding if isinstance(frame, Challenge) else 0)
    for end in range(least):
        with pytest.raises(BadFrame):
            parse_control(encoded[:end])


# The offsets of protocol §7, written out.
@pytest.mark.parametrize(
    ("frame", "encoded"),
    [
        (Keepalive(), "00000000"),
        (Ping(T8), "00010000 0001020304050607"),
        (Pong(T8), "00020000 0001020304050607"),
        (Challenge(T16, 0x01020304, 3), f"00030000 {T16.hex()} 01020304 000000"),
        (
            Answer(T16, 7, 1232, 51830, bytes(10) + b"\xff\xff\xc0\x00\x02\x01"),
            f"00040000 {T16.hex()} 00000007 04d0 ca76 00000000000000000000ffffc0000201",
        ),
        (Refused(Refusal.FORBIDDEN, 1, 6, T8), "00050000 01 01 06 00 0001020304050607"),
        (
            Refused(Refusal.TOO_LARGE, 4, 17, T8, 7, 1400),
            "00050000 08 04 11 00 0001020304050607 00000007 0578",
        ),
        (Farewell(FarewellReason.OTHER_DEVICE), "00060000 02"),
        (Offers(b"\6\0\x50\3web"), "00070000 06 0050 03 776562"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_offsets(frame, encoded):
    assert frame.encode() == bytes.fromhex(encoded)


@pytest.mark.parametrize(
    "frame",
    [
        "00080000",  # no such type
        "00ff0000",
        "00000100",  # reserved bytes
        "00000001",
        "06000000",  # no control frame
        "00050000 01 01 06 01 0001020304050607",  # the reserved byte of a refusal
    ],
)
def test_what_is_none(frame):
    with pytest.raises(BadFrame):
        parse_control(bytes.fromhex(frame))


def test_reasons_that_are_known_have_names():
    assert parse_control(Farewell(1).encode()).reason is FarewellReason.STOPPED
    assert parse_control(Refused(2, 0, 99, T8).encode()).reason is Refusal.UNKNOWN_PROTOCOL
    assert parse_control(Farewell(9).encode()) == Farewell(9)


@pytest.mark.parametrize(
    "frame",
    [
        Ping(b"short"),
        Pong(bytes(9)),
        Challenge(bytes(15), 1),
        Answer(T16, 1, 2, 3, bytes(4)),
        Refused(1, 0, 6, b""),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_what_can_not_be_encoded(frame):
    with pytest.raises(ValueError, match="bytes are wanted"):
        frame.encode()


def test_a_refusal_quotes_its_frame():
    frame = bytes((6, 3, 0, 64)) + bytes(range(40))
    assert Refused.of(frame, Refusal.FORBIDDEN) == Refused(1, 3, 6, bytes(range(8)))
    assert Refused.of(b"\x63\x80\0\0abc", Refusal.UNKNOWN_PROTOCOL).quote == b"abc\0\0\0\0\0"
    assert Refused.of(b"\x63\x80\0\0", Refusal.UNKNOWN_PROTOCOL).quote == bytes(8)
    with pytest.raises(BadFrame):
        Refused.of(b"\x63\x80\0", Refusal.UNKNOWN_PROTOCOL)


def test_a_refusal_of_an_exit_flow_says_which():
    for named in (b"", b"\1\1a"):
        frame = bytes((6, 20 if named else 4, 0, 64)) + b"\0\1\2\3" + named + bytes(range(40))
        assert Refused.of(frame, Refusal.NUMBER_UNKNOWN) == Refused(4, frame[1], 6, bytes(range(8)), 0x010203)
    assert Refused.of(b"\x63\x04\0\0\1", 2) == Refused(2, 4, 0x63, bytes(8), 0x01000000)


def test_every_protocol_and_flag():
    """Protocol §6: V6 belongs to TCP, UDP and ICMP, PARTIAL and EXIT to TCP and UDP, BACK or NAMED to EXIT; and PARTIAL
    and BACK to whole packets."""
    known = {
        (number, flags)
        for number in range(256)
        for flags in range(256)
        if is_known(bytes((number, flags, 0, 0)))
    }
    assert known == {
        *((number, flags | more) for number in (6, 17) for flags in range(4) for more in (0, 4, 12, 20)),
        (1, 0),
        (1, 1),
        *((4, flags) for flags in (0, 2, 8, 10)),
        (44, 0),
        (255, 0),
    }
    assert not is_known(b"\x06\0\0")


def test_the_numbers_of_the_protocol():
    assert list(Protocol) == [0, 1, 4, 6, 17, 44, 255]
    assert list(Control) == list(range(8))
    assert [Flag.V6, Flag.PARTIAL, Flag.EXIT, Flag.BACK, Flag.NAMED] == [1, 2, 4, 8, 16]
    assert list(Refusal) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert list(FarewellReason) == [1, 2, 3]
