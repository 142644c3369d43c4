"""Doing it, and taking it back.

1. what an earlier run left is taken back        4. files and programs, one after the other
2. the mechanism is chosen                       5. … and the reverse at the end: files that nobody else has changed
3. the journal is written                           since, programs, and last of all the journal

Whatever happens in between, the journal says enough to get back: `integrate` and `restore` may be killed anywhere.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from zignet.system.names import (
    changes,
    direct,
    dnsmasq,
    journal,
    macos,
    networkmanager,
    resolv_conf,
    resolved,
)
from zignet.system.names.changes import ABSENT, Change, NeedsPlaceError, State, UnwritableError
from zignet.system.names.choice import Choice, choices
from zignet.system.names.commands import call
from zignet.system.names.host import Host, glance, look
from zignet.system.names.journal import DamagedJournalError, Journal
from zignet.system.names.plan import Command, File, Plan
from zignet.system.names.wanted import Applied, Mode, NamesError, Wanted

__all__ = ["Restored", "drift", "foresee", "integrate", "leftover", "restore", "unseen"]

_PLANS: dict[Mode, Callable[[Host, Wanted], Plan]] = {
    Mode.RESOLVED: resolved.plan,
    Mode.NETWORKMANAGER: networkmanager.plan,
    Mode.DNSMASQ: dnsmasq.plan,
    Mode.RESOLVER: macos.plan,
    Mode.RESOLVCONF: direct.resolv_conf,
    Mode.HIJACK: direct.hijack,
    Mode.OFF: direct.off,
}


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put back, and what was left because somebody else has changed it or it could not be done."""

    done: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def integrate(wanted: Wanted, state_dir: Path) -> Applied:
    """Lead the wanted names to the node. What an earlier run left is taken back first, so it may be called again.

    Takes up to some seconds: it calls programs. With `mode: auto` it always gives an answer, at worst OFF; with any
    other it raises `NamesError`, and then nothing is changed.
    """
    notes: list[str] = []
    try:
        try:
            notes += restore(state_dir).left
        except DamagedJournalError as error:
            notes.append(f"{error} It was kept as {journal.put_aside(state_dir)}.")
        wanted = replace(wanted, owner=str(state_dir.absolute()))
        host = _unmasked(look(), state_dir)
        for choice in choices(host, wanted):
            try:
                plan = _PLANS[choice.mode](host, wanted)
                if plan.steps:
                    _apply(plan, wanted, state_dir)
            except NamesError as error:
                if wanted.mode is not Mode.AUTO:
                    raise
                notes.append(f"{choice.mode} was tried first: {error}")
                continue
            upstreams = tuple(str(server) for server in host.nameservers if not _is_own(server, wanted))
            return Applied(choice.mode, choice.why, plan.changes, upstreams, plan.upstream_file, tuple(notes))
    except NamesError as error:
        if wanted.mode is not Mode.AUTO:
            raise
        notes.append(str(error))
    return Applied(Mode.OFF, "nothing of the system's names could be changed", notes=tuple(notes))


def foresee(wanted: Wanted, state_dir: Path) -> Choice:
    """What `integrate` would try first, as far as a look tells. Raises `NamesError` where it can't be."""
    host = _unmasked(look(), state_dir)
    problem = None
    for choice in choices(host, wanted):
        try:
            _PLANS[choice.mode](host, wanted)
        except NamesError as error:
            problem = error
            continue
        return choice
    raise problem or NamesError("nothing fits this host")


def leftover(state_dir: Path) -> bool:
    """Whether there is a journal: of the node that runs, or of one that died."""
    return os.path.lexists(journal.path_in(state_dir))


def restore(state_dir: Path) -> Restored:
    """Take back what the journal says, if somebody else has not changed it since. Without a journal there is nothing
    to do, but for a resolv.conf of ours whose journal was lost.

    Raises `DamagedJournalError`, and `NamesError` where something can't be put back now; the journal stays then.
    """
    if (old := journal.read(state_dir)) is None:
        return _without_journal(state_dir)
    done, left = _undo(old, state_dir)
    for command in _undo_commands(old):
        try:
            call(command)
        except NamesError as error:
            left.append(str(error))
    journal.forget(state_dir)
    return Restored(tuple(done), tuple(left))


def unseen(wanted: Wanted) -> str | None:
    """Why, as things are now, HIJACK would not see this host's queries; None where it does."""
    return direct.hijackable(glance(), wanted)


def drift(state_dir: Path) -> tuple[str, ...]:
    """What is no longer as it was written, so that names may not come here any more. `integrate` again repairs it."""
    try:
        now = journal.read(state_dir)
    except DamagedJournalError as error:
        return (str(error),)
    found = []
    for change in now.changes if now is not None else ():
        with suppress(UnwritableError):
            if changes.look(change.path).same(change.after):
                continue
        found.append(f"{change.path} was changed by somebody else since")
    return tuple(found)


# --- there


def _apply(plan: Plan, wanted: Wanted, state_dir: Path) -> None:
    """Raises `NamesError`, everything as before."""
    token = os.urandom(4).hex()
    try:
        planned = {file: _change(file, token, state_dir) for file in plan.steps if isinstance(file, File)}
    except UnwritableError as error:
        raise NamesError(str(error)) from error
    record = Journal(plan.mechanism, wanted.link, wanted.index, tuple(planned.values()))
    journal.write(state_dir, record)
    try:
        for each in plan.steps:
            if isinstance(each, File):
                record = _put(record, planned[each], planned[each].after, state_dir)
            else:
                call(each)
    except (NamesError, UnwritableError) as error:
        with suppress(NamesError):  # the journal stays then, for the next try
            restore(state_dir)
        raise NamesError(str(error)) from error


