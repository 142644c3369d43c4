"""Handshakes and sessions: who sends on what, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.zignet.peers.tunnels import ALICE, BOB, START, YEAR_US, Data, End, World, kinds, met, pair
from zignet.noise import HandshakeError, InitiationPayload, MessageType, Responder, Suite
from zignet.peers.actions import Confirmed, Ended, Established, GaveUp, Initiate, Prepared, Superseded


def initiations(end: End) -> list[bytes]:
    return [message for _, message in end.sent if isinstance(message, bytes) and message[0] == 1]


def responses(end: End) -> list[bytes]:
    return [message for _, message in end.sent if isinstance(message, bytes) and message[0] == 2]


def datas(end: End) -> list[Data]:
    return [message for _, message in end.sent if isinstance(message, Data)]


# --- a handshake


def test_data_waits_for_one_round_trip():
    world, a, b = pair()
    a.say("one")
    a.say("two")
    assert len(initiations(a)) == 1
    world.until(1)
    assert b.got == ["one", "two"]
    assert kinds(a) == ["Initiate", "Established"]
    assert kinds(b) == ["Prepared", "Respond", "Confirmed"]
    assert a.times(Established) == [0.1]
    assert b.times(Confirmed) == [0.15]


def test_both_ends_of_a_session_agree():
    _, a, b = met()
    mine, theirs = a.tunnel.sending, b.tunnel.sending
    assert mine.sealing.key == theirs.opening.key
    assert theirs.sealing.key == mine.opening.key
    assert (mine.local_index, mine.remote_index) == (theirs.remote_index, theirs.local_index)
    assert (mine.initiator, theirs.initiator) == (True, False)
    assert (mine.device, theirs.device) == (b.device, a.device)
    assert (mine.origin, theirs.origin) == ("b", "a")
    assert (mine.born - START, theirs.born - START) == pytest.approx((0.1, 0.05))


def test_the_responder_sends_nothing_before_the_session_is_proved():
    world, a, b = pair()
    world.fate = lambda message, source, target: [] if isinstance(message, Data) else [0.05]
    a.say("lost")
    b_says = b.tunnel
    world.until(1)
    assert b_says.next is not None
    assert b_says.sending is None
    assert not b_says.before_send(world.now)
    assert datas(b) == []


def test_the_initiator_proves_the_session_though_it_has_nothing_to_say():
    world, _a, b = pair(a={"keepalive_s": 25.0})
    world.until(1)
    assert kinds(b) == ["Prepared", "Respond", "Confirmed"]
    assert b.tunnel.before_send(world.now)


def test_no_secret_is_shown():
    _, a, _ = met()
    shown = repr(a.tunnel) + repr(a.tunnel.sending)
    assert a.tunnel.sending.sealing.key.hex() not in shown
    assert str(a.tunnel.sending.sealing.key) not in shown


@pytest.mark.parametrize(
    ("mine", "theirs", "first", "second"),
    [
        (True, True, Suite.AES, Suite.AES),
        (True, False, Suite.AES, Suite.CHACHA),
        (False, True, Suite.CHACHA, Suite.CHACHA),
        (False, False, Suite.CHACHA, Suite.CHACHA),
    ],
)
def test_the_suite_is_the_initiators_choice_by_what_it_knows(
    mine: bool, theirs: bool, first: Suite, second: Suite
):
    world, a, b = met(a={"aes": mine}, b={"aes": theirs})
    assert a.tunnel.sending.suite == b.tunnel.sending.suite == first
    world.until(130)
    a.say("again")
    world.until(131)
    assert a.tunnel.sending.suite == b.tunnel.sending.suite == second


def test_a_responder_learns_the_suite_for_its_own_turn():
    world, _, b = met(a={"aes": False})
    world.until(500)
    b.say("my turn")
    world.until(501)
    assert b.tunnel.sending.initiator
    assert b.tunnel.sending.suite == Suite.CHACHA


def test_another_psk_makes_no_session():
    world, a, b = pair(a={"psk": b"1" * 32}, b={"psk": b"2" * 32})
    a.say("hello")
    world.until(30)
    assert a.tunnel.sending is None
    assert b.tunnel.sending is None
    assert "a part of the message does not open" in a.refused
    assert len(initiations(a)) > 3


def test_the_same_psk_does():
    _, a, b = met(a={"psk": b"1" * 32}, b={"psk": b"1" * 32})
    assert a.tunnel.sending.sealing.key == b.tunnel.sending.opening.key


# --- what is played again, or made up


def test_an_initiation_is_answered_once():
    world, a, b = met()
    world.until(10)
    b.receive(initiations(a)[0], "x")
    assert b.refused == ["the initiation was seen before, or a newer one was"]
    assert b.tunnel.next is None
    b.check()


def test_an_older_initiation_that_comes_late_is_dropped():
    world, a, b = pair()
    kept: list[bytes] = []
    world.fate = lambda message, source, target: kept.append(message) or []  # type: ignore[func-returns-value]
    a.say("hello")
    world.until(7)
    world.fate = lambda message, source, target: [0.05]
    assert len(kept) == 2
    b.receive(kept[1], "a")
    prepared = b.tunnel.next
    world.until(7.02)
    b.receive(kept[0], "a")
    assert b.tunnel.next is prepared
    assert b.refused == ["the initiation was seen before, or a newer one was"]
    world.until(8)
    assert b.got == ["hello"]


def test_initiations_within_20_ms_are_not_answered():
    world, a, b = pair()
    kept: list[bytes] = []
    world.fate = lambda message, source, target: kept.append(message) or []  # type: ignore[func-returns-value]
    a.say("hello")
    world.until(20)
    b.receive(kept[0], "a")
    world.run(0.0199)
    b.receive(kept[1], "a")
    assert b.refused == ["initiations come too fast"]
    world.run(0.0001)
    b.receive(kept[1], "a")
    assert len(b.refused) == 1
    assert len(responses(b)) == 2


def test_a_response_is_taken_once():
    world, a, b = met()
    session = a.tunnel.sending
    a.receive(responses(b)[0], "x")
    assert a.tunnel.sending is session
    assert len(a.refused) == 1
    assert a.times(Established) == [0.1]
    world.until(1)
    a.check()


def test_a_response_to_an_initiation_that_was_replaced_is_ignored():
    world, a, _b = pair()
    world.fate = lambda message, source, target: [6.0] if source == "b" else [0.05]
    a.say("hello")
    world.until(9)
    assert len(initiations(a)) == 2
    assert a.refused == ["no such index"]
    assert a.tunnel.sending is None


def test_damaged_messages_change_nothing():
    """Each byte of an initiation and of a response, by itself, behind a right mac1 or not."""
    world, a, b = pair()
    kept: dict[int, bytes] = {}

    def fate(message: Any, source: str, target: str) -> list[float]:
        if isinstance(message, bytes):
            kept.setdefault(message[0], message)
        return []

    world.fate = fate
    a.say("hello")
    initiation = kept[MessageType.INITIATION]
    for at in range(len(initiation)):
        with pytest.raises(HandshakeError):
            Responder.open(b.static, initiation[:at])
        damaged = bytearray(initiation)
        damaged[at] ^= 0x40
        b.receive(bytes(damaged[:-32]) + initiation[-32:], "a")
        b.tunnel.drop_next()
    b.restart()
    b.receive(initiation, "a")
    response = kept[MessageType.RESPONSE]
    for at in (*range(4), *range(8, 72)):  # the sender's index is not sealed: mac1 is all that covers it
        damaged = bytearray(response)
        damaged[at] ^= 0x40
        with pytest.raises(HandshakeError):
            a.tunnel.receive_response(bytes(damaged), "b", world.now)
        with pytest.raises(HandshakeError):
            a.tunnel.receive_response(response[:at], "b", world.now)
        a.check()
    a.receive(response, "b")
    assert a.tunnel.sending is not None


def test_a_zero_ephemeral_key_costs_no_index():
    world, _, b = pair()

    class Zero:
        payload = InitiationPayload(ALICE.public.ed, 1, bytes(8), 0)

        def answer(self, *_: object) -> bytes:
            raise HandshakeError("a public key of low order")

    with pytest.raises(HandshakeError):
        b.tunnel.receive_initiation(Zero(), "a", world.now)  # type: ignore[arg-type]
    assert b.tunnel.next is None
    assert b.indices.owners == {}


# --- under load


def test_cookies():
    world, a, b = pair(b={"load": True})
    a.say("hello")
    world.until(4)
    assert b.tunnel.next is None
    assert len(initiations(a)) == 1  # a cookie is no reason to send at once
    world.until(6)
    assert b.got == ["hello"]
    first, second = initiations(a)
    assert first[-16:] == bytes(16)
    assert second[-16:] != bytes(16)


def test_a_cookie_for_the_response():
    world, a, b = pair(a={"load": True})
    a.say("hello")
    world.until(8)
    assert b.got == ["hello"]
    assert [response[-16:] == bytes(16) for response in responses(b)] == [True, False]


def test_a_cookie_that_nobody_asked_for():
    world, a, _ = met()
    assert not a.tunnel.receive_cookie(bytes((3, 0, 0, 0)) + bytes(60), world.now)
    world, a, _b = pair()
    a.say("hello")
    assert not a.tunnel.receive_cookie(bytes((3, 0, 0, 0)) + bytes(60), world.now)


# --- both at once


def test_both_begin_at_once():
    world, a, b = pair()
    a.say("from a")
    b.say("from b")
    world.until(1)
    assert b.got == ["from a"]
    assert a.got == ["from b"]
    assert kinds(a).count("GaveUp") == 0
    for number in range(20):
        a.say(number)
        b.say(number)
    world.until(2)
    assert b.got[1:] == list(range(20))
    assert a.got[1:] == list(range(20))
    assert b.refused == a.refused == []


@pytest.mark.parametrize("lag", [0.01, 0.03, 0.049, 0.051, 0.08, 0.11])
def test_both_begin_at_nearly_the_same_time(lag: float):
    world, a, b = pair()
    a.say("from a")
    world.run(lag)
    b.say("from b")
    world.until(1)
    assert b.got == ["from a"]
    assert a.got == ["from b"]
    for _ in range(300):
        world.run(1)
        a.say("x")
        b.say("y")
    world.run(1)
    assert b.got.count("x") == a.got.count("y") == 300


def test_who_finds_a_valid_session_gives_its_own_attempt_up():
    world, a, b = pair()
    world.fate = lambda message, source, target: [] if message in responses(b) else [0.05]
    a.say("from a")
    world.run(0.04)
    b.say("from b")
    world.until(20)
    assert a.tunnel.sending.initiator is False
    assert len(initiations(a)) == 1
    assert a.got == ["from b"]
    assert b.got == ["from a"]


# --- new ones for old


def test_a_new_session_replaces_the_old_at_once_for_its_initiator():
    world, a, _b = met()
    old = a.tunnel.sending
    world.until(121)
    a.say("x")
    world.until(121.15)
    assert a.tunnel.sending is not old
    assert a.tunnel.before == (old,)
    assert a.tunnel.sending.initiator


def test_a_new_session_replaces_the_old_for_the_responder_when_it_is_proved():
    world, a, b = met()
    world.until(121)
    old = b.tunnel.sending
    world.fate = lambda message, source, target: (
        [] if isinstance(message, Data) and len(responses(b)) > 1 else [0.05]
    )
    a.say("x")
    world.until(125)
    assert b.tunnel.next is not None
    assert b.tunnel.sending is old
    world.fate = lambda message, source, target: [0.05]
    a.say("y")
    world.until(126)
    assert b.tunnel.before == (old,)
    assert b.got[-1] == "y"


def test_a_newer_initiation_replaces_the_session_that_stands_aside():
    world, a, b = pair()
    world.fate = lambda message, source, target: [] if source == "b" else [0.05]
    a.say("x")
    world.until(1)
    first = b.tunnel.next
    world.until(6)
    assert b.tunnel.next not in (first, None)
    assert first.sealing.key is None
    b.check()


def test_the_oldest_of_five_is_erased():
    world, a, _b = met()
    sessions = []
    for round_ in range(5):
        sessions.append(a.tunnel.sending)
        world.until(20.0 * (round_ + 1))
        a.tunnel._rekey(world.now)
        a.armed = a.tunnel.deadline
        world.run(1)
    assert a.tunnel.before == (sessions[4], sessions[3], sessions[2])
    assert [one.sealing.key is None for one in sessions] == [True, True, False, False, False]
    assert [one.opening is None for one in sessions] == [True, True, False, False, False]


# --- restarts


def test_one_end_restarts():
    world, a, b = met()
    world.until(10)
    b.restart()
    a.say("into the void")
    world.until(11)
    assert b.got == ["hello"]
    b.say("I am back")
    world.until(12)
    assert a.got[-1] == "I am back"
    a.say("so you are")
    world.until(13)
    assert b.got[-1] == "so you are"


def test_the_other_end_finds_out_by_itself():
    world, a, b = met()
    world.until(10)
    b.restart()
    a.say("into the void")
    world.until(26)
    a.say("and now?")
    world.until(27)
    assert b.got[-1] == "and now?"


def test_both_restart():
    world, a, b = met()
    world.until(10)
    a.restart()
    b.restart()
    a.say("x")
    b.say("y")
    world.until(11)
    assert (a.got[-1], b.got[-1]) == ("y", "x")


@pytest.mark.parametrize("both", [False, True])
def test_a_restart_with_the_clock_a_year_back(both: bool):
    """The other end remembers the timestamps; what `Stamps` has persisted keeps ours above them."""
    world, a, b = met()
    world.until(10)
    a.restart(wall_us=49 * YEAR_US)
    if both:
        b.restart(wall_us=49 * YEAR_US)
    a.say("x")
    world.until(11)
    assert b.got[-1] == "x"
    assert b.refused == []


def test_without_what_was_persisted_it_would_be_refused():
    world, a, b = met()
    a.ceiling = 0
    a.restart(wall_us=49 * YEAR_US)
    a.say("x")
    world.until(15)
    assert b.got == ["hello"]
    assert "the initiation was seen before, or a newer one was" in b.refused


# --- farewell


def test_a_farewell_ends_the_session():
    world, a, b = met()
    session = a.tunnel.sending
    b.seal(("farewell", 1), False)
    world.until(1)
    assert a.tunnel.sending is None
    assert session.sealing.key is None
    assert [action for _, action in a.events if isinstance(action, Ended)] == [Ended(1)]
    a.say("are you there?")
    world.until(7)
    assert b.got[-1] == "are you there?"


def test_a_farewell_ends_what_is_older_too():
    world, a, b = met()
    world.until(121)
    a.say("x")
    world.until(122)
    assert len(a.tunnel.before) == 1
    b.seal(("farewell", 1), False)
    world.until(123)
    assert a.sessions() == []


def test_a_farewell_of_an_old_session_ends_only_that():
    world, a, b = met()
    old = b.tunnel.sending
    world.until(121)
    a.say("x")
    world.until(122)
    assert b.tunnel.valid(world.now) == [b.tunnel.sending, old]
    b.seal(("farewell", 1), False, old)
    world.until(123)
    assert a.tunnel.before == ()
    assert a.tunnel.sending is not None
    b.check()


def test_a_farewell_of_an_erased_session_is_nothing():
    world, a, _b = met()
    session = a.tunnel.sending
    a.tunnel.forget()
    assert a.tunnel.receive_farewell(session, 1, world.now) == []


def test_forgetting_erases_everything():
    world, a, b = met()
    session = a.tunnel.sending
    a.tunnel.forget()
    a.armed = a.tunnel.deadline
    a.check()
    assert session.sealing.key is None
    assert a.indices.owners == {}
    a.say("again")
    world.until(8)
    assert b.got[-1] == "again"


@pytest.mark.parametrize(("reason", "quiet"), [(1, False), (2, True), (3, True)])
def test_who_is_not_wanted_begins_nothing_by_itself(reason: int, quiet: bool):
    world, a, b = met(a={"keepalive_s": 25.0})
    b.seal(("farewell", reason), False)
    b.tunnel.forget()
    b.armed = b.tunnel.deadline
    before = len(initiations(a))
    world.until(300)
    assert a.tunnel.quiet is quiet
    assert (len(initiations(a)) == before) is quiet
    a.say("my user wants to")
    world.run(10)
    assert b.got[-1] == "my user wants to"
    assert not a.tunnel.quiet


def test_a_farewell_stops_an_automatic_handshake():
    world, a, b = met()
    world.until(121)
    world.fate = lambda message, source, target: [] if isinstance(message, bytes) else [0.05]
    a.say("x")
    world.until(122)
    b.seal(("farewell", 2), False)
    before = len(initiations(a))
    world.until(250)
    assert len(initiations(a)) == before
    assert a.times(GaveUp) == []


# --- two devices


def two_devices(skew_us: int = 0) -> tuple[World, End, End, End]:
    """Bob knows Alice's laptop; her phone has the same key."""
    world = World()
    laptop = world.end("laptop", ALICE, BOB, "b")
    b = world.end("b", BOB, ALICE, "laptop")
    laptop.say("from the laptop")
    world.until(1)
    phone = world.end("phone", ALICE, BOB, "b", wall_us=50 * YEAR_US + skew_us)
    return world, laptop, phone, b


