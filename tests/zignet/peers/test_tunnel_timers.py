"""Every timer of the protocol, to the hundredth of a second, in numbers that are written out here."""

from __future__ import annotations

import pytest

from tests.zignet.peers.tunnels import START, Data, End, World, kinds, met, pair
from zignet.peers import tunnel as module
from zignet.peers.actions import (
    Dead,
    Established,
    Expired,
    GaveUp,
    Initiate,
    Keepalive,
    Resumed,
    Unheard,
)


def mute(world: World, name: str = "") -> None:
    """Nothing that this end (all) sends arrives any more."""
    world.fate = lambda message, source, target: [] if source == name or not name else [0.05]


def hush(end: End) -> None:
    """Nothing is outstanding on this end: neither an answer nor a sign of life."""
    end.tunnel.unheard_since = end.tunnel.unanswered_since = 0.0


def initiations(end: End) -> list[float]:
    return end.times(Initiate)


# --- REKEY_TIMEOUT, REKEY_JITTER, REKEY_ATTEMPT_TIME


def test_an_initiation_is_repeated_every_five_seconds():
    world, a, _ = pair()
    mute(world)
    a.say("x")
    world.until(30)
    assert initiations(a) == pytest.approx([0, 5, 10, 15, 20, 25, 30])


def test_the_jitter_comes_on_top():
    world, a, _ = pair(a={"jitter": 0.25})
    mute(world)
    a.say("x")
    world.until(17)
    assert initiations(a) == pytest.approx([0, 5.25, 10.5, 15.75])
    assert pytest.approx(1 / 3) == module.REKEY_JITTER


def test_giving_up_after_ninety_seconds():
    world, a, b = pair(a={"jitter": 0.25})
    mute(world)
    a.say("x")
    world.until(89.9)
    assert a.staged == ["x"]
    world.until(400)
    assert a.times(GaveUp) == [90.0]
    assert a.staged == []
    assert len(initiations(a)) == 18
    assert max(initiations(a)) < 90
    assert a.indices.owners == {}
    world.fate = lambda message, source, target: [0.05]
    a.say("y")
    world.run(1)
    assert b.got == ["y"]


def test_after_giving_up_the_next_packet_begins_anew():
    world, a, _ = pair()
    mute(world)
    for second in range(100):
        world.until(second)
        a.say(second)
    assert a.times(GaveUp) == [90.0]
    assert [when for when in initiations(a) if when > 84] == pytest.approx([85, 90, 95])


def test_a_handshake_right_after_another_waits_its_turn():
    """Five seconds lie between two initiations, whatever becomes of the first."""
    world, a, b = met()
    a.tunnel.forget()
    a.say("x")
    world.until(4.9)
    assert initiations(a) == [0.0]
    world.until(5.5)
    assert initiations(a) == [0.0, 5.0]
    assert b.got[-1] == "x"


# --- REKEY_AFTER_TIME


@pytest.mark.parametrize(("when", "begins"), [(120.05, False), (120.1, True)])
def test_the_initiator_renews_when_it_sends_after_two_minutes(when: float, begins: bool):
    world, a, b = met()  # its session is of 0.1
    hush(a)
    hush(b)
    world.until(when)
    a.say("x")
    world.until(when + 0.01)
    assert initiations(a) == pytest.approx([0.0, when] if begins else [0.0])
    world.until(when + 0.2)
    assert b.got[-1] == "x"  # meanwhile on the old one


def test_the_responder_does_not():
    world, a, b = met()
    hush(a)
    for second in range(2, 164):
        world.until(second)
        b.say(second)
        hush(b)
        hush(a)
    assert initiations(b) == []
    assert initiations(a) == [0.0]


def test_nobody_renews_what_nobody_uses():
    world, a, b = met()
    world.until(600)
    assert initiations(a) == [0.0]
    assert initiations(b) == []


def test_a_renewal_is_no_flood():
    world, a, b = met()
    world.until(121)
    mute(world, "b")
    for number in range(1000):
        a.say(number)
        world.run(0.01)
    assert len(initiations(a)) == 1 + 2
    assert len(b.got) > 990
    assert b.refused == []


# --- REJECT_AFTER_TIME − KEEPALIVE_TIMEOUT − REKEY_TIMEOUT


@pytest.mark.parametrize(("when", "begins"), [(164.95, False), (165.05, True)])
def test_the_initiator_renews_when_it_hears_something_on_an_old_session(when: float, begins: bool):
    world, a, b = met()
    hush(a)
    hush(b)
    world.until(when)
    b.say("x")
    world.until(when + 0.09)
    assert len(initiations(a)) == (2 if begins else 1)
    assert a.got[-1] == "x"