def _change(file: File, token: str, state_dir: Path) -> Change:
    before = changes.look(file.path)
    if file.path == resolv_conf.PATH:
        before = _earlier(before, state_dir)
    after = State("file", file.content)
    if before.kind == "file":
        after = replace(before, content=file.content)
    return Change(file.path, before, after, token, made=_missing(os.path.dirname(file.path)))


def _missing(directory: str) -> str:
    """The topmost directory on the way that is not there; "" if all are."""
    missing = ""
    while not os.path.isdir(directory):
        missing, directory = directory, os.path.dirname(directory)
    return missing


def _put(record: Journal, change: Change, wanted: State, state_dir: Path) -> Journal:
    """Write one file; what had to be done for it is in the journal before. Raises `UnwritableError`, `NamesError`."""
    if change.made and wanted.kind != "absent":
        try:
            os.makedirs(os.path.dirname(change.path), mode=0o755, exist_ok=True)
        except OSError as error:
            raise UnwritableError(f"{change.made} can't be made: {error.strerror}") from error
    try:
        changes.put(change.path, wanted, change.temporary, change.in_place)
        return record
    except NeedsPlaceError:
        placed = replace(change, in_place=True)
        record = replace(
            record, changes=tuple(placed if each.path == change.path else each for each in record.changes)
        )
        journal.write(state_dir, record)
        changes.put(change.path, wanted, change.temporary, True)
        return record


# --- and back


def _undo(record: Journal, state_dir: Path) -> tuple[list[str], list[str]]:
    """The files, the last first. Raises `NamesError` where one can't be written now."""
    done: list[str] = []
    left: list[str] = []
    for change in reversed(record.changes):
        with suppress(OSError):
            os.unlink(change.temporary)
        try:
            now = changes.look(change.path)
            target = change.undone_from(now)
            if target is None:
                left.append(_foreign(change))
                continue
            if change.path == resolv_conf.PATH:  # it may be of another node, which has stopped since
                target = _earlier(target, state_dir)
            if target is not now:
                record = _put(record, change, target, state_dir)
                done.append(f"{change.path} {'removed' if target == ABSENT else 'put back'}")
        except UnwritableError as error:
            raise NamesError(
                f"{error}. It still leads names to ZigNet; `zignet dns restore` tries again"
            ) from error
        for directory in change.made_directories:
            with suppress(OSError):  # not made yet; or somebody else's files are in it
                os.rmdir(directory)
    return done, left


def _foreign(change: Change) -> str:
    if change.before.kind == "absent":
        return f"{change.path} was changed by somebody else since, so it was left; ZigNet does not need it any more"
    if change.before.kind == "link":
        earlier = f"a link to {os.fsdecode(change.before.content)}"
    else:
        servers = ", ".join(map(str, resolv_conf.nameservers(change.before.content)))
        earlier = f"a file that named {servers or 'no server'}"
    return f"{change.path} was changed by somebody else since, so it was left. Before ZigNet it was {earlier}"


def _undo_commands(record: Journal) -> Sequence[Command]:
    host = look()
    match record.mechanism:
        case Mode.RESOLVED:
            return resolved.undo(host, record.link) if _is_there(record) else ()
        case Mode.NETWORKMANAGER:
            return networkmanager.undo(host)
        case Mode.DNSMASQ:
            return dnsmasq.undo(host)
    return ()


def _is_there(record: Journal) -> bool:
    """Whether the link of that time is there still: another one of its name is somebody else's."""
    try:
        return socket.if_nametoindex(record.link) == record.index
    except OSError:
        return False


# --- a resolv.conf of ours that no journal knows


def _earlier(now: State, state_dir: Path) -> State:
    """What a resolv.conf of ours replaced, as far as its comments say; and what that one did, if it was ours, too."""
    while now.kind == "file" and (before := _before_orphan(now.content, state_dir)) is not None:
        if before.target is not None:
            return State("link", os.fsencode(before.target), 0o777)
        now = replace(now, content=before.content) if before.content else ABSENT
    return now


def _before_orphan(content: bytes, state_dir: Path) -> resolv_conf.Before | None:
    """What was before a file of ours that no journal knows; None for one of another node, which has a journal."""
    owner = Path(resolv_conf.owner_of(content))
    if owner != state_dir.absolute() and os.path.lexists(journal.path_in(owner)):
        return None
    return resolv_conf.before_ours(content)


def _unmasked(host: Host, state_dir: Path) -> Host:
    """The host as it was before a resolv.conf of ours that was left behind."""
    if (before := _before_orphan(host.content, state_dir)) is None:
        return host
    if before.target is None:
        return replace(host, content=before.content)
    content = b""
    with suppress(OSError):
        content = Path("/etc", before.target).read_bytes()
    return replace(host, content=content, target=before.target)


def _without_journal(state_dir: Path) -> Restored:
    try:
        now = changes.look(resolv_conf.PATH)
    except UnwritableError:
        return Restored()
    before = _earlier(now, state_dir)
    if before is now:
        if resolv_conf.owner_of(now.content) == str(state_dir.absolute()):
            return Restored(
                left=(f"{resolv_conf.PATH} is of ZigNet, and nothing says what was there before",)
            )
        return Restored()
    change = Change(resolv_conf.PATH, before, now, os.urandom(4).hex())
    record = Journal(Mode.RESOLVCONF, "", 0, (change,))
    journal.write(state_dir, record)
    restored = restore(state_dir)
    return replace(restored, done=(*restored.done, "what was there before was read out of its comments"))


def _is_own(address: object, wanted: Wanted) -> bool:
    """Whether a resolver of /etc/resolv.conf, which is at port 53, is this node."""
    return any(server.port == 53 and address == server.address for server in wanted.servers)
