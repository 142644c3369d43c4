"""The journal says what it was told, or that it says nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from zignet.system.names import Mode, NamesError, journal
from zignet.system.names.changes import ABSENT, Change, State
from zignet.system.names.journal import DamagedJournalError, Journal

SAMPLE = Journal(
    Mode.RESOLVCONF,
    "zig0",
    7,
    (
        Change(
            "/etc/resolv.conf",
            State("link", b"../run/\xff"),
            State("file", b"x\n", 0o640, 4, 7),
            "0a1b",
            True,
        ),
        Change(
            "/etc/NetworkManager/conf.d/zignet.conf",
            ABSENT,
            State("file", b"", attributes=(("security.selinux", b"net_conf_t\0"),)),
            "0a1b",
            made="/etc/NetworkManager/conf.d",
        ),
    ),
)


def test_written_and_read(tmp_path: Path) -> None:
    state_dir = tmp_path / "not" / "yet"
    assert journal.read(state_dir) is None
    journal.write(state_dir, SAMPLE)
    assert journal.read(state_dir) == SAMPLE
    assert journal.path_in(state_dir).stat().st_mode & 0o777 == 0o600
    journal.path_in(state_dir).with_name("names.journal.new").write_text("of a run that was killed")
    journal.write(state_dir, Journal(Mode.DNSMASQ, "", 0, ()))
    assert journal.read(state_dir) == Journal(Mode.DNSMASQ, "", 0, ())
    journal.forget(state_dir)
    assert os.listdir(state_dir) == []
    journal.forget(state_dir)


def test_every_truncation_is_seen(tmp_path: Path) -> None:
    journal.write(tmp_path, SAMPLE)
    path = journal.path_in(tmp_path)
    whole = path.read_bytes()
    for length in range(len(whole) - 2):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedJournalError, match=r"is damaged .* Nothing was changed"):
            journal.read(tmp_path)


@given(some.binary(max_size=60))
def test_garbage(tmp_path_factory: Any, text: bytes) -> None:
    tmp_path = tmp_path_factory.mktemp("journal")
    path = journal.path_in(tmp_path)
    path.write_bytes(text)
    path.chmod(0o600)
    with pytest.raises(DamagedJournalError):
        journal.read(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("path", "/etc/passwd"),
        ("path", "/etc/../root/resolv.conf"),
        ("path", "etc/resolv.conf"),
        ("path", 7),
        ("token", "../../x"),
        ("token", ""),
        ("made", "/root"),
        ("made", "/e"),
        ("before", {"kind": "device"}),
        ("before", None),
        ("after", {"kind": "file", "content": "!", "mode": 0, "uid": 0, "gid": 0, "attributes": []}),
        ("after", {"kind": "file", "content": "", "mode": -1, "uid": 0, "gid": 0, "attributes": []}),
    ],
)
def test_what_zignet_never_writes(tmp_path: Path, key: str, value: object) -> None:
    """It may make root write files, so nothing but our own files is believed."""
    journal.write(tmp_path, SAMPLE)
    path = journal.path_in(tmp_path)
    text = json.loads(path.read_text())
    text["changes"][0][key] = value
    path.write_text(json.dumps(text))
    with pytest.raises(DamagedJournalError):
        journal.read(tmp_path)


def test_a_later_version(tmp_path: Path) -> None:
    journal.write(tmp_path, SAMPLE)
    path = journal.path_in(tmp_path)
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(DamagedJournalError, match="version 2"):
        journal.read(tmp_path)


@pytest.mark.root
def test_somebody_elses_is_not_followed(tmp_path: Path) -> None:
    journal.write(tmp_path, SAMPLE)
    path = journal.path_in(tmp_path)
    path.chmod(0o622)
    with pytest.raises(DamagedJournalError, match="somebody else"):
        journal.read(tmp_path)
    path.chmod(0o600)
    os.chown(path, 4, 7)
    with pytest.raises(DamagedJournalError, match="somebody else"):
        journal.read(tmp_path)
    path.rename(tmp_path / "real")
    path.symlink_to("real")
    with pytest.raises(DamagedJournalError, match="can't be read"):
        journal.read(tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DamagedJournalError, match="no file"):
        journal.read(tmp_path)


def test_put_aside(tmp_path: Path) -> None:
    for number in (1, 2):
        journal.path_in(tmp_path).write_text(f"{number}")
        assert journal.put_aside(tmp_path).name == f"names.journal.damaged-{number}"
    assert sorted(os.listdir(tmp_path)) == ["names.journal.damaged-1", "names.journal.damaged-2"]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NamesError, match="nothing of the system's names was changed"):
        journal.write(tmp_path / "file", SAMPLE)
