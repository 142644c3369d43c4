"""The SOCKS5 client: every message cut anywhere, every refusal, and garbage."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat.exit import Associate, Dial, ExitFailure, Reason, Refusal, Target
from zignet.exits.socks5 import Datagram, Socks5, Socks5Associate, Socks5Connect

PROXY = bytes((192, 0, 2, 10))
V4 = Target(bytes((203, 0, 113, 5)), 443)
V6 = Target(ip_address("2001:db8::5").packed, 443)
NAMED = Target(V4.address, 443, "www.video.example")
OPEN = Socks5("tokyo", PROXY, 1080)
LOCKED = Socks5("tokyo", PROXY, 1080, "me", "secret")

GRANTED = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
ANSWERS = {
    "ipv4": GRANTED,
    "ipv6": b"\x05\x00\x00\x04" + bytes(range(16)) + b"\x04\x38",
    "name": b"\x05\x00\x00\x03\x05proxy\x04\x38",
    "longest name": b"\x05\x00\x00\x03\xff" + b"n" * 255 + b"\x04\x38",
}
REQUESTS = {
    V4: b"\x05\x01\x00\x01\xcb\x00\x71\x05\x01\xbb",
    V6: b"\x05\x01\x00\x04" + V6.address + b"\x01\xbb",
    NAMED: b"\x05\x01\x00\x03\x11www.video.example\x01\xbb",
}


def connect(exit_: Socks5, target: Target = V4) -> Socks5Connect:
    dial = exit_.tcp(target)
    assert isinstance(dial, Dial)
    assert isinstance(dial.handshake, Socks5Connect)
    return dial.handshake


def run(handshake: Socks5Connect, pieces: list[bytes]) -> tuple[bytes, bytes, bool]:
    """What was sent after the greeting, what belongs to the flow, and whether it is over."""
    handshake.start()
    sent = rest = b""
    done = False
    for piece in pieces:
        step = handshake.feed(piece)
        sent, rest, done = sent + step.send, rest + step.rest, step.done
    return sent, rest, done


def three_ways(script: bytes, after: bytes) -> list[list[bytes]]:
    """Whole, byte by byte, and with bytes of the flow trailing, also byte by byte."""
    both = script + after
    return [[script, after], [bytes((byte,)) for byte in both], [both]]


@pytest.mark.parametrize("target", REQUESTS)
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("way", range(3), ids=["whole", "byte by byte", "trailing"])
def test_connect(target: Target, answer: bytes, way: int) -> None:
    pieces = three_ways(b"\x05\x00" + answer, b"SSH-2.0-hello")[way]
    assert run(connect(OPEN, target), pieces) == (REQUESTS[target], b"SSH-2.0-hello", True)


@pytest.mark.parametrize("way", range(3), ids=["whole", "byte by byte", "trailing"])
def test_connect_with_password(way: int) -> None:
    assert connect(LOCKED).start() == b"\x05\x02\x00\x02"
    pieces = three_ways(b"\x05\x02" + b"\x01\x00" + GRANTED, b"hello")[way]
    sent, rest, done = run(connect(LOCKED), pieces)
    assert sent == b"\x01\x02me\x06secret" + REQUESTS[V4]
    assert (rest, done) == (b"hello", True)


def test_a_proxy_may_not_want_the_password_we_offer() -> None:
    assert run(connect(LOCKED), [b"\x05\x00", GRANTED]) == (REQUESTS[V4], b"", True)


def test_the_greeting_offers_no_password_without_one() -> None:
    assert connect(OPEN).start() == b"\x05\x01\x00"


def test_no_step_asks_for_more_than_is_needed() -> None:
    handshake = connect(OPEN)
    assert handshake.start() == b"\x05\x01\x00"
    assert handshake.feed(b"\x05\x00") == (REQUESTS[V4], False, b"")
    assert handshake.feed(GRANTED) == (b"", True, b"")
    assert handshake.feed(b"late") == (b"", True, b"late")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (1, Reason.FAILED),
        (2, Reason.PROHIBITED),
        (3, Reason.NET_UNREACHABLE),
        (4, Reason.HOST_UNREACHABLE),
        (5, Reason.REFUSED),
        (6, Reason.TIMED_OUT),
        (7, Reason.FAILED),
        (8, Reason.FAILED),
        (99, Reason.FAILED),
    ],
)
def test_refusals_need_only_two_bytes(code: int, reason: Reason) -> None:
    handshake = connect(OPEN)
    handshake.feed(b"\x05\x00")
    with pytest.raises(ExitFailure) as caught:
        handshake.feed(bytes((5, code)))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("exit_", "script", "says"),
    [
        (OPEN, b"\x05\xff", "a user and a password"),
        (LOCKED, b"\x05\xff", "another way to sign in"),
        (OPEN, b"\x05\x02", "a user and a password"),
        (OPEN, b"\x05\x01", "not offered"),
        (LOCKED, b"\x05\x02\x01\x01", "wrong user or password"),
        (OPEN, b"H", "perhaps its type is http"),
        (OPEN, b"\x04\x5a", "does not speak SOCKS5"),
        (OPEN, b"\x05\x00\x04", "does not speak SOCKS5"),
        (OPEN, b"\x05\x00\x05\x00\x00\x02\x00", "unknown kind of address"),
    ],
)
def test_nonsense_is_named(exit_: Socks5, script: bytes, says: str) -> None:
    for pieces in ([script], [bytes((byte,)) for byte in script]):
        with pytest.raises(ExitFailure, match=says) as caught:
            run(connect(exit_), pieces)
        assert caught.value.reason == Reason.FAILED


# Invariant: whatever a proxy sends, cut however, a handshake ends, waits, or raises ExitFailure; what it
# keeps is bounded.
@given(
    st.sampled_from([b"", b"\x05\x00", b"\x05\x02", b"\x05\x02\x01\x00", b"\x05\x00\x05\x00\x00"]),
    st.lists(st.binary(max_size=400), max_size=8),
    st.booleans(),
)
def test_garbage(beginning: bytes, pieces: list[bytes], udp: bool) -> None:
    handshake = Socks5Associate(PROXY, b"\x01\x01a\x01b") if udp else connect(LOCKED)
    try:
        for piece in [beginning, *pieces]:
            handshake.feed(piece)
            assert len(handshake._held) <= 262
    except ExitFailure:
        pass


# Invariant: where the bytes are cut changes nothing.
@given(st.sampled_from(sorted(ANSWERS)), st.binary(max_size=40), st.lists(st.integers(0, 400), max_size=12))
def test_cuts_change_nothing(answer: str, after: bytes, cuts: list[int]) -> None:
    script = b"\x05\x02\x01\x00" + ANSWERS[answer] + after
    edges = [0, *sorted(min(cut, len(script)) for cut in cuts), len(script)]
    pieces = [script[start:end] for start, end in pairwise(edges)]
    expected = (b"\x01\x02me\x06secret" + REQUESTS[NAMED], after, True)
    assert run(connect(LOCKED, NAMED), pieces) == expected


class TestAssociate:
    def relay(self, bound: bytes, proxy: bytes = PROXY) -> tuple[bytes, int]:
        handshake = Socks5Associate(proxy)
        sent, rest, done = run(handshake, [b"\x05\x00", b"\x05\x00\x00" + bound])
        assert (sent, rest, done) == (b"\x05\x03\x00\x01" + bytes(6), b"", True)
        return handshake.relay

    def test_relay(self) -> None:
        assert self.relay(b"\x01\xc0\x00\x02\x0b\x04\x38") == (bytes((192, 0, 2, 11)), 1080)
        assert self.relay(b"\x04" + V6.address + b"\x04\x38") == (V6.address, 1080)

    @pytest.mark.parametrize("anywhere", [b"\x01" + bytes(4), b"\x04" + bytes(16)])
    def test_anywhere_is_the_proxy_itself(self, anywhere: bytes) -> None:
        assert self.relay(anywhere + b"\x04\x38") == (PROXY, 1080)

    @pytest.mark.parametrize(
        "loopback",
        [b"\x01\x7f\x00\x00\x01", b"\x04" + bytes(15) + b"\x01", b"\x04" + bytes(10) + b"\xff\xff\x7f\0\0\1"],
    )
    def test_a_proxy_elsewhere_cannot_point_at_this_host(self, loopback: bytes) -> None:
        assert self.relay(loopback + b"\x00\x35") == (PROXY, 53)

    def test_a_proxy_on_this_host_can(self) -> None:
        assert self.relay(b"\x01\x7f\x00\x00\x02\x04\x38", b"\x7f\0\0\1") == (b"\x7f\x00\x00\x02", 1080)

    def test_ipv4_in_ipv6_clothes(self) -> None:
        assert self.relay(b"\x04" + bytes(10) + b"\xff\xff\xc0\0\x02\x0b\x04\x38") == (
            bytes((192, 0, 2, 11)),
            1080,
        )

    @pytest.mark.parametrize("bound", [b"\x01\xc0\x00\x02\x0b\x00\x00", b"\x03\x05proxy\x04\x38"])
    def test_useless_relays(self, bound: bytes) -> None:
        with pytest.raises(ExitFailure):
            self.relay(bound)

    def test_plan(self) -> None:
        plan = LOCKED.udp()
        assert isinstance(plan, Associate)
        assert (plan.control.address, plan.control.port, plan.encapsulate) == (PROXY, 1080, Datagram)
        assert isinstance(plan.control.handshake, Socks5Associate)
        assert plan.control.handshake.start() == b"\x05\x02\x00\x02"

    def test_udp_switched_off(self) -> None:
        plan = Socks5("tokyo", PROXY, 1080, carries_udp=False).udp()
        assert isinstance(plan, Refusal)
        assert plan.reason == Reason.PROHIBITED


class TestDatagram:
    def test_header(self) -> None:
        assert Datagram.header(V4) == b"\0\0\0\x01\xcb\x00\x71\x05\x01\xbb"
        assert Datagram.header(V6) == b"\0\0\0\x04" + V6.address + b"\x01\xbb"
        assert Datagram.header(NAMED) == b"\0\0\0\x03\x11www.video.example\x01\xbb"

    def test_an_unsendable_name_falls_back_to_the_address(self) -> None:
        assert Datagram.header(Target(V4.address, 443, "é" * 300)) == Datagram.header(V4)

    @pytest.mark.parametrize("target", [V4, V6])
    @pytest.mark.parametrize("payload", [b"", b"x", b"payload" * 100])
    def test_round_trip(self, target: Target, payload: bytes) -> None:
        datagram = Datagram.header(target) + payload
        for form in (datagram, memoryview(datagram)):
            parsed = Datagram.parse(form)
            assert parsed is not None
            address, port, offset = parsed
            assert (address, port, datagram[offset:]) == (target.address, target.port, payload)

    @pytest.mark.parametrize("fragment", [1, 2, 0x81, 0xFF])
    def test_fragments_are_refused(self, fragment: int) -> None:
        assert Datagram.parse(b"\0\0" + bytes((fragment,)) + Datagram.header(V4)[3:] + b"payload") is None

    @pytest.mark.parametrize("target", [V4, V6])
    def test_short_ones_are_refused(self, target: Target) -> None:
        header = Datagram.header(target)
        assert all(Datagram.parse(header[:size]) is None for size in range(len(header)))
        assert Datagram.parse(header) == (target.address, target.port, len(header))

    def test_a_sender_given_by_name_is_refused(self) -> None:
        assert Datagram.parse(Datagram.header(NAMED) + b"payload") is None

    # Invariant: any bytes parse, or give None; an offset is never beyond the end.
    @given(st.binary(max_size=64))
    def test_garbage(self, datagram: bytes) -> None:
        parsed = Datagram.parse(datagram)
        assert parsed is None or (len(parsed[0]) in (4, 16) and parsed[2] <= len(datagram))


class TestExit:
    def test_a_value(self) -> None:
        assert Socks5("tokyo", PROXY, 1080) == OPEN
        assert OPEN != LOCKED
        assert (OPEN.kind, OPEN.where) == ("socks5", "192.0.2.10:1080")
        assert "secret" not in repr(LOCKED)

    def test_dial(self) -> None:
        dial = Socks5("tokyo", PROXY, 1080, device="eth1").tcp(V4)
        assert isinstance(dial, Dial)
        assert (dial.address, dial.port, dial.device) == (PROXY, 1080, "eth1")

    @pytest.mark.parametrize("name", ["", "a" * 256, "a b", "a\r\nb", "é", "a\0"])
    def test_unsendable_names(self, name: str) -> None:
        assert isinstance(OPEN.tcp(Target(V4.address, 443, name)), Refusal)

    @pytest.mark.parametrize(("user", "password"), [("", "x"), ("u" * 256, "x"), ("u", "p" * 256)])
    def test_credentials_that_do_not_fit(self, user: str, password: str) -> None:
        with pytest.raises(ValueError, match="255 bytes"):
            Socks5("tokyo", PROXY, 1080, user, password)
