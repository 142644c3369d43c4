"""What was changed, written down before it is changed: `names.journal` in the state directory.

It is replaced as a whole (written beside it, synced, renamed), so it is always the earlier or the later one. What is
in it may make root write files, so it counts only if it belongs to root or to whoever runs this, and if it names
nothing but the files that ZigNet changes.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zignet.system import journals
from zignet.system.names.changes import Change, State
from zignet.system.names.wanted import Mode, NamesError

__all__ = ["DamagedJournalError", "Journal", "forget", "path_in", "put_aside", "read", "write"]

_VERSION = 1
_MOST = 8 << 20  # bytes
_KINDS = ("absent", "link", "file")
_NAMES = ("resolv.conf", "zignet.conf")


class DamagedJournalError(NamesError):
    """There is a journal, and it does not say what to do."""


@dataclass(frozen=True, slots=True)
class Journal:
    """One integration."""

    mechanism: Mode
    link: str
    index: int
    changes: tuple[Change, ...]


def path_in(state_dir: Path) -> Path:
    """Where the journal is."""
    return state_dir / "names.journal"


def write(state_dir: Path, journal: Journal) -> None:
    """Durably; afterwards it is this one or, after an error, the earlier one. Raises `NamesError`."""
    path = path_in(state_dir)
    text = json.dumps({"version": _VERSION, **_plain(asdict(journal))}, indent=1) + "\n"
    try:
        journals.replace(path, text)
    except OSError as error:
        raise NamesError(
            f"{path} can't be written ({error.strerror}), so nothing of the system's names was changed"
        ) from error


def read(state_dir: Path) -> Journal | None:
    """The journal, or None where there is none. Raises `DamagedJournalError`; `NamesError` for whoever may not."""
    path = path_in(state_dir)
    try:
        text = journals.load(path, _MOST + 1)
    except PermissionError as error:
        raise NamesError(f"{path} can't be read: only root may, or whoever ran the node") from error
    except journals.UntrustedError as error:
        raise DamagedJournalError(str(error)) from error
    except OSError as error:
        raise DamagedJournalError(f"{path} can't be read: {error.strerror}") from error
    try:
        return None if text is None else _parse(text)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedJournalError(
            f"{path} is damaged ({_reason(error)}), so what it speaks of was not put back. Nothing was changed. Look "
            "after /etc/resolv.conf and for files named zignet.conf below /etc, then delete the journal."
        ) from error


def forget(state_dir: Path) -> None:
    """Everything is as it was. Raises `NamesError`."""
    try:
        journals.remove(path_in(state_dir))
    except OSError as error:
        raise NamesError(f"{path_in(state_dir)} can't be removed: {error.strerror}") from error


def put_aside(state_dir: Path) -> Path:
    """Keep a damaged journal under another name, which is returned. Raises `NamesError`."""
    path = path_in(state_dir)
    number = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.damaged-{number}")):
        number += 1
    try:
        os.rename(path, aside)
    except OSError as error:
        raise NamesError(f"{path} can't be renamed: {error.strerror}") from error
    return aside


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _parse(text: bytes) -> Journal:
    """Raises ValueError, KeyError, TypeError, AttributeError."""
    if len(text) > _MOST:
        raise ValueError("it is too long")
    value = json.loads(text)
    if value["version"] != _VERSION:
        raise ValueError(f"it has version {value['version']}, and this program knows {_VERSION}")
    mode = Mode(value["mechanism"])
    return Journal(mode, _text(value["link"]), _whole(value["index"]), tuple(map(_change, value["changes"])))


def _change(value: Any) -> Change:
    path, token, made = (_text(value[key]) for key in ("path", "token", "made"))
    if not path.startswith("/") or os.path.normpath(path) != path:
        raise ValueError("it names no absolute path")
    directory, name = os.path.split(path)
    if name not in _NAMES and os.path.basename(directory) != "resolver":
        raise ValueError(f"it names {path!r}, which ZigNet never changes")
    if not token.isalnum() or not token.isascii() or (made and not f"{directory}/".startswith(f"{made}/")):
        raise ValueError("it names files that ZigNet never makes")
    before, after = _state(value["before"]), _state(value["after"])
    return Change(path, before, after, token, value["in_place"] is True, made)


def _state(value: Any) -> State:
    if value["kind"] not in _KINDS:
        raise ValueError("it names an unknown kind of file")
    attributes = tuple(
        (_text(name), b64decode(_text(each), validate=True)) for name, each in value["attributes"]
    )
    content = b64decode(_text(value["content"]), validate=True)
    mode, uid, gid = (_whole(value[key]) for key in ("mode", "uid", "gid"))
    return State(value["kind"], content, mode & 0o7777, uid, gid, attributes)


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("a text is missing")
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 32:
        raise ValueError("a number is missing")
    return value


def _reason(error: Exception) -> str:
    match error:
        case json.JSONDecodeError() | UnicodeDecodeError():
            return "it is cut off, or no JSON"
        case KeyError():
            return f"{error.args[0]} is missing"
    return str(error) or type(error).__name__
