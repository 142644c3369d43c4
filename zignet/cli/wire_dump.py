"""`zignet wire-dump`: the ZigNet datagrams of a capture, one line each; with the session keys, what they seal.

    file -> Capture -> Finder (UDP) -> apart (offload) -> Describer -> a line, or a line of JSON

It streams: memory does not grow with the capture. Notes about what could not be read go to stderr.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from ipaddress import IPv6Address
from pathlib import Path
from typing import BinaryIO

from zignet.cli.errors import ExitCode, Fault, complain
from zignet.cli.text import printable
from zignet.wire.capture import BadCapture, Capture, Record
from zignet.wire.describe import Describer, Facts
from zignet.wire.keylog import KeyLog
from zignet.wire.links import LINKS, Datagram, Finder, apart

__all__ = ["dump", "line"]

_LONG = 16 << 20  # bytes: a capture from this size on has a progress bar
_STEP = 1 << 20  # bytes between two movements of it
_PROBLEMS = 5  # lines of a key log that are complained of one by one


def dump(
    capture: Path, keys: Path | None, port: int | None, as_json: bool, out: Callable[[str], object] = print
) -> ExitCode:
    """Print a capture ("-" is standard input). Raises `Fault` where a file can't be read or is none of its kind."""
    log = KeyLog() if keys is None else _read_keys(keys)
    dumper = _Dumper(Describer(log), port)
    live = str(capture) == "-"
    with ExitStack() as stack:
        stream, size = _open(capture, stack)
        try:
            packets = Capture(stream)
        except BadCapture as error:
            raise Fault(f"{_name(capture)} can't be read as a capture: {error}") from error
        moved = stack.enter_context(_progress(size, _name(capture)))
        for record in packets:
            moved(packets.bytes_read)
            for facts in dumper.record(record):
                out(json.dumps(facts) if as_json else line(facts))
            if live:
                sys.stdout.flush()
    for note in dumper.notes(keys):
        complain(note)
    if packets.problem is not None:
        complain(f"{packets.problem}. What stands before it was read.")
    return ExitCode.FAILURE if packets.damaged else ExitCode.OK


def _name(path: Path) -> str:
    return "standard input" if str(path) == "-" else printable(str(path))


def _open(path: Path, stack: ExitStack) -> tuple[BinaryIO, int]:
    """The stream and its size, which is 0 where it is not known."""
    if str(path) == "-":
        return sys.stdin.buffer, 0
    try:
        stream = stack.enter_context(path.open("rb"))
        facts = os.fstat(stream.fileno())
    except PermissionError:
        raise
    except OSError as error:
        raise Fault(f"{_name(path)} can't be read: {error.strerror}") from error
    return stream, facts.st_size if stat.S_ISREG(facts.st_mode) else 0


def _read_keys(path: Path) -> KeyLog:
    try:
        with path.open(encoding="ascii", errors="replace") as stream:
            if os.fstat(stream.fileno()).st_mode & 0o077:
                complain(
                    f"others may read {_name(path)}, and with it what its sessions carried: chmod 600 it"
                )
            log = KeyLog.read(stream)
    except PermissionError:
        raise
    except OSError as error:
        raise Fault(f"{_name(path)} can't be read: {error.strerror}") from error
    for number, problem in log.problems[:_PROBLEMS]:
        complain(f"{_name(path)}:{number}: {problem}; the line is passed over")
    if log.bad_lines > _PROBLEMS:
        complain(f"{_name(path)}: {log.bad_lines - _PROBLEMS} more lines are passed over")
    if not log.sessions:
        raise Fault(f"{_name(path)} holds no session's keys; is it the file that `key_log:` names?")
    return log


