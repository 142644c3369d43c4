"""The queue of time-outs, beside a naive one that looks at everything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat.expiry import Expiry

pytestmark = pytest.mark.packet_path


class Item:
    def __init__(self, touched):
        self.touched = touched


def test_ends_what_is_due_and_nothing_else():
    ended = []
    queue = Expiry(10.0, ended.append)
    items = [Item(now) for now in (0.0, 1.0, 2.0)]
    for item in items:
        queue.add(item)
    assert len(queue) == 3
    assert queue.oldest() is items[0]
    queue.sweep(9.9)
    assert ended == []
    queue.sweep(11.0)
    assert ended == items[:2]
    queue.discard(items[2])
    queue.discard(items[2])  # harmless
    queue.sweep(100.0)
    assert ended == items[:2]
    assert queue.oldest() is None


def test_what_was_touched_stays():
    ended = []
    queue = Expiry(10.0, ended.append)
    item = Item(0.0)
    queue.add(item)
    item.touched = 9.0
    queue.sweep(12.0)
    assert ended == []
    queue.sweep(19.0)
    assert ended == [item]


def test_the_callback_may_change_the_queue():
    ended = []
    items = [Item(0.0) for _ in range(4)]

    def expired(item):
        ended.append(item)
        queue.discard(items[1])
        if len(ended) == 1:
            again = Item(item.touched + 5.0)
            queue.add(again)

    queue = Expiry(10.0, expired)
    for item in items:
        queue.add(item)
    queue.sweep(10.0)
    assert ended == [items[0], items[2], items[3]]
    assert len(queue) == 1


def test_a_callback_that_raises_loses_only_its_own_item():
    queue = Expiry(1.0, lambda item: item.fail())
    queue.add(Item(0.0))
    queue.add(Item(0.0))
    for left in (1, 0):
        with pytest.raises(AttributeError):
            queue.sweep(5.0)
        assert len(queue) == left


DELAY = 10.0
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.just(0)),
        st.tuples(st.sampled_from(("touch", "discard")), st.integers(0, 20)),
        st.tuples(st.just("pass"), st.integers(0, 8)),
    ),
    max_size=60,
)


@given(steps)
def test_nothing_ends_early_and_nothing_stays_beyond_twice_the_delay(steps):
    now = 0.0
    ended = []
    queue = Expiry(DELAY, ended.append)
    live: list[Item] = []
    for what, number in steps:
        if what == "add":
            live.append(Item(now))
            queue.add(live[-1])
        elif what == "pass":
            now += number
            queue.sweep(now)
            for item in ended:
                assert now - item.touched >= DELAY
                live.remove(item)
            ended.clear()
            assert all(now - item.touched < 2 * DELAY + 8 for item in live)
        elif live:
            item = live[number % len(live)]
            if what == "touch":
                item.touched = now
            else:
                live.remove(item)
                queue.discard(item)
        assert len(queue) == len(live)
    queue.sweep(now + 2 * DELAY)
    assert len(queue) == 0
    assert set(ended) == set(live)