def test_something_late_on_an_older_session_renews_nothing():
    world, a, b = met()
    world.until(121)
    a.say("x")
    world.until(122)
    old = b.tunnel.before[0]
    world.until(166)
    before = len(initiations(a))
    b.seal("late", True, old)
    world.until(167)
    assert a.got[-1] == "late"
    assert len(initiations(a)) == before


# --- REJECT_AFTER_TIME


@pytest.mark.parametrize(("when", "stands"), [(180.0, True), (180.2, False)])
def test_nothing_is_sent_after_three_minutes(when: float, stands: bool):
    world, a, b = met()
    mute(world)
    hush(a)
    hush(b)
    world.until(when)
    assert a.tunnel.before_send(world.now) is stands
    assert (a.tunnel.sending is not None) is stands  # the key is gone with it


def test_before_send_needs_no_timer():
    _world, a, _ = met()
    session = a.tunnel.sending
    assert a.tunnel.before_send(session.born + 179.99)
    assert not a.tunnel.before_send(session.born + 180.0)


def test_nothing_is_taken_after_three_minutes():
    world, a, b = met()
    session = b.tunnel.sending
    hush(a)
    hush(b)
    world.fate = lambda message, source, target: [0.2]
    world.until(179.95)
    a.seal("too late", True)
    world.until(180.3)
    assert b.got == ["hello"]
    assert b.refused == ["unknown session"]
    assert session.sealing.key is None


def test_a_session_before_is_erased_in_time():
    world, a, _b = met()
    old = a.tunnel.sending
    world.until(121)
    a.say("x")
    world.until(180.05)
    assert old.sealing.key is not None
    world.until(180.15)
    assert old.sealing.key is None
    assert a.tunnel.before == ()


# --- KEEPALIVE_TIMEOUT


def test_data_that_nobody_answers_is_answered_by_a_keepalive():
    world, a, b = met()
    world.until(20)
    sent = len([one for one in b.sent if isinstance(one[1], Data)])
    a.say("x")  # arrives at 20.05
    world.until(30.0)
    assert b.times(Keepalive) == []
    world.until(30.1)
    assert b.times(Keepalive) == [30.05]
    world.until(60)
    assert b.times(Keepalive) == [30.05]
    assert len([one for one in b.sent if isinstance(one[1], Data)]) == sent + 1


def test_ten_seconds_count_from_the_first_data():
    world, a, b = met()
    world.until(20)
    for _ in range(15):
        a.say("x")
        world.run(1)
    assert b.times(Keepalive) == [30.05]


def test_an_answer_makes_a_keepalive_superfluous():
    world, a, b = met()
    world.until(20)
    a.say("x")
    world.until(29)
    b.say("y")
    world.until(38.9)
    assert b.times(Keepalive) == []
    assert a.times(Keepalive) == [10.25]
    world.until(39.1)
    assert a.times(Keepalive) == [10.25, 39.05]


def test_a_keepalive_is_not_answered():
    world, a, b = met()
    world.until(500)
    keepalives = len(a.times(Keepalive)) + len(b.times(Keepalive))
    assert keepalives == 1  # for the "welcome" that Alice was sent


# --- KEEPALIVE_TIMEOUT + REKEY_TIMEOUT


def test_silence_after_data_begins_a_handshake():
    world, a, _b = met()
    world.until(20)
    mute(world, "b")
    a.say("x")
    world.until(25)
    a.say("y")
    world.until(34.9)
    assert a.times(Unheard) == []
    world.until(35.1)
    assert a.times(Unheard) == [35.0]
    assert initiations(a) == [0.0, 35.0]
    world.fate = lambda message, source, target: [0.05]
    world.until(41)
    assert a.times(Established) == pytest.approx([0.1, 40.1])


def test_anything_heard_is_a_sign_of_life():
    world, a, b = met()
    world.until(20)
    mute(world, "b")
    a.say("x")
    world.until(34)
    world.fate = lambda message, source, target: [0.05]
    b.seal("keepalive", False)
    world.until(60)
    assert a.times(Unheard) == []


def test_silence_after_keepalives_means_nothing():
    world, a, _ = met()
    hush(a)
    mute(world, "b")
    a.seal("keepalive", False)
    world.until(100)
    assert a.times(Unheard) == []


def test_only_data_is_expected_to_be_answered():
    world, a, b = met()
    hush(b)
    a.seal("keepalive", False)
    world.until(100)
    assert b.times(Keepalive) == []


# --- keepalive_s