@contextmanager
def _progress(size: int, name: str) -> Iterator[Callable[[int], None]]:
    """Something to call with the bytes read so far: a bar, where the file is long and the lines go elsewhere."""
    if size < _LONG or not sys.stderr.isatty() or sys.stdout.isatty():
        yield lambda _done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name.replace("[", "\\["), total=size)
        shown = 0

        def moved(done: int) -> None:
            nonlocal shown
            if done - shown >= _STEP:
                shown = done
                progress.update(task, completed=done)

        yield moved


class _Dumper:
    """Records in, facts out; counts what was passed over."""

    __slots__ = ("describer", "finder", "packets", "port", "shown")

    def __init__(self, describer: Describer, port: int | None) -> None:
        self.describer = describer
        self.port = port
        self.finder = Finder()
        self.packets = self.shown = 0

    def record(self, record: Record) -> Iterator[Facts]:
        """What the ZigNet messages of one captured packet say."""
        self.packets += 1
        found = self.finder.find(record.link, record.data)
        if found is None or (
            self.port is not None and self.port not in (found.source_port, found.target_port)
        ):
            return
        now = (record.time or 0) / 1e9
        pieces = apart(found.payload, found.missing)
        for place, piece in enumerate(pieces, 1):
            missing = found.missing if place == len(pieces) else 0
            facts = self.describer.message(piece, now, missing)
            if facts is None:
                if self.port is None:
                    continue
                facts = {"message": None, "length": len(piece) + missing}
            self.shown += 1
            yield _underlay(record, found) | facts

    def notes(self, keys: Path | None) -> Iterator[str]:
        """What a person should know of what was not shown."""
        if not self.shown:
            where = "" if self.port is None else f" of UDP port {self.port}"
            yield f"no ZigNet datagrams{where} among {self.packets} packets"
        if self.finder.fragments:
            yield f"IP fragments were passed over: {self.finder.fragments}"
        for link in sorted(self.finder.unknown_links):
            known = ", ".join(str(number) for number in sorted(LINKS))
            yield f"packets of link type {link} were passed over; known are {known}"
        if keys is not None and self.describer.unopened:
            yield f"data messages of sessions that {_name(keys)} does not hold: {self.describer.unopened}"


def _underlay(record: Record, found: Datagram) -> Facts:
    return {
        "time": None if record.time is None else record.time / 1e9,
        "from": _place(found.source, found.source_port),
        "to": _place(found.target, found.target_port),
        "ecn": found.ecn,
    }


def _place(address: object, port: int) -> str:
    return f"[{address}]:{port}" if isinstance(address, IPv6Address) else f"{address}:{port}"


# --- lines


def line(facts: Facts) -> str:
    """One datagram as one line."""
    start = f"{_time(facts['time'])} {facts['from']} > {facts['to']}"
    kind, length = facts["message"], f"{facts['length']} bytes"
    if kind is None:
        return f"{start} not ZigNet, {length}"
    parts = [_subject(facts), length]
    if facts["ecn"]:
        parts.append(("", "ECT(1)", "ECT(0)", "CE")[facts["ecn"]])
    if peer := facts.get("peer"):
        parts.append(f"{'to' if facts['sent'] else 'from'} {peer[:8]}…")
    if missing := facts.get("missing"):
        parts.append(f"{missing} bytes not captured")
    text = f"{start} {', '.join(parts)}"
    if "frame" in facts:
        return f"{text}: {_frame(facts['frame'])}"
    return f"{text}: sealed ({facts['sealed']})" if "sealed" in facts else text


def _time(seconds: float | None) -> str:
    if seconds is not None:
        try:
            return datetime.fromtimestamp(seconds).strftime("%H:%M:%S.%f")
        except (OverflowError, ValueError, OSError):
            pass
    return "--:--:--.------"


def _subject(facts: Facts) -> str:
    kind = facts["message"]
    if kind == "data":
        return f"data {facts['index']} #{facts['counter']}" if "index" in facts else "data"
    if kind == "cookie":
        return f"cookie > {facts['to_index']}"
    to = f"for {facts['dst'][:16]}…" if "dst" in facts else f"> {facts['to_index']}"
    return f"{kind} {facts['index']} {to}, {facts['suite']}"


