"""mac1, mac2 and cookies, the clock by hand."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.zignet.noise.ends import ADDRESS, ALICE, BOB, flips
from zignet.noise import COOKIE_LIFE_S, COOKIE_SIZE, MacChecker, MacMaker
from zignet.noise.cookie import _mac

ELSEWHERE = ADDRESS[:15] + b"\x08" + ADDRESS[16:]
ANOTHER_PORT = ADDRESS[:17] + b"\x77"
MOMENT = 1e-3  # s


def initiation() -> bytes:
    return ALICE.begin(BOB)[0].message


class World:
    """Bob under load, Alice who answers him."""

    def __init__(self) -> None:
        self.maker, self.checker = MacMaker(BOB.static.public), MacChecker(BOB.static.public)
        self.message = self.maker.add(initiation(), 0.0)

    def given(self, now: float = 0.0, address: bytes = ADDRESS) -> bytes:
        return self.checker.cookie_for(self.message, address, now)

    def proves(self, now: float, address: bytes = ADDRESS) -> bool:
        """Whether a further initiation bears a mac2 that counts."""
        self.message = self.maker.add(initiation(), now)
        assert self.checker.mac1_ok(self.message)
        return self.checker.mac2_ok(self.message, address, now)


def test_mac1():
    _, message = ALICE.begin(BOB)
    assert BOB.checker.mac1_ok(message)
    assert not ALICE.checker.mac1_ok(message)
    assert not any(BOB.checker.mac1_ok(damaged) for damaged in flips(message, len(message) - 16))
    assert BOB.checker.mac1_ok(message[:-16] + b"\1" * 16)  # mac2 is none of its business
    answer = BOB.answer(BOB.opens(message))
    assert ALICE.checker.mac1_ok(answer)
    assert not BOB.checker.mac1_ok(answer)


@given(st.binary(max_size=300))
def test_mac1_of_anything(data: bytes):
    assert not BOB.checker.mac1_ok(data)


def test_mac1_wants_the_length_of_the_type():
    _, message = ALICE.begin(BOB)
    for size in [*range(len(message)), len(message) + 1]:
        assert not BOB.checker.mac1_ok((message + b"\0")[:size])
    key = BOB.checker._mac1_key
    for kind, size in ((1, 104), (2, 220), (3, 220), (3, 64), (4, 104), (0, 104)):
        body = bytes((kind,)) + bytes(size - 33)
        assert not BOB.checker.mac1_ok(body + _mac(key, body) + bytes(16))


def test_without_a_cookie_mac2_is_zero_and_does_not_count():
    world = World()
    assert world.message[-16:] == bytes(16)
    assert not world.checker.mac2_ok(world.message, ADDRESS, 0.0)


def test_a_cookie_proves_the_address():
    world = World()
    cookie = world.given()
    assert len(cookie) == COOKIE_SIZE
    assert cookie[4:8] == world.message[4:8]
    assert world.maker.cookie_received(cookie, 1.0)
    assert world.proves(2.0)
    assert not world.checker.mac2_ok(world.message, ELSEWHERE, 2.0)
    assert not world.checker.mac2_ok(world.message, ANOTHER_PORT, 2.0)
    assert not any(
        world.checker.mac2_ok(damaged, ADDRESS, 2.0) for damaged in flips(world.message, len(world.message))
    )


def test_a_cookie_for_another_address_is_of_no_use():
    world = World()
    assert world.maker.cookie_received(world.given(address=ELSEWHERE), 0.0)
    assert not world.proves(1.0)
    assert world.proves(1.0, ELSEWHERE)


def test_a_response_can_be_answered_by_a_cookie_too():
    maker, checker = MacMaker(ALICE.static.public), MacChecker(ALICE.static.public)
    body = BOB.answer(BOB.opens(ALICE.begin(BOB)[1]))[:-32]
    message = maker.add(body, 0.0)
    assert maker.cookie_received(checker.cookie_for(message, ADDRESS, 0.0), 0.0)
    assert checker.mac2_ok(maker.add(body, 1.0), ADDRESS, 1.0)


def test_a_cookie_lasts_as_long_as_it_should_at_its_owner():
    world = World()
    assert world.maker.cookie_received(world.given(), 10.0)
    assert world.proves(10.0 + COOKIE_LIFE_S - MOMENT)
    assert world.maker.add(initiation(), 10.0 + COOKIE_LIFE_S)[-16:] == bytes(16)
    assert world.maker.add(initiation(), 11.0)[-16:] == bytes(16)  # gone is gone


@pytest.mark.parametrize("begun", [0.0, 1e6])
def test_the_secret_changes_and_the_one_before_is_good_for_as_long_again(begun: float):
    world = World()
    checker = world.checker
    early, late = world.given(begun), world.given(begun + COOKIE_LIFE_S - MOMENT)
    world.maker.cookie_received(early, begun)
    bearing = world.maker.add(initiation(), begun)
    assert checker.mac2_ok(bearing, ADDRESS, begun + COOKIE_LIFE_S - MOMENT)
    assert checker.mac2_ok(bearing, ADDRESS, begun + COOKIE_LIFE_S)  # a new secret from here on
    assert checker.mac2_ok(bearing, ADDRESS, begun + 2 * COOKIE_LIFE_S - MOMENT)
    assert not checker.mac2_ok(bearing, ADDRESS, begun + 2 * COOKIE_LIFE_S)
    assert len({cookie[8:] for cookie in (early, late)}) == 2


def test_the_new_secret_gives_other_cookies():
    world = World()
    maker = MacMaker(BOB.static.public)
    world.maker.cookie_received(world.given(0.0), 0.0)
    world.message = maker.add(initiation(), 0.0)
    maker.cookie_received(world.given(COOKIE_LIFE_S), COOKIE_LIFE_S)
    message = initiation()
    # The same initiation, one with the old cookie and one with the new
    old, new = world.maker.add(message, 1.0), maker.add(message, COOKIE_LIFE_S)
    assert old[:-16] == new[:-16]
    assert old != new
    assert all(world.checker.mac2_ok(one, ADDRESS, COOKIE_LIFE_S) for one in (old, new))
    assert not world.checker.mac2_ok(old, ADDRESS, 2 * COOKIE_LIFE_S)
    assert world.checker.mac2_ok(new, ADDRESS, 3 * COOKIE_LIFE_S - MOMENT)


def test_a_secret_that_rested_is_not_good_for_longer():
    world = World()
    world.maker.cookie_received(world.given(0.0), 0.0)
    bearing = world.maker.add(initiation(), 0.0)
    assert not world.checker.mac2_ok(bearing, ADDRESS, 1000.0)
    assert not world.checker.mac2_ok(bearing, ADDRESS, 1001.0)


def test_a_cookie_that_answers_nothing_is_ignored():
    world = World()
    fresh = MacMaker(BOB.static.public)
    assert not fresh.cookie_received(world.given(), 0.0)
    cookie = world.given()
    world.maker.add(initiation(), 0.0)  # it answers the message before
    assert not world.maker.cookie_received(cookie, 0.0)
    assert world.maker.add(initiation(), 0.0)[-16:] == bytes(16)


def test_a_cookie_counts_once():
    world = World()
    cookie = world.given()
    assert world.maker.cookie_received(cookie, 0.0)
    assert not world.maker.cookie_received(cookie, 100.0)  # or it would be kept for longer
    assert not world.proves(COOKIE_LIFE_S)


def test_a_forged_cookie_leaves_the_good_one():
    world = World()
    good = world.given()
    other = MacChecker(ALICE.static.public).cookie_for(world.message, ADDRESS, 0.0)
    for forged in (
        other,
        *flips(good, COOKIE_SIZE),
        *(good[:size] for size in range(COOKIE_SIZE)),
        good + b"\0",
    ):
        if forged[4:8] == good[4:8] or len(forged) != COOKIE_SIZE:  # the index is the caller's to look up
            assert not world.maker.cookie_received(forged, 0.0)
    assert world.maker.cookie_received(good, 0.0)
    assert world.proves(1.0)


def test_nonces_are_random():
    world = World()
    asked = []

    def random(size: int) -> bytes:
        asked.append(size)
        return os.urandom(size)

    world.checker = MacChecker(BOB.static.public, random)
    assert len({world.given()[8:32] for _ in range(5)}) == 5
    assert sorted(asked) == [24] * 5 + [32]


@pytest.mark.parametrize("size", [0, 16, 17, 19])
def test_an_address_has_18_bytes(size: int):
    with pytest.raises(ValueError, match="16 bytes"):
        World().given(address=bytes(size))
