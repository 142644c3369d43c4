"""The device and the ceiling of timestamps outlive the process, whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from zignet.noise import Stamps
from zignet.peers.installation import DEVICE_NAME, STAMP_NAME, StampFile, device

YEAR_US = 365 * 86_400 * 1_000_000


def test_a_device_stays_the_same(tmp_path: Path):
    made = device(tmp_path / "state")
    assert len(made) == 8
    assert device(tmp_path / "state") == made
    assert device(tmp_path / "other") != made
    assert (tmp_path / "state" / DEVICE_NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"xyz", b"0102", b"\xff\xfe", b"00" * 9])
def test_a_spoilt_device_is_made_anew(tmp_path: Path, content: bytes):
    (tmp_path / DEVICE_NAME).write_bytes(content)
    made = device(tmp_path, lambda size: b"\7" * size)
    assert made == b"\7" * 8
    assert device(tmp_path) == made


def test_a_device_that_can_not_be_kept(tmp_path: Path):
    (tmp_path / "file").write_text("")
    notes: list[str] = []
    assert len(device(tmp_path / "file", note=notes.append)) == 8
    assert len(notes) == 1


def test_stamps_go_on_though_the_clock_was_set_back(tmp_path: Path):
    file = StampFile(tmp_path)
    assert file.reserved == 0
    last = Stamps(file.reserved, file.persist).next(3 * YEAR_US)
    again = StampFile(tmp_path)
    assert again.reserved >= last
    assert Stamps(again.reserved, again.persist).next(2 * YEAR_US) > last
    assert (tmp_path / STAMP_NAME).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [STAMP_NAME]


@pytest.mark.parametrize("content", [b"", b"-5", b"1.5", b"\xff", str(1 << 64).encode(), b"9" * 5000])
def test_a_spoilt_ceiling_is_told(tmp_path: Path, content: bytes):
    (tmp_path / STAMP_NAME).write_bytes(content)
    notes: list[str] = []
    assert StampFile(tmp_path, notes.append).reserved == 0
    assert len(notes) == 1


def test_without_a_disk_it_goes_on_and_says_so_once(tmp_path: Path):
    (tmp_path / "file").write_text("")
    notes: list[str] = []
    file = StampFile(tmp_path / "file", notes.append)
    notes.clear()
    stamps = Stamps(file.reserved, file.persist)
    assert stamps.next(YEAR_US) < stamps.next(2 * YEAR_US) < stamps.next(YEAR_US)
    file.persist(5 * YEAR_US)
    assert len(notes) == 1


CHILD = """
import sys
from pathlib import Path
from zignet.noise import Stamps
from zignet.peers.installation import StampFile
file = StampFile(Path(sys.argv[1]))
stamps = Stamps(file.reserved, file.persist)
wall = 1_000_000_000
while True:
    wall += 60_000_000
    print(stamps.next(wall), flush=True)
"""


@pytest.mark.parametrize("lines", [1, 30, 200])
def test_killed_in_mid_write(tmp_path: Path, lines: int):
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as child:
        told = [child.stdout.readline() for _ in range(lines)]
        os.kill(child.pid, signal.SIGKILL)
        told += child.stdout.readlines()
    last = int([line for line in told if line.endswith("\n")][-1])
    notes: list[str] = []
    file = StampFile(tmp_path, notes.append)
    assert file.reserved >= last
    assert notes == []
    assert (
        Stamps(file.reserved, file.persist).next(0) > last
    )  # the temporary file that was left is no hindrance
