"""Lines of session keys."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zignet.wire.keylog import LINE_LIMIT, BadLine, KeyLog, SessionKeys, format_line, parse_line

SEND, RECEIVE = bytes(range(32)), bytes(range(32, 64))
PEER = "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrstuvwx"
LINE = format_line(1, 0x0A, 0xDEADBEEF, SEND, RECEIVE, PEER)
keys = st.binary(min_size=32, max_size=32)
indices = st.integers(1, 0xFFFFFFFF)
peers = st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=56, max_size=56)


def test_the_line():
    assert f"1 1 0000000a deadbeef {SEND.hex()} {RECEIVE.hex()} {PEER}\n" == LINE


@given(st.sampled_from((1, 2)), indices, indices, keys, keys, peers)
def test_there_and_back(suite, local, remote, send, receive, peer):
    line = format_line(suite, local, remote, send, receive, peer)
    assert parse_line(line) == SessionKeys(suite, local, remote, send, receive, peer)
    assert parse_line(line[:-1] + " \r\n") == parse_line(line)


def test_keys_are_bytearrays_in_the_node():
    assert format_line(1, 0x0A, 0xDEADBEEF, bytearray(SEND), bytearray(RECEIVE), PEER) == LINE


def test_cut_at_each_byte_and_with_bytes_behind():
    for end in range(len(LINE) - 1):
        with pytest.raises(BadLine):
            parse_line(LINE[:end])
    for behind in ("x", " x", "2"):
        with pytest.raises(BadLine):
            parse_line(LINE.strip() + behind)


@pytest.mark.parametrize("at", range(7))
@pytest.mark.parametrize("word", ["", "0", "x", "３", "00000000", "g" * 64, "A" * 56, "9" * 200])
def test_every_field_is_looked_at(at, word):
    words = LINE.split()
    words[at] = word
    with pytest.raises(BadLine) as caught:
        parse_line(" ".join(words))
    assert SEND.hex()[:8] not in str(caught.value)


@pytest.mark.parametrize(
    "change", [{"suite": 3}, {"local_index": 0}, {"send_key": b"short"}, {"peer": "bob"}]
)
def test_what_can_not_be_formatted(change):
    arguments = {
        "suite": 1,
        "local_index": 1,
        "remote_index": 2,
        "send_key": SEND,
        "receive_key": RECEIVE,
        "peer": PEER,
    }
    with pytest.raises(ValueError, match=r"is not one|never 0"):
        format_line(**{**arguments, **change})


def test_a_log_with_bad_lines():
    text = f"# comment\n\n{LINE}nonsense\n{LINE}{LINE.replace('deadbeef', '00000009')}1 1\n"
    log = KeyLog.read(io.StringIO(text))
    assert log.sessions == 2
    assert log.bad_lines == 2
    assert [number for number, _ in log.problems] == [4, 7]
    session = parse_line(LINE)
    assert log.find(0xDEADBEEF) == [(session, SEND, True)]
    assert [(key, sent) for _, key, sent in log.find(0x0A)] == [(RECEIVE, False), (RECEIVE, False)]
    assert log.find(5) == []


def test_one_index_both_ways():
    """Both sides may choose the same number."""
    log = KeyLog.read(io.StringIO(format_line(2, 7, 7, SEND, RECEIVE, PEER)))
    assert sorted((key, sent) for _, key, sent in log.find(7)) == sorted([(SEND, True), (RECEIVE, False)])


def test_endless_lines_cost_no_memory():
    text = (
        "x" * 3 * LINE_LIMIT
        + LINE
        + LINE
        + "y" * (LINE_LIMIT - 1)
        + "\n"
        + LINE.replace("deadbeef", "00000009")
    )
    log = KeyLog.read(io.StringIO(text))
    assert log.sessions == 2
    assert [number for number, _ in log.problems] == [1, 3]


def test_problems_are_bounded():
    log = KeyLog.read(io.StringIO("bad\n" * 1000))
    assert log.bad_lines == 1000
    assert len(log.problems) == 100


def test_no_key_is_ever_shown():
    log = KeyLog.read(io.StringIO(LINE))
    for shown in (repr(parse_line(LINE)), repr(log), str(log.problems)):
        for key in (SEND, RECEIVE):
            assert key.hex()[:16] not in shown
            assert repr(key)[2:20] not in shown
