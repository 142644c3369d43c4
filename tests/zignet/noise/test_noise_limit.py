"""The rate limit of addresses, against a plain bucket."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from zignet.noise import RateLimiter


def mapped(text: str) -> bytes:
    packed = ip_address(text).packed
    return bytes(10) + b"\xff\xff" + packed if len(packed) == 4 else packed


A, B = mapped("192.0.2.1"), mapped("192.0.2.2")


def test_a_burst_of_five_and_then_twenty_a_second():
    limiter = RateLimiter()
    assert [limiter.allow(A, 100.0) for _ in range(8)] == [True] * 5 + [False] * 3
    assert not limiter.allow(A, 100.049)
    assert limiter.allow(A, 100.05)
    assert not limiter.allow(A, 100.051)
    assert sum(limiter.allow(A, 101 + i / 1000) for i in range(10_000)) in range(200, 206)


def test_after_a_rest_no_more_than_a_burst():
    limiter = RateLimiter()
    assert sum(limiter.allow(A, 0.0) for _ in range(9)) == 5
    assert sum(limiter.allow(A, 1000.0) for _ in range(9)) == 5


def test_addresses_do_not_share():
    limiter = RateLimiter()
    assert sum(limiter.allow(A, 0.0) for _ in range(9)) == 5
    assert limiter.allow(B, 0.0)


def test_ports_do_not_matter():
    limiter = RateLimiter()
    assert sum(limiter.allow(A + port.to_bytes(2, "big"), 0.0) for port in range(9)) == 5


def test_a_site_of_ipv6_is_one_address():
    limiter = RateLimiter()
    site = [mapped(f"2001:db8:1:2::{i:x}") for i in range(9)]
    assert sum(limiter.allow(address, 0.0) for address in site) == 5
    assert limiter.allow(mapped("2001:db8:1:3::1"), 0.0)
    assert len(limiter) == 2


def test_mapped_addresses_are_not_one_site():
    limiter = RateLimiter()
    assert all(limiter.allow(mapped(f"192.0.2.{i}"), 0.0) for i in range(100))


def test_memory_is_bounded_and_the_least_recent_goes():
    limiter = RateLimiter(most=3)
    for _ in range(9):
        limiter.allow(A, 0.0)
    for i in range(2, 1000):
        limiter.allow(mapped(f"10.0.{i // 250}.{i % 250}"), 0.0)
        assert len(limiter) <= 3
        assert not limiter.allow(A, 0.0)  # who keeps asking stays
    for i in range(3):
        limiter.allow(mapped(f"10.1.0.{i}"), 0.0)
    assert limiter.allow(A, 0.0)


def test_the_bound_as_it_is():
    limiter = RateLimiter()
    for i in range(10_050):
        limiter.allow(mapped(str(ip_address(0x0A000000 + i))), 0.0)
    assert len(limiter) == 10_000


@given(st.lists(st.tuples(st.sampled_from([A, B]), st.integers(0, 40)), max_size=200))
def test_as_a_plain_bucket(asks: list[tuple[bytes, int]]):
    """Times in steps of 1/1000 s: tokens are counted in fiftieths, so that the oracle is exact."""
    limiter, now = RateLimiter(), 0
    buckets: dict[bytes, tuple[int, int]] = {}
    for address, wait in asks:
        now += wait
        tokens, then = buckets.get(address, (250, now))
        tokens = min(250, tokens + now - then)
        allowed = tokens >= 50
        assert limiter.allow(address, now / 1000) == allowed
        buckets[address] = (tokens - 50 * allowed, now)
