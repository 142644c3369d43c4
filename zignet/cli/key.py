"""`zignet key export` and `import`: the same identity on another device, or out of a wallet."""

from __future__ import annotations

import getpass
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from zignet.cli.errors import ExitCode, Fault
from zignet.cli.files import STANDARD, load, read_input

if TYPE_CHECKING:
    from zignet.identity import SecretKey

__all__ = ["export_key", "import_key", "passphrase_from"]

_MOST = 64 << 10  # bytes of a key file of any kind

Ask = Callable[[bool], str]  # for a passphrase; whether it is a new one, which is typed twice


def passphrase_from(file: Path | None) -> Ask:
    """Where passphrases come from: the first line of a file, or the person at the terminal."""
    if file is None:
        return _ask
    return lambda _new: _first_line(file)


def export_key(path: Path | None, target: Path, ask: Ask) -> str:
    """Write the identity, encrypted, into a new file, or to standard output for `-`. Returns what to tell.

    Raises `KeyFileError`, `ConfigError`, `Fault`.
    """
    from zignet.identity import export_openssh, read_key, write_secret

    key = read_key(load(path).identity_file)
    if target != STANDARD and os.path.lexists(target):
        raise Fault(f"{target} exists already, and is not overwritten; choose another name")
    passphrase = ask(True)
    if not passphrase:
        raise Fault("the passphrase is empty: the key would leave this machine unprotected", ExitCode.USAGE)
    text = export_openssh(key, passphrase)
    if target == STANDARD:
        sys.stdout.write(text)
        return ""
    write_secret(target, text)
    return (
        f"Exported {key.public.name} to {target}. Bring it in elsewhere with: zignet key import {target.name}"
    )


def import_key(path: Path | None, source: Path, ask: Ask, force: bool) -> str:
    """Make the key in a file, or on standard input for `-`, this node's identity. Returns what to tell.

    Raises `KeyFileError`, `ConfigError`, `Fault`.
    """
    from zignet.identity import replace_key, write_key

    target = load(path).identity_file
    key = _decode(source, ask)
    new = f"This node is {key.public.name} now ({target})."
    if not os.path.lexists(target):
        write_key(target, key)
        return new
    present = _present(target, force)
    if present == key:
        return f"This node is {key.public.name} already ({target}); nothing was changed."
    if not force:
        raise Fault(
            f"{target} holds another identity already{f', {present.public.name}' if present else ''}. "
            "It stays as it is; --force moves it aside."
        )
    aside = replace_key(target, key)
    return f"{new} The old key was moved to {aside}. A node that is running goes on with it until it is restarted."


def _present(target: Path, force: bool) -> SecretKey | None:
    """The identity that is there; None if it can't be read, which is an error unless it is to go."""
    from zignet.identity import KeyFileError, read_key

    try:
        return read_key(target)
    except KeyFileError:
        if not force:
            raise
        return None


def _decode(source: Path, ask: Ask) -> SecretKey:
    from zignet.identity import BadKey, PassphraseNeeded, import_key

    text = _read(source)
    try:
        try:
            return import_key(text)
        except PassphraseNeeded:
            return import_key(text, ask(False))
    except BadKey as error:
        name = "standard input" if source == STANDARD else source
        raise Fault(f"no key can be read from {name}: {error}. Nothing was changed.") from None


def _read(source: Path) -> str:
    content = read_input(source, _MOST)
    if len(content) > _MOST:
        raise Fault(f"{source} is larger than {_MOST >> 10} KiB, so it is no key")
    return content.decode("utf-8", "replace")


# passphrases


def _ask(new: bool) -> str:
    """From the person, unseen."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        raise Fault(
            "a passphrase is needed, and there is no terminal to ask for it: name a file with --passphrase-file",
            ExitCode.USAGE,
        ) from None
    typed = getpass.getpass("Passphrase for the copy of the key: " if new else "Passphrase of the key: ")
    if new and typed and getpass.getpass("Once more: ") != typed:
        raise Fault("the two passphrases are not the same; nothing was written")
    return typed


def _first_line(file: Path) -> str:
    """The passphrase in a file, or in a pipe such as <(pass show zignet)."""
    try:
        with file.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & (stat.S_IROTH | stat.S_IWOTH):
                raise Fault(f"everyone on this machine can read the passphrase: chmod 600 {file}")
            line = stream.readline(_MOST)
    except OSError as error:
        raise Fault(f"the passphrase file {file} can't be read: {error.strerror}") from None
    return line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")
