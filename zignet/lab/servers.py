"""The lab's origin servers, one process for all of them.

    80/tcp   HTTP/1.1, and HTTP/2 with prior knowledge     443/tcp  HTTPS      443/udp  HTTP/3 (with aioquic)
    7        echo, TCP and UDP         9    takes all, then tells how much     13   says nothing, ever
    19       answers one byte with a reset                 25   speaks first   53/udp   DNS: every A is itself

Web pages tell what the server saw: {"server", "name", "client", "port", "protocol"}, as JSON, or as HTML for who
accepts that, with the JSON in its <pre>. `/bytes/N` is N bytes. Scripts of any site may read them (CORS).
Run as `python -m zignet.lab.servers FILE` with JSON {"sites": {name: [addresses]}, "files": {name:
[certificate, key]}}; prints `ready`.
"""

from __future__ import annotations

import asyncio
import html
import json
import re
import signal
import socket
import ssl
import struct
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

__all__ = ["HEADERS", "Site", "main", "page"]

GREETING = b"220 mail.example says hello first\r\n"
MAX_HEAD = 65_536  # bytes
H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 §3.4
H2_DATA, H2_HEADERS, H2_SETTINGS = 0, 1, 4  # RFC 9113 §6
H2_ACK = H2_END_STREAM = 1
H2_END_HEADERS = 4
HPACK_200 = b"\x88"  # RFC 7541 appendix A: ":status: 200"
RST_ON_CLOSE = struct.pack("ii", 1, 0)
HEADERS = {"access-control-allow-origin": "*", "cache-control": "no-store"}  # of every page
HTML = """\
<!doctype html><title>{server}</title>
<body style="font: 1em sans-serif; margin: 2em">
<h1>{server}</h1><p>{name} was asked by {client}, {protocol}</p>
<pre style="white-space: pre-wrap">{facts}</pre>
"""

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def page(path: str, accept: str, facts: dict[str, Any]) -> tuple[str, bytes]:
    """The type and the body of a page: the facts, or as many bytes as the path asks for."""
    if match := re.fullmatch(r"/bytes/(\d+)", path):
        return "application/octet-stream", bytes(int(match[1]))
    text = json.dumps(facts)
    if "text/html" not in accept:
        return "application/json", text.encode() + b"\n"
    shown = {key: html.escape(str(value)) for key, value in facts.items()}
    return "text/html; charset=utf-8", HTML.format(**shown, facts=html.escape(text)).encode()


