"""Lines of JSON over a socket in the packet loop, bounded both ways: who floods or talks nonsense hurts itself."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

from nat.loop import ERROR, READ, WRITE, Handler, Loop

__all__ = ["LINE_BYTES", "LineChannel"]

LINE_BYTES = 64 << 10  # of a line, and of what waits to be sent
CHUNK = 16 << 10  # bytes
LINES_PER_TURN = 64  # before the packets have their turn


class LineChannel(Handler):
    """One end. `heard` gets each line's object, `broken` once why it is over, `room` when more can be sent again."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        heard: Callable[[dict[str, Any]], None],
        room: Callable[[], None],
        broken: Callable[[str], None],
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._heard = heard
        self._room = room
        self._broken = broken
        self._input = bytearray()
        self._output = bytearray()
        self._mask = READ
        self._full = False
        self._open = True
        loop.watch(sock.fileno(), self, READ)

    def send(self, message: dict[str, Any]) -> bool:
        """Send a line. False: too much waits already, or it is over."""
        if not self._open:
            return False
        if len(self._output) >= LINE_BYTES:
            self._full = True
            return False
        self._output += json.dumps(message, separators=(",", ":")).encode() + b"\n"
        self._flush()
        return True

    def on_event(self, mask: int) -> None:
        """Lines, or room for them."""
        if mask & WRITE:
            self._flush()
        if mask & (READ | ERROR) and self._open:
            self._receive()

    def _flush(self) -> None:
        try:
            while self._output:
                del self._output[: self._sock.send(self._output)]
        except BlockingIOError:
            pass
        except OSError as error:
            self._end(f"it does not listen: {error.strerror}")
            return
        self._rearm()
        if self._full and not self._output:
            self._full = False
            self._room()

    def _receive(self) -> None:
        try:
            data = self._sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(f"it is gone: {error.strerror}")
            return
        if not data:
            self._end("it has closed its end")
            return
        self._input += data
        self._go_on()

    def _go_on(self) -> None:
        """Some lines; the rest in the next turn, and nothing is read before."""
        for _ in range(LINES_PER_TURN):
            end = self._input.find(b"\n")
            if end < 0:
                if len(self._input) > LINE_BYTES:
                    self._end(f"a line of more than {LINE_BYTES} bytes")
                break
            line = bytes(self._input[:end])
            del self._input[: end + 1]
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                message = None
            if not isinstance(message, dict):
                self._end("it sent what is no message")
                return
            self._heard(message)
            if not self._open:
                return
        else:
            if b"\n" in self._input:
                self._loop.soon(self._resume)
        self._rearm()

    def _resume(self) -> None:
        if self._open:
            self._go_on()

    def _rearm(self) -> None:
        if not self._open:
            return
        wanted = (WRITE if self._output else 0) | (0 if b"\n" in self._input else READ)
        if wanted != self._mask:
            self._mask = wanted
            self._loop.rearm(self._sock.fileno(), wanted)

    def _end(self, why: str) -> None:
        if self._open:
            self.close()
            self._broken(why)

    def abort(self) -> None:
        """A fault in what it sent: it is over."""
        self._end("it sent what was not expected")

    def close(self) -> None:
        """Hang up, and tell nobody."""
        if self._open:
            self._open = False
            self._loop.close(self._sock)
        self._input.clear()
        self._output.clear()
