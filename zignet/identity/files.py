"""The files that hold secrets: a node's own key, and the keys that it shares with a peer.

The identity is one small text:

    # The identity of a ZigNet node. Whoever can read this file can be that node: keep it to yourself.
    name yrzj3e2gck3qzy…     the public name, so that damage is noticed
    seed 9d61b19deffd5a…     the secret, 64 hexadecimal digits
"""

from __future__ import annotations

import base64
import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from zignet.durable import sync_directory
from zignet.identity.keys import SecretKey

__all__ = [
    "KeyFileError",
    "format_key",
    "parse_key",
    "read_key",
    "read_psk",
    "read_secret",
    "replace_key",
    "write_key",
]

_COMMENT = (
    "# The identity of a ZigNet node. Whoever can read this file can be that node: keep it to yourself."
)
_MOST = 16 << 10  # bytes of any such file
_GROUP_AND_OTHERS = 0o077
_OTHERS = stat.S_IROTH | stat.S_IWOTH
_PSK = 32  # bytes


class KeyFileError(Exception):
    """A file with a secret can't be used, or not be written. The text is for a person."""


# the identity


def read_key(path: Path) -> SecretKey:
    """The key in a file of `write_key`. Raises `KeyFileError`, also where the group or others may read it."""
    try:
        text = read_secret(path, _GROUP_AND_OTHERS)
    except FileNotFoundError:
        raise KeyFileError(
            f"there is no identity: {path} does not exist. Make one with `zignet init`, "
            "or bring yours with `zignet key import`."
        ) from None
    try:
        return parse_key(text)
    except ValueError as error:
        raise KeyFileError(
            f"{path} is not the key file that `zignet init` writes, or is damaged: {error}. "
            "Put it back from a backup, or move it away and run `zignet init` for a new identity."
        ) from None


def parse_key(text: str) -> SecretKey:
    """The key in the text of a key file. Raises `ValueError`, which never shows a piece of it."""
    entries: dict[str, str] = {}
    for line in text.splitlines():
        word, _, value = line.strip().partition(" ")
        if not word or word.startswith("#"):
            continue
        if word not in ("name", "seed") or word in entries:
            raise ValueError("it has a line that is neither the name nor the seed")
        entries[word] = value.strip()
    if entries.keys() != {"name", "seed"}:
        raise ValueError("it does not have a line with the name and one with the seed")
    if re.fullmatch("[0-9a-fA-F]{64}", entries["seed"]) is None:
        raise ValueError("the seed is not 64 hexadecimal digits")
    key = SecretKey(bytes.fromhex(entries["seed"]))
    if key.public.name != entries["name"]:
        raise ValueError("the seed is not that of the name beside it")
    return key


def format_key(key: SecretKey) -> str:
    """The text of a key file."""
    return f"{_COMMENT}\nname {key.public.name}\nseed {key.seed.hex()}\n"


def write_key(path: Path, key: SecretKey) -> None:
    """A new key file of mode 0600, on the disk when this returns. Raises `KeyFileError`; never overwrites.

    Its directory is made if need be, for this user alone.
    """
    write_secret(path, format_key(key))


def replace_key(path: Path, key: SecretKey) -> Path:
    """As `write_key`, where there is one already. Returns the name that the old file has now."""
    fresh = path.with_name(f"{path.name}.new")
    aside = _free_name(path)
    write_key(fresh, key)
    try:
        path.rename(aside)
        fresh.rename(path)
        sync_directory(path.parent)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        raise KeyFileError(f"{path} could not be replaced: {error.strerror}") from None
    return aside


def _free_name(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.old{number}")).exists():
        number += 1
    return aside


# pre-shared keys


def read_psk(path: Path) -> bytes:
    """32 bytes from a file: base64 (as `wg genpsk` writes), base32 or hexadecimal. Raises `KeyFileError`."""
    try:
        return decode_psk(read_secret(path, _OTHERS))
    except FileNotFoundError:
        raise KeyFileError(f"{path}: No such file or directory") from None
    except ValueError as error:
        raise KeyFileError(f"{path} {error}") from None


def decode_psk(text: str) -> bytes:
    """As `read_psk`, for a text. Raises `ValueError`, which never shows a piece of it."""
    text = text.strip()
    try:
        match len(text.rstrip("=")):
            case 64:
                key = bytes.fromhex(text)
            case 43:
                key = base64.b64decode(f"{text.rstrip('=')}=", validate=True)
            case 52:
                key = base64.b32decode(f"{text.rstrip('=')}====", casefold=True)
            case _:
                key = b""
    except ValueError:
        key = b""
    if len(key) != _PSK:
        raise ValueError(
            "is not a pre-shared key: 32 bytes as base64, base32 or hexadecimal. `wg genpsk` makes one"
        )
    if not any(key):
        raise ValueError("holds a pre-shared key of zeros only, which protects nothing")
    return key


# any file with a secret


def read_secret(path: Path, forbidden: int = _OTHERS) -> str:
    """A small text file without any of the `forbidden` mode bits.

    Raises FileNotFoundError where there is none, else `KeyFileError`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe does not hold us up
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise KeyFileError(f"{path} is not a file")
            if mode & forbidden:
                who = "others on this machine may" if mode & _OTHERS else "its group may"
                raise KeyFileError(f"{path} holds a secret, and {who} read or change it: chmod 600 {path}")
            content = os.read(descriptor, _MOST + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
    if len(content) > _MOST:
        raise KeyFileError(f"{path} is larger than {_MOST >> 10} KiB, so it is something else")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise KeyFileError(f"{path} is not a text") from None


def write_secret(path: Path, text: str) -> None:
    """A new text file of mode 0600, synced to the disk. Raises `KeyFileError`; never overwrites."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if isinstance(error, FileExistsError) and os.path.lexists(path):
            raise KeyFileError(f"{path} exists already, and is not overwritten") from None
        raise KeyFileError(f"{path} can't be made: {error.strerror}") from None
    try:
        with open(descriptor, "wb") as stream:
            stream.write(text.encode())
            stream.flush()
            os.fsync(descriptor)
        sync_directory(path.parent)
    except BaseException as error:
        with suppress(OSError):
            path.unlink()  # half a key is worse than none
        if isinstance(error, OSError):
            raise KeyFileError(f"{path} can't be written: {error.strerror}") from None
        raise
