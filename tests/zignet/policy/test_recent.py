"""What is kept, against a list of all that was asked for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zignet.policy.recent import Recent


@given(st.integers(1, 5), st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=60))
def test_the_latest_half_is_kept_and_no_more_than_all(half, steps):
    recent: Recent[int] = Recent(2 * half)
    written: dict[bytes, int] = {}
    latest: list[bytes] = []  # the last is the latest
    for at, (write, number) in enumerate(steps):
        key = bytes([number])
        if write:
            recent.put(key, at)
            written[key] = at
        else:
            found = recent.get(key)
            assert found in (None, written.get(key))
            assert found is not None or key not in latest[-half:]
            if found is None:
                continue
        latest = [each for each in latest if each != key] + [key]
        assert len(recent) <= 2 * half
    recent.clear()
    assert len(recent) == 0