def test_a_configured_keepalive():
    world, a, b = pair(a={"keepalive_s": 25.0})
    world.until(120)
    assert initiations(a) == [0.0]
    assert a.times(Keepalive) == pytest.approx([25.1, 50.1, 75.1, 100.1])
    assert b.times(Keepalive) == []
    world.until(1200)
    gaps = [
        later - earlier for earlier, later in zip(a.times(Keepalive), a.times(Keepalive)[1:], strict=False)
    ]
    assert max(gaps) < 25.3  # through all renewals
    assert len(initiations(a)) == pytest.approx(1200 / 125, abs=1)


def test_a_keepalive_counts_from_what_was_sent():
    world, a, _ = pair(a={"keepalive_s": 25.0})
    world.until(20)
    a.say("x")
    world.until(44.9)
    assert a.times(Keepalive) == []
    world.until(45.1)
    assert a.times(Keepalive) == [45.0]


def test_what_the_other_side_sends_does_not_replace_it():
    """A NAT may forget a mapping that is used from outside only (RFC 4787, REQ-6)."""
    world, a, b = pair(a={"keepalive_s": 5.0})
    world.until(1)
    for _ in range(30):
        b.say("x")
        world.run(1)
    assert len(a.times(Keepalive)) == 6


def test_a_configured_keepalive_never_gives_up_for_good():
    world, a, b = pair(a={"keepalive_s": 25.0})
    a.events.clear()
    b.wall_us -= 1  # Bob is not there yet
    world.ends.pop("b")
    world.until(89)
    assert len(initiations(a)) == 17
    world.until(114)
    assert a.times(GaveUp) == [90.0]
    assert max(initiations(a)) == 85.0
    world.ends["b"] = b
    world.until(116)
    assert a.times(Established) == pytest.approx([115.1])


# --- UNCONFIRMED_TIME


@pytest.mark.parametrize(("when", "stands"), [(15.0, True), (15.1, False)])
def test_a_session_that_is_not_proved_is_dropped(when: float, stands: bool):
    world, a, b = pair()
    a.say("x")
    world.run(0.06)
    world.ends.pop("a")  # it never hears of it
    session = b.tunnel.next
    world.until(when)
    assert (b.tunnel.next is session) is stands
    assert (session.sealing.key is not None) is stands
    b.check()
    world.until(1000)
    assert kinds(b) == ["Prepared", "Respond"]


# --- 3 × REJECT_AFTER_TIME


def test_everything_is_forgotten_after_nine_minutes():
    world, a, b = met()
    world.until(540.0)
    assert a.times(Expired) == []
    world.until(541)
    assert a.times(Expired) == [540.1]  # after the session of 0.1
    assert b.times(Expired) == [540.15]  # valid since 0.15
    for end in (a, b):
        assert end.sessions() == []
        assert end.indices.owners == {}
        assert end.tunnel._macs is None
        assert end.tunnel.deadline == float("inf")
    a.say("once more")
    world.run(1)
    assert b.got[-1] == "once more"


def test_a_new_session_puts_it_off():
    world, a, _ = met()
    world.until(300)
    a.say("x")
    world.until(839)
    assert a.times(Expired) == []
    world.until(841)
    assert a.times(Expired) == [840.1]


def test_not_in_the_midst_of_a_handshake():
    world, a, _ = met()
    mute(world)
    world.until(500)
    a.say("x")
    world.until(589)
    assert a.times(Expired) == []
    world.until(591)
    assert a.times(Expired) == a.times(GaveUp) == [590.0]


# --- REKEY_AFTER_MESSAGES, and the end of the counter


@pytest.mark.parametrize("who", ["initiator", "responder"])
def test_many_messages_are_a_reason_to_renew(who: str):
    world, a, b = met()
    one = a if who == "initiator" else b
    one.tunnel.sending.sealing.counter = (1 << 59) - 2
    one.say("x")
    world.until(1)
    before = len(initiations(one))
    one.say("y")
    world.until(6)
    assert len(initiations(one)) == before + 1
    assert one.tunnel.sending.sealing.counter < 100
    assert one.tunnel.sending.initiator


def test_the_counter_never_reaches_its_end():
    world, a, b = met()
    a.tunnel.sending.sealing.counter = (1 << 60) - (1 << 16) - 1
    assert a.tunnel.before_send(world.now)
    a.tunnel.sending.sealing.counter += 1
    assert not a.tunnel.before_send(world.now)
    a.say("x")
    world.until(6)
    assert b.got[-1] == "x"
    assert a.tunnel.sending.sealing.counter == 1


# --- what the packet path is told