class Site:
    """The names and addresses that are served here."""

    def __init__(self, sites: dict[str, list[str]], files: dict[str, list[str]]) -> None:
        self.name_of = {address: name for name, addresses in sites.items() for address in addresses}
        self.contexts = {name: _context(*pair) for name, pair in files.items()}
        self.files = files
        self.context = next(iter(self.contexts.values()))
        self.context.sni_callback = self._named

    def _named(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """The ClientHello has come: remember its name, and take the right certificate."""
        connection.lab_name = name  # type: ignore[attr-defined]
        if name in self.contexts:
            connection.context = self.contexts[name]

    def facts(
        self, near: tuple[Any, ...], far: tuple[Any, ...], name: str | None, protocol: str
    ) -> dict[str, Any]:
        """What a page tells."""
        return {
            "server": self.name_of.get(near[0], near[0]),
            "name": name,
            "client": far[0],
            "port": far[1],
            "protocol": protocol,
        }

    async def web(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """HTTP, with or without TLS; one request."""
        near, far = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
        tls = writer.get_extra_info("ssl_object")
        start = await reader.readline()
        if start == b"PRI * HTTP/2.0\r\n":
            await self.http2(reader, writer)
            return
        asked: dict[str, str] = {}
        while (line := await reader.readline()) not in (b"\r\n", b""):
            key, _, value = line.decode("latin-1").partition(":")
            asked[key.lower()] = value.strip()
        name = getattr(tls, "lab_name", None) if tls is not None else asked.get("host")
        path = start.split(b" ")[1].decode()
        facts = self.facts(near, far, name, "https" if tls is not None else "http")
        kind, body = page(path, asked.get("accept", ""), facts)
        head = {"content-type": kind, "content-length": str(len(body)), "connection": "close"} | HEADERS
        lines = "".join(f"{key}: {value}\r\n" for key, value in head.items())
        writer.write(f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode())
        writer.write(body)
        await writer.drain()

    async def http2(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The least that is HTTP/2 (RFC 9113): settings, and one answer to each HEADERS."""
        near, far = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
        await reader.readexactly(len(H2_PREFACE) - len(b"PRI * HTTP/2.0\r\n"))
        writer.write(_frame(H2_SETTINGS, 0, 0, b""))
        while True:
            head = await reader.readexactly(9)
            length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
            stream = int.from_bytes(head[5:9], "big")
            await reader.readexactly(length)
            if kind == H2_SETTINGS and not flags & H2_ACK:
                writer.write(_frame(H2_SETTINGS, H2_ACK, 0, b""))
            elif kind == H2_HEADERS:
                _, body = page("/", "", self.facts(near, far, None, "h2"))
                writer.write(_frame(H2_HEADERS, H2_END_HEADERS, stream, HPACK_200))
                writer.write(_frame(H2_DATA, H2_END_STREAM, stream, body))
            await writer.drain()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _context(certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


# --- small servers


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Everything comes back."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads to the end, then tells how many bytes there were: needs half-close."""
    total = 0
    while data := await reader.read(1 << 18):
        total += len(data)
    writer.write(str(total).encode())
    await writer.drain()


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accepts and says nothing."""
    while await reader.read(65536):
        pass


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers the first byte with a reset."""
    await reader.read(1)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
    writer.transport.abort()


async def speak_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A greeting, and then an echo."""
    writer.write(GREETING)
    await echo(reader, writer)


TCP_SERVERS: dict[int, Serve] = {7: echo, 9: count, 13: silence, 19: reset, 25: speak_first}


class Echo(asyncio.DatagramProtocol):
    """Datagrams come back."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready."""
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """One more."""
        self.transport.sendto(self.answer(data), addr)  # type: ignore[attr-defined]

    def answer(self, data: bytes) -> bytes:
        """The same again."""
        return data


class Dns(Echo):
    """Every name has the address of this server (RFC 1035 §4)."""

    def __init__(self, address: str) -> None:
        self.address = socket.inet_aton(address)

    def answer(self, data: bytes) -> bytes:
        """The question and one A record that points at its name."""
        end = 12
        while data[end]:
            end += 1 + data[end]
        question = data[12 : end + 5]
        head = data[:2] + struct.pack(">HHHHH", 0x8580, 1, 1, 0, 0)
        return head + question + struct.pack(">HHHIH", 0xC00C, 1, 1, 60, 4) + self.address


def guarded(serve: Serve) -> Serve:
    """A connection that breaks is not the server's trouble; one that ends is closed."""

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (OSError, EOFError, IndexError, ValueError):
            pass
        finally:
            writer.close()

    return run


async def run(site: Site) -> None:
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started us, and will stop us
    everywhere = None
    options: dict[str, Any] = {"backlog": 4096, "limit": MAX_HEAD}
    servers = [
        await asyncio.start_server(guarded(site.web), everywhere, 80, **options),
        await asyncio.start_server(guarded(site.web), everywhere, 443, ssl=site.context, **options),
    ]
    for port, serve in TCP_SERVERS.items():
        servers.append(await asyncio.start_server(guarded(serve), everywhere, port, **options))
    for address in site.name_of:  # datagrams are answered from the address that they were sent to
        await loop.create_datagram_endpoint(Echo, (address, 7))
        if ":" not in address:
            await loop.create_datagram_endpoint(partial(Dns, address), (address, 53))
    try:
        from zignet.lab import quic
    except ImportError:
        pass  # aioquic is a development dependency
    else:
        await quic.serve(site)
    print("ready", flush=True)
    await stopped.wait()


def main(arguments: list[str]) -> None:
    """Serve what the file says."""
    asyncio.run(run(Site(**json.loads(Path(arguments[0]).read_text()))))


if __name__ == "__main__":
    main(sys.argv[1:])
