"""Files with secrets: the identity, pre-shared keys."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest

from zignet.identity import (
    KeyFileError,
    SecretKey,
    files,
    read_key,
    read_psk,
    replace_key,
    write_key,
)

KEY = SecretKey(bytes(range(32)))
OTHER = SecretKey(bytes(32))
PSK = bytes(range(100, 132))


def write(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_there_and_back(tmp_path: Path):
    path = tmp_path / "new" / "state" / "identity"
    old = os.umask(0)
    try:
        write_key(path, KEY)
    finally:
        os.umask(old)
    assert read_key(path) == KEY
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert KEY.public.name in path.read_text()
    assert os.listdir(path.parent) == ["identity"]


def test_it_never_overwrites(tmp_path: Path):
    path = write(tmp_path / "identity", "precious")
    with pytest.raises(KeyFileError, match="exists already"):
        write_key(path, KEY)
    assert path.read_text() == "precious"
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(KeyFileError, match="exists already"):
        write_key(link, KEY)
    assert not (tmp_path / "nowhere").exists()


def test_half_a_key_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(KeyFileError, match="No space left"):
        write_key(tmp_path / "identity", KEY)
    assert os.listdir(tmp_path) == []


def test_file_and_directory_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synced = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", watched)
    write_key(tmp_path / "identity", KEY)
    assert synced == [False, True]


def test_replacing_moves_aside(tmp_path: Path):
    path = tmp_path / "identity"
    write_key(path, KEY)
    first = replace_key(path, OTHER)
    second = replace_key(path, KEY)
    assert (read_key(path), read_key(first), read_key(second)) == (KEY, KEY, OTHER)
    assert mode(path) == mode(first) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["identity", first.name, second.name]


@pytest.mark.parametrize("bits", [0o604, 0o602, 0o640, 0o620, 0o666, 0o777])
def test_a_file_that_others_can_read(tmp_path: Path, bits: int):
    path = tmp_path / "identity"
    write_key(path, KEY)
    path.chmod(bits)
    with pytest.raises(KeyFileError, match=f"chmod 600 {path}"):
        read_key(path)


def test_a_file_that_is_missing_or_no_file(tmp_path: Path):
    with pytest.raises(KeyFileError, match="zignet init"):
        read_key(tmp_path / "identity")
    with pytest.raises(KeyFileError, match="is not a file"):
        read_key(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(KeyFileError, match="is not a file"):
        read_key(tmp_path / "pipe")
    with pytest.raises(KeyFileError, match="KiB"):
        read_key(write(tmp_path / "large", b"#" * 20_000))
    with pytest.raises(KeyFileError, match="not a text"):
        read_key(write(tmp_path / "binary", b"\xff\xfe"))
    with pytest.raises(KeyFileError, match="Not a directory"):
        read_key(tmp_path / "large" / "identity")
    with pytest.raises(KeyFileError, match="can't be made"):
        write_key(tmp_path / "large" / "identity", KEY)


NAME, SEED = KEY.public.name, KEY.seed.hex()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not have a line"),
        (f"name {NAME}\n", "does not have a line"),
        (f"seed {SEED}\n", "does not have a line"),
        (f"name {NAME}\nseed {SEED[:-1]}\n", "64 hexadecimal"),
        (f"name {NAME}\nseed {SEED[:-1]}g\n", "64 hexadecimal"),
        (f"name {NAME}\nseed {SEED[:-1]}0\n", "not that of the name"),
        (f"name {OTHER.public.name}\nseed {SEED}\n", "not that of the name"),
        (f"name {NAME}\nseed {SEED}\nseed {SEED}\n", "neither"),
        (f"name {NAME}\nseed {SEED}\npeer x\n", "neither"),
    ],
)
def test_damage_is_noticed_and_not_shown(tmp_path: Path, text: str, message: str):
    with pytest.raises(KeyFileError, match=message) as caught:
        read_key(write(tmp_path / "identity", text))
    assert SEED[:12] not in str(caught.value)


def test_editors_may_touch_it(tmp_path: Path):
    text = f"\ufeff# mine\r\n\r\n  seed {SEED.upper()}\r\n name {NAME} \r\n"
    assert read_key(write(tmp_path / "identity", text)) == KEY


# pre-shared keys


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(PSK).decode() + "\n",
        base64.b64encode(PSK).decode().rstrip("="),
        base64.b32encode(PSK).decode(),
        base64.b32encode(PSK).decode().rstrip("=").lower(),
        PSK.hex(),
        f"  {PSK.hex().upper()}\r\n",
    ],
)
def test_pre_shared_keys(tmp_path: Path, text: str):
    assert read_psk(write(tmp_path / "psk", text)) == PSK


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "secret",
        PSK.hex()[:-2],
        PSK.hex()[:-1] + "g",
        base64.b64encode(PSK[:31]).decode(),
        "?" * 43,
        "é" * 52,
    ],
)
def test_what_is_no_pre_shared_key(tmp_path: Path, text: str):
    with pytest.raises(KeyFileError, match=r"psk is not a pre-shared key.*genpsk") as caught:
        read_psk(write(tmp_path / "psk", text))
    assert len(text) < 6 or text[:6] not in str(caught.value)


def test_pre_shared_keys_that_protect_nothing(tmp_path: Path):
    with pytest.raises(KeyFileError, match="zeros"):
        read_psk(write(tmp_path / "psk", "0" * 64))
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_psk(write(tmp_path / "open", PSK.hex(), 0o644))
    assert read_psk(write(tmp_path / "group", PSK.hex(), 0o640)) == PSK
    with pytest.raises(KeyFileError, match="No such file"):
        read_psk(tmp_path / "none")
