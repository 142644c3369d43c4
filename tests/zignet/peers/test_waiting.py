"""Strangers that wait: bounded in number, time and by address, and each site has its turn."""

from __future__ import annotations

import random

from zignet.peers.waiting import MOST_OF_ONE_SITE, MOST_WAITING, WAIT_S, Waiting, site_of


def v4(number: int) -> bytes:
    return bytes(10) + b"\xff\xff" + number.to_bytes(4, "big")


def x(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_an_ipv6_site_is_a_64() -> None:
    net = bytes.fromhex("20010db800000001")
    assert site_of(net + bytes(8)) == site_of(net + b"\xff" * 8)
    assert site_of(net + bytes(8)) != site_of(bytes.fromhex("20010db800000002") + bytes(8))
    assert site_of(v4(1)) != site_of(v4(2))


def test_the_newest_message_of_a_key_waits() -> None:
    waiting = Waiting()
    assert waiting.add(x(1), b"old", "a", v4(1), 0.0) == ""
    assert waiting.add(x(1), b"new", "b", v4(1), 3.0) == ""
    assert len(waiting) == 1
    assert waiting.expire(WAIT_S + 1.0) == 0
    caller = waiting.take(x(1))
    assert caller is not None
    assert (caller.message, caller.address) == (b"new", "b")
    assert waiting.next() is None


def test_one_that_moves_counts_for_its_new_site() -> None:
    waiting = Waiting()
    waiting.add(x(1), b"", None, v4(1), 0.0)
    waiting.add(x(1), b"", None, v4(2), 0.0)
    for number in range(MOST_OF_ONE_SITE):
        assert waiting.add(x(100 + number), b"", None, v4(1), 0.0) == ""
    assert len(waiting) == MOST_OF_ONE_SITE + 1


def test_a_flood_from_one_site_leaves_room_and_turns_for_others() -> None:
    waiting = Waiting()
    kept = [waiting.add(x(number), b"", None, v4(1), 0.0) for number in range(10_000)]
    assert kept.count("") == MOST_OF_ONE_SITE
    assert "one address" in kept[-1]
    assert waiting.add(x(20_000), b"", None, v4(2), 0.0) == ""
    assert x(20_000) in [waiting.next(), waiting.next()]


def test_a_flood_from_everywhere_is_bounded() -> None:
    waiting = Waiting()
    for now in range(20):
        for number in range(5_000):
            waiting.add(x(now * 5_000 + number), b"", None, v4(number), float(now))
        waiting.expire(float(now))
        assert len(waiting) <= MOST_WAITING
        assert sum(map(len, waiting._turns.values())) <= MOST_WAITING
        assert len(waiting._by_site) <= MOST_WAITING
    assert waiting.expire(1000.0) == MOST_WAITING
    assert (waiting._turns, waiting._by_site) == ({}, {})


def test_nothing_is_left_whatever_happens() -> None:
    """Against a naive account, in any order of calls."""
    rng = random.Random(1)
    for _ in range(200):
        waiting, now, naive = Waiting(), 0.0, {}
        for _ in range(200):
            now += rng.random()
            key, site = x(rng.randrange(12)), v4(rng.randrange(3))
            match rng.randrange(5):
                case 0 | 1:
                    if not waiting.add(key, b"", None, site, now):
                        naive[key] = now
                case 2:
                    waiting.take(key)
                    naive.pop(key, None)
                case 3:
                    found = waiting.next()
                    assert found is None or found in naive
                    if found is not None and rng.random() < 0.5:
                        waiting.again(found)
                case 4:
                    waiting.expire(now)
                    naive = {k: at for k, at in naive.items() if at + WAIT_S > now}
            assert set(naive) == set(waiting._callers)
        waiting.expire(now + WAIT_S)
        assert len(waiting) == 0
        assert (waiting._turns, waiting._by_site) == ({}, {})