def _frame(frame: Facts) -> str:
    name = str(frame.get("protocol", "frame"))
    if name == "bundle":
        inside = [_frame(inner) for inner in frame["frames"]]
        return " | ".join([*inside, f"malformed: {frame['malformed']}"] if "malformed" in frame else inside)
    if "malformed" in frame:
        return f"{name}, malformed: {frame['malformed']}"
    if name == "control":
        return _control(frame)
    if name == "fragment":
        end = frame["offset"] + frame["payload"]
        text = f"fragment {frame['number']}, {frame['offset']}-{end} of {frame['of']}"
        return f"{text}; whole: {_frame(frame['whole'])}" if "whole" in frame else text
    if name == "whole":
        return f"whole packet, {_quoted(frame['packet'])}, length {frame['payload']}"
    text = {"tcp": _tcp, "udp": _udp}.get(name, _icmp)(frame)
    return f"{text} ({_header(frame)})"


def _header(frame: Facts) -> str:
    traffic = f", class {frame['traffic_class']:#04x}" if frame["traffic_class"] else ""
    if "exit" in frame:
        named = f" = {frame['destination_name']}" if "destination_name" in frame else ""
        traffic += f", exit {frame['exit']}, destination {frame['destination']}{named}"
    return f"v{frame['version']}{', partial' if frame['partial'] else ''}, hops {frame['hop_limit']}{traffic}"


def _tcp(frame: Facts) -> str:
    seq, payload = frame["seq"], frame["payload"]
    text = f"tcp {frame['source_port']} > {frame['target_port']} [{frame['tcp_flags']}], seq {seq}"
    if payload:
        text += f":{(seq + payload) & 0xFFFFFFFF}"
    if "." in frame["tcp_flags"]:
        text += f", ack {frame['ack']}"
    return f"{text}, win {frame['window']}, length {payload}"


def _udp(frame: Facts) -> str:
    return f"udp {frame['source_port']} > {frame['target_port']}, length {frame['payload']}"


_ICMP: dict[tuple[int, int], str] = {
    (4, 0): "echo reply",
    (4, 3): "unreachable",
    (4, 8): "echo request",
    (4, 11): "time exceeded",
    (6, 1): "unreachable",
    (6, 2): "packet too big",
    (6, 3): "time exceeded",
    (6, 128): "echo request",
    (6, 129): "echo reply",
}


def _icmp(frame: Facts) -> str:
    kind, code = frame["icmp_type"], frame["icmp_code"]
    text = "icmp " + _ICMP.get((frame["version"], kind), f"type {kind}")
    if "about" in frame:
        return f"{text}, code {code}, about {_quoted(frame['about'])}"
    if "identifier" in frame:
        text += f", id {frame['identifier']}, seq {frame['sequence']}"
    return f"{text}, length {frame['payload']}"


def _quoted(packet: Facts) -> str:
    if "malformed" in packet:
        return str(packet["malformed"])
    protocol = packet["protocol"]
    text = protocol if isinstance(protocol, str) else f"protocol {protocol}"
    return f"{text} {packet['source_port']} > {packet['target_port']}" if "source_port" in packet else text


def _control(frame: Facts) -> str:
    name = str(frame["control"])
    because = frame.get("because", frame.get("reason"))
    if name in ("ping", "pong"):
        return f"{name}, token {frame['token']}"
    if name == "challenge":
        return f"{name}, path {frame['path']}, datagram of {frame['datagram']}"
    if name == "answer":
        seen = f"[{frame['address']}]" if ":" in frame["address"] else frame["address"]
        return f"{name}, path {frame['path']}, datagram of {frame['size']} seen from {seen}:{frame['port']}"
    if name == "refused":
        return f"{name}, {because}, protocol {frame['refused_protocol']}, packet {frame['quote']}"
    return f"{name}, {because}" if name in ("farewell", "offers") else name