def test_the_deadline_comes_nearer_only_when_it_does():
    world, a, b = met()
    tunnel = a.tunnel
    hush(a)
    tunnel.handle_timer(world.now)
    assert tunnel.sent(world.now, True)
    assert tunnel.deadline == world.now + 15
    assert not tunnel.sent(world.now + 1, True)
    assert tunnel.deadline == START + 0.3 + 15
    assert tunnel.heard(tunnel.sending, world.now + 2, True)
    assert tunnel.deadline == pytest.approx(START + 0.3 + 12)
    assert not tunnel.heard(tunnel.sending, world.now + 3, True)
    assert (tunnel.sent_at, tunnel.received_at) == (pytest.approx(START + 1.3), pytest.approx(START + 3.3))
    assert b.tunnel.deadline > world.now


def test_a_timer_that_comes_too_early_does_nothing():
    world, a, _ = met()
    deadline = a.tunnel.deadline
    for _ in range(5):
        assert a.tunnel.handle_timer(world.now) == []
    assert a.tunnel.deadline == deadline


def test_a_timer_that_comes_much_too_late():
    """The machine was suspended: hours later everything is settled at once, and the next packet begins anew."""
    world, a, b = met()
    world.now += 10_000
    actions = a.tunnel.handle_timer(world.now)
    assert Expired() in actions
    assert a.sessions() == []
    a.armed = a.tunnel.deadline
    a.say("good morning")
    world.run(10)
    assert b.got[-1] == "good morning"


# --- a peer that does not answer


def test_a_peer_that_never_answered_is_dead_after_four_attempts():
    """Seventeen seconds: a first contact has a fair chance. And again with each attempt, until it is given up."""
    world, a, b = pair()
    mute(world)
    a.say("x")
    world.until(16.9)
    assert not a.tunnel.dead
    world.until(200)
    assert a.times(Dead) == pytest.approx([17.0 + 5 * n for n in range(15)])
    assert [action.again for _, action in a.events if isinstance(action, Dead)] == [False] + 14 * [True]
    assert a.tunnel.dead  # given up, and still so
    a.say("y")  # who is known to be dead has one attempt
    world.until(201.9)
    assert len(a.times(Dead)) == 15
    world.until(202.1)
    assert len(a.times(Dead)) == 16
    world.fate = lambda message, source, target: [0.05]
    world.until(206)
    assert not a.tunnel.dead
    assert b.got == ["y"]
    assert len(a.times(Dead)) == 16
    assert len(a.times(Resumed)) == 1


def test_a_peer_that_falls_silent_is_dead_after_twenty_two_seconds():
    world, a, _ = met()
    world.until(20)
    hush(a)
    mute(world)
    a.say("x")
    world.until(41.9)
    assert a.times(Unheard) == [35.0]
    assert not a.tunnel.dead
    world.until(42.1)
    assert a.times(Dead) == [42.0]
    assert a.tunnel.dead


def test_twenty_seconds_of_silence_are_forgiven():
    """The path was away, and is back before the attempts are in vain: a new session, and no harm done."""
    world, a, b = met()
    world.until(20)
    hush(a)
    mute(world)
    a.say("x")
    world.until(39)
    world.fate = lambda message, source, target: [0.05]
    world.until(60)
    assert a.times(Unheard) == [35.0]
    assert a.times(Dead) == []
    assert len(a.times(Resumed)) == 1
    a.say("y")
    world.run(1)
    assert b.got[-1] == "y"


def test_whatever_is_heard_shows_that_the_peer_lives():
    """On the old session, while an attempt is under way."""
    world, a, b = met()
    world.until(20)
    hush(a)
    mute(world)
    a.say("x")
    world.until(43)
    assert a.tunnel.dead
    world.fate = lambda message, source, target: [0.05] if source == "b" else []
    b.say("still here")
    world.run(1)
    assert not a.tunnel.dead


def test_a_renewal_that_nobody_answers_kills_nobody_who_is_heard():
    """The handshakes are lost, the data is not."""
    world, a, b = met()
    world.fate = lambda message, source, target: [0.05] if isinstance(message, Data) else []
    for second in range(170):
        world.until(second)
        a.say(second)
        b.say(second)
    assert len(initiations(a)) > 5
    assert a.times(Dead) == []


def test_who_has_said_farewell_is_dead_until_it_is_back():
    world, a, b = met()
    a.tunnel.receive_farewell(a.tunnel.sending, 1, world.now)
    assert a.tunnel.dead
    a.say("x")
    world.run(6)
    assert not a.tunnel.dead
    assert b.got[-1] == "x"