@pytest.mark.parametrize("skew_us", [0, YEAR_US, -YEAR_US])
def test_the_newest_handshake_wins_and_the_old_device_is_told(skew_us: int):
    world, laptop, phone, b = two_devices(skew_us)
    old = b.tunnel.sending
    phone.say("from the phone")
    world.until(2)
    assert b.got == ["from the laptop", "from the phone"]
    (superseded,) = [action for _, action in b.events if isinstance(action, Superseded)]
    assert superseded == Superseded((old,), phone.device)
    assert old.sealing.key is None
    assert kinds(b)[-2:] == ["Superseded", "Confirmed"]
    assert [action for _, action in laptop.events if isinstance(action, Ended)] == [Ended(2)]
    assert laptop.tunnel.quiet
    assert laptop.tunnel.sending is None
    b.say("to whom?")
    world.until(3)
    assert phone.got == ["to whom?"]
    assert laptop.got == []
    b.check()


def test_the_old_device_stays_quiet_until_its_user_comes_back():
    world, laptop, phone, b = two_devices()
    laptop.tunnel.keepalive_s = 25.0
    phone.say("from the phone")
    world.until(100)
    assert len(initiations(laptop)) == 1
    laptop.say("back at the desk")
    world.until(101)
    assert b.got[-1] == "back at the desk"
    assert phone.tunnel.quiet
    assert b.address == "laptop"


