"""A name server for tests and the lab, with the faults that real ones have.

    NameServer(records, host="127.0.0.1")     in this process, on a free port, in a thread; UDP and TCP
    python -m zignet.lab.nameserver FILE      on port 53 of the addresses given, and prints `ready`

Records are {name: {type: [data, ...]}} in the words of zone files; a name that is not there does not exist. The
file has {"records": ..., "addresses": [...]}.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dnslib import QTYPE, RCODE, RR, DNSRecord

__all__ = ["NameServer", "main"]

SOA = "ns.example. admin.example. 1 3600 600 86400 5"
Records = Mapping[str, Mapping[str, Sequence[str]]]


class NameServer:
    """A context manager. What is set while it runs holds from then on."""

    def __init__(self, records: Records, addresses: Sequence[str] = ("127.0.0.1",), port: int = 0) -> None:
        self.records: dict[str, Any] = {name.lower(): dict(data) for name, data in records.items()}
        self.ttl = 60  # seconds
        self.asked: list[tuple[str, str, str]] = []  # (name, type, "udp" or "tcp"), as they came
        self.raw: list[bytes] = []
        self.silent: set[str] = set()  # types that get no answer, "*" for all
        self.late: dict[str, float] = {}  # type -> seconds
        self.failing = False
        self.truncating = False
        self.forging = 0  # so many wrong answers before the right one
        self._selector = selectors.DefaultSelector()
        self._ends: list[socket.socket] = []
        for address in addresses:
            port = self._open(address, port)
        self.port = port
        self.address = addresses[0]
        self._stop, stop = socket.socketpair()
        self._ends += [self._stop, stop]
        self._selector.register(stop, selectors.EVENT_READ, "stop")
        self._thread = threading.Thread(target=self.run, daemon=True)

    def _open(self, address: str, port: int) -> int:
        """Both protocols on one port, a free one if it is 0."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for _ in range(64):
            listener = socket.create_server((address, port), family=family)
            datagrams = socket.socket(family, socket.SOCK_DGRAM)
            try:
                datagrams.bind((address, listener.getsockname()[1]))
            except OSError:
                listener.close()
                datagrams.close()
                if port:
                    raise
                continue
            self._ends += [listener, datagrams]
            self._selector.register(listener, selectors.EVENT_READ, "tcp")
            self._selector.register(datagrams, selectors.EVENT_READ, "udp")
            found: int = listener.getsockname()[1]
            return found
        raise OSError(f"no port of {address} is free for both")

    def __enter__(self) -> NameServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.send(b"!")
        self._thread.join(10)
        for end in self._ends:
            end.close()
        self._selector.close()

    def run(self) -> None:
        """Serve until the end of the block, or for ever."""
        while True:
            for key, _ in self._selector.select():
                sock: Any = key.fileobj
                if key.data == "stop":
                    return
                with contextlib.suppress(OSError):
                    if key.data == "udp":
                        self._datagram(sock)
                    else:
                        accepted, _ = sock.accept()
                        threading.Thread(target=self._stream, args=(accepted,), daemon=True).start()

    def _datagram(self, sock: socket.socket) -> None:
        query, sender = sock.recvfrom(65_535)
        answer, delay = self.answer(query, "udp")
        if answer is None:
            return
        for number in range(self.forging):
            sock.sendto(bytes((query[0] ^ 1 + number % 255, query[1])) + answer[2:], sender)
        if delay:
            timer = threading.Timer(delay, self._send, (sock, answer, sender))
            timer.daemon = True
            timer.start()
        else:
            sock.sendto(answer, sender)

    def _send(self, sock: socket.socket, answer: bytes, to: Any) -> None:
        with contextlib.suppress(OSError):
            sock.sendto(answer, to)

    def _stream(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            sock.settimeout(10)
            file = sock.makefile("rb")
            while len(length := file.read(2)) == 2:
                answer, delay = self.answer(file.read(int.from_bytes(length, "big")), "tcp")
                time.sleep(delay)
                if answer is not None:
                    sock.sendall(len(answer).to_bytes(2, "big") + answer)

    def answer(self, query: bytes, way: str) -> tuple[bytes | None, float]:
        """What is answered, and after how many seconds."""
        self.raw.append(query)
        asked = DNSRecord.parse(query)
        name = str(asked.q.qname).rstrip(".")
        kind = QTYPE[asked.q.qtype]
        self.asked.append((name, kind, way))
        if self.silent & {kind, "*"}:
            return None, 0.0
        reply = asked.reply()
        if self.failing:
            reply.header.rcode = RCODE.SERVFAIL
        elif self.truncating and way == "udp":
            reply.header.tc = 1
        else:
            self._fill(reply, name.lower(), kind)
        return bytes(reply.pack()), self.late.get(kind, 0.0)

    def _fill(self, reply: DNSRecord, name: str, kind: str) -> None:
        owner = name
        for _ in range(8):
            data = self.records.get(name)
            if data is None:
                reply.header.rcode = RCODE.NXDOMAIN
                break
            if kind in data or "CNAME" not in data:
                self._add(reply, name, kind, data.get(kind, ()))
                break
            self._add(reply, name, "CNAME", data["CNAME"])
            name = data["CNAME"][0].rstrip(".")
        if not any(QTYPE[record.rtype] == kind for record in reply.rr):
            reply.add_auth(*RR.fromZone(f"{owner.partition('.')[2] or '.'} {self.ttl} IN SOA {SOA}"))

    def _add(self, reply: DNSRecord, name: str, kind: str, data: Sequence[str]) -> None:
        for each in data:
            reply.add_answer(*RR.fromZone(f"{name}. {self.ttl} IN {kind} {each}"))


def main(file: str) -> None:
    """The program."""
    plan = json.loads(Path(file).read_text())
    server = NameServer(plan["records"], plan["addresses"], 53)
    print("ready", flush=True)
    server.run()


if __name__ == "__main__":
    main(sys.argv[1])
