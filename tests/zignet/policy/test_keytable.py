"""The table of keys against a dictionary."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zignet.policy.keytable import KeyTable

pytestmark = pytest.mark.packet_path


def bare(key: bytes) -> bytes:
    return key[:31] + bytes([key[31] & 0x7F])


# Few first words, so that keys meet in their slots; few last bytes, so that there are doubles and negations.
keys = st.builds(
    lambda word, middle, last: word.to_bytes(8, "little") + bytes([middle]) * 23 + bytes([last]),
    st.integers(0, 3) | st.integers(0, 2**64 - 1),
    st.integers(0, 2),
    st.sampled_from([0, 1, 0x7F, 0x80, 0x81, 0xFF]),
)


@given(st.lists(st.lists(keys, max_size=20), max_size=6), st.lists(keys, max_size=20))
def test_as_a_dictionary(pieces, strangers):
    table = KeyTable(sum(map(len, pieces)))
    expected: dict[bytes, int] = {}
    line = 0
    for piece in pieces:
        lines = range(line + 1, line + 1 + 3 * len(piece), 3)
        line += 3 * len(piece)
        table.add(b"".join(piece), list(lines))
        for key, number in zip(piece, lines, strict=True):
            expected.setdefault(bare(key), number)
    assert len(table) == len(expected)
    for key in [key for piece in pieces for key in piece] + strangers:
        assert table.line_of(key) == expected.get(bare(key), 0)


def test_full_to_the_last_place():
    chance = random.Random(7)
    for count in (0, 1, 7, 8, 9, 4096):
        table = KeyTable(count)
        some = [chance.randbytes(32) for _ in range(count)]
        table.add(b"".join(some), range(1, count + 1))
        assert [table.line_of(key) for key in some] == list(range(1, count + 1))
        assert table.line_of(chance.randbytes(32)) == 0
        with pytest.raises(ValueError, match="no more keys than"):
            table.add(bytes(32), [1])


def test_what_does_not_fit_together():
    with pytest.raises(ValueError, match="a line for each key"):
        KeyTable(9).add(bytes(33), [1])
    with pytest.raises(ValueError, match="a line for each key"):
        KeyTable(9).add(bytes(32), [1, 2])


def test_keys_that_were_chosen_to_meet_do_not():
    """Who makes keys with equal low bits makes no long chains: the salt is not known."""
    table = KeyTable(4096)
    some = [(number << 32 | 5).to_bytes(8, "little") + bytes(24) for number in range(4096)]
    table.add(b"".join(some), range(1, 4097))
    slots = {(int.from_bytes(key[:8], "little") * table._salt & (2**64 - 1)) >> table._shift for key in some}
    assert len(slots) > 1024
