"""Files of keys: notations, comments, bad lines, very long ones."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.fuzzing import run
from tests.zignet.policy.fuzz import TARGETS
from tests.zignet.policy.keys import KEYS, negation
from zignet.identity import names
from zignet.policy import keyfile
from zignet.policy.keyfile import parse_keys, read_keys

pytestmark = pytest.mark.packet_path

A, B, C, D, E = KEYS[:5]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
def test_briefly(target):
    assert run(target, seed=1, inputs=300) == 300


def write(file: Path, content: str | bytes) -> Path:
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


TEXT = f"""\ufeff# ours\r
\r
{A.name} alice of Berlin # home\r
  {B.base58}\tbob\r
#{E.name}\r
{A.name[:-1]}x mistyped\r
{C.hex}\r
{D.name.upper()} #dora\r
"""


def test_all_notations_in_one_file(tmp_path: Path):
    found = read_keys(write(tmp_path / "keys", TEXT))
    assert [found.line_of(key) for key in (A, B, C, D, E)] == [3, 4, 7, 8, 0]
    assert found.names == {3: "alice of Berlin", 4: "bob", 6: "mistyped"}
    assert (found.bad, found.problems) == (
        1,
        [f'line 6: "{A.name[:-1]}x" is mistyped: its end is not that of a name'],
    )
    assert len(found.table) == 4


def test_a_key_and_its_negation_are_one():
    found = parse_keys(f"{A.hex}\n{negation(B).hex}\n{B}".encode())
    assert [found.line_of(key) for key in (A, negation(A), B, negation(B))] == [1, 1, 2, 2]


@pytest.mark.parametrize("content", [b"", b"\n", b"\xef\xbb\xbf", b"# nobody\n", b"\r\n\r\n"])
def test_nobody(content: bytes):
    found = parse_keys(content)
    assert (len(found.table), found.bad, found.line_of(A)) == (0, 0, 0)


def test_the_last_line_needs_no_end():
    for end in ("", "\n", "\r\n", "\n\n"):
        assert parse_keys(f"{A}\n{B}{end}".encode()).line_of(B) == 2


def test_keys_that_are_nobodys_are_told_in_files_that_people_write():
    small = "0" * 64
    found = parse_keys(f"{small}\n{A}\n{'f' * 64}\n".encode())
    assert found.problems == [
        "line 1: not a key: it is a point of small order, which is nobody's key",
        "line 3: not a key: it is not written in the canonical form",
    ]
    assert (found.bad, found.line_of(A)) == (2, 2)


def test_few_of_many_bad_lines_are_told():
    found = parse_keys(b"x\n" * 50 + A.name.encode())
    assert (found.bad, len(found.problems), found.line_of(A)) == (50, 20, 51)
    assert found.problems[0] == (
        'line 1: "x" has 1 characters: a key is a name of 56, 64 hexadecimal digits, or base58 as wallets show it'
    )


def test_hostile_lines_are_shown_harmlessly():
    found = parse_keys(b"\x1b[31m" + b"x" * 500 + b"\n" + A.name.encode() + b" \x1b]0;\xff\n")
    assert found.problems[0].isprintable()
    assert len(found.problems[0]) < 250
    assert found.names[2].isprintable()


@pytest.mark.parametrize("notation", ["name", "hex", "base58", "all"])
def test_long_files(tmp_path: Path, notation: str):
    """Read in pieces, in bulk, and by the same meaning: lines are told from their neighbours at every border."""
    chance = random.Random(notation)
    raw = [chance.randbytes(32) for _ in range(12_000)]
    raw[5] = bytes(2) + raw[5][2:]  # base58 has leading ones for leading zeros
    write_one = {"name": names.encode_name, "hex": bytes.hex, "base58": base58}
    lines = [write_one[chance.choice([*write_one]) if notation == "all" else notation](key) for key in raw]
    bad = sorted(chance.sample(range(12_000), 3))
    for at in bad:
        lines[at] = lines[at][:20] + "0" + lines[at][21:] + ("?" if notation != "name" else "")
    found = read_keys(write(tmp_path / "keys", "\n".join(lines)))
    assert [found.table.line_of(key) for key in raw] == [0 if at in bad else at + 1 for at in range(12_000)]
    assert found.bad == 3
    assert [problem.split(":")[0] for problem in found.problems] == [f"line {at + 1}" for at in bad]


def base58(key: bytes) -> str:
    import base58 as library

    return library.b58encode(key).decode()


def test_lines_across_the_pieces_that_are_read(tmp_path: Path, monkeypatch):
    expected = parse_keys(TEXT.encode())
    file = write(tmp_path / "keys", TEXT)
    for size in range(1, len(TEXT)):
        monkeypatch.setattr(keyfile, "_PIECE", size)
        found = read_keys(file)
        assert [found.line_of(key) for key in KEYS] == [expected.line_of(key) for key in KEYS]
        assert (found.names, found.problems) == (expected.names, expected.problems)


def test_a_line_without_an_end_takes_no_memory(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(keyfile, "MOST_BYTES", 1 << 20)
    found = read_keys(write(tmp_path / "keys", f"{A} ".encode() + b"x" * 900_000 + f"\n{B}".encode()))
    assert (found.line_of(A), found.line_of(B)) == (1, 2)
    with pytest.raises(ValueError, match="is larger than 1 MiB"):
        read_keys(write(tmp_path / "keys", b"x" * (2 << 20)))


def test_files_that_can_not_be_read(tmp_path: Path):
    with pytest.raises(ValueError, match=f"{tmp_path}/none: No such file or directory"):
        read_keys(tmp_path / "none")
    with pytest.raises(ValueError, match=f"{tmp_path} is not a file"):
        read_keys(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is not a file"):
        read_keys(tmp_path / "pipe")