def test_an_initiator_notices_another_device_too():
    world, _laptop, phone, b = two_devices()
    world.until(122)
    b.tunnel.drop_next()
    b.address = "phone"
    b.tunnel._rekey(world.now)
    b.armed = b.tunnel.deadline
    world.run(1)
    assert Superseded in {type(action) for _, action in b.events}
    assert b.tunnel.sending.device == phone.device
    assert kinds(b)[-2:] == ["Superseded", "Established"]


def test_an_old_initiation_of_either_device_is_refused():
    world, laptop, phone, b = two_devices()
    phone.say("from the phone")
    world.until(2)
    for message in (initiations(laptop)[0], initiations(phone)[0]):
        b.receive(message, "x")
    assert b.refused == ["the initiation was seen before, or a newer one was"] * 2
    assert b.tunnel.next is None


def test_devices_cost_bounded_memory():
    world, _, _, b = two_devices()
    for number in range(20):
        device = world.end(f"d{number}", ALICE, BOB, "b", device=number.to_bytes(8, "big"))
        device.say(number)
        world.run(1)
        del world.ends[f"d{number}"]
    assert b.got[-20:] == list(range(20))
    assert len(b.tunnel._stamps) == 2 * 4
    b.check()


def test_initiate_counts_its_attempts():
    world, a, _ = pair()
    world.fate = lambda message, source, target: []
    a.say("x")
    world.until(100)
    attempts = [action.attempt for _, action in a.events if isinstance(action, Initiate)]
    assert attempts == list(range(18))
    assert [type(action) for _, action in a.events].count(Prepared) == 0
