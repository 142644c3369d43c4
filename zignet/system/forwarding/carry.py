"""Do it, and undo it: the journal first, then the table, then the switches; and the other way round."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from zignet.system import journals
from zignet.system.forwarding import switches, table
from zignet.system.forwarding.table import Json, Wanted

__all__ = ["ForwardingError", "begin", "restore", "state"]

TIMEOUT_S = 30.0
_JOURNAL = "forwarding.journal"
_VERSION = 1
_MOST = 1 << 20  # bytes
_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"  # where nft is, whatever the PATH of root


class ForwardingError(Exception):
    """It can't be done; the text says what happened and what to do."""


def state() -> tuple[str | None, bool]:
    """Where `nft` is, and whether this host forwards already."""
    return _program(), not switches.off()


def begin(state_dir: Path, wanted: Wanted) -> None:
    """From now on the kernel forwards for peers. On an error nothing of it stays. Raises `ForwardingError`."""
    closed = switches.off()
    text = json.dumps(
        {"version": _VERSION, "device": wanted.device, "before": switches.noted(closed)}, indent=1
    )
    try:
        journals.replace(state_dir / _JOURNAL, text + "\n")
    except OSError as error:
        raise ForwardingError(
            f"{state_dir / _JOURNAL} can't be written ({error.strerror}), so packets are not forwarded"
        ) from error
    try:
        _nft(table.replace(wanted, closed))
        switches.on(closed)
    except OSError as error:
        restore(state_dir)
        raise ForwardingError(
            f"forwarding can't be switched on ({error.strerror}: {error.filename}). In a container, have it set from "
            "outside (--sysctl net.ipv4.ip_forward=1); or leave out `exit: {packets: true}`."
        ) from error
    except ForwardingError:
        restore(state_dir)
        raise


def restore(state_dir: Path) -> list[str]:
    """Put back what the journal tells of, if there is one; returns sentences on what could not be.

    Raises `ForwardingError`.
    """
    path = state_dir / _JOURNAL
    try:
        text = journals.load(path, _MOST)
        if text is None:
            return []
        device, before = _parsed(text)
    except (journals.UntrustedError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ForwardingError(
            f"{path} does not say how this host's forwarding was before ({error}). Look at `sysctl "
            "net.ipv4.ip_forward` and `nft list tables`, then delete the file."
        ) from error
    lost = switches.put_back(before)
    try:
        _nft(table.delete(device))
    except ForwardingError as error:
        lost.append(str(error))
    try:
        if not lost:
            journals.remove(path)
    except OSError as error:
        lost.append(f"{path} can't be removed: {error.strerror}")
    return lost


def _parsed(text: bytes) -> tuple[str, dict[str, str]]:
    value = json.loads(text)
    if value["version"] != _VERSION or not isinstance(value["device"], str):
        raise ValueError("it is of another version")
    before = dict(value["before"].items())
    if not all(isinstance(each, str) and switches.is_known(path, each) for path, each in before.items()):
        raise ValueError("it names settings that ZigNet never changes")
    return value["device"], before


def _program() -> str | None:
    return shutil.which("nft") or shutil.which("nft", path=_PATH)


def _nft(commands: Json) -> None:
    program = _program()
    if program is None:
        raise ForwardingError(
            "there is no `nft`, which sets the rules for `exit: {packets: true}`: install nftables, or leave it out"
        )
    try:
        done = subprocess.run(
            [program, "-j", "-f", "-"],
            input=json.dumps(commands),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            start_new_session=True,  # Ctrl-C is for the node, which then takes back what this one set
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ForwardingError(f"{program} could not be run: {error}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise ForwardingError(f"nftables did not take the rules of `exit: {{packets: true}}`: {said[0]}")
