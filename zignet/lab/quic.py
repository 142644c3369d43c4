"""HTTP/3 for the lab, by aioquic: a server that tells what it saw, and a client for one request.

Run as `python -m zignet.lab.quic CA-FILE URL [ADDRESS]`; prints the page.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve as serve_quic
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated, QuicEvent

from zignet.lab.servers import HEADERS, page

if TYPE_CHECKING:
    from zignet.lab.servers import Site

__all__ = ["get", "main", "serve"]

TIMEOUT_S = 10.0


class Http3(QuicConnectionProtocol):
    """Hands the events of HTTP/3 to `heard`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.http: H3Connection | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        """From the connection below."""
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic)
        if self.http is not None:
            for http_event in self.http.handle_event(event):
                self.heard(self.http, http_event)

    def heard(self, http: H3Connection, event: H3Event) -> None:
        """One event of HTTP/3."""


class Server(Http3):
    """Answers each request with what it saw."""

    def __init__(self, site: Site, address: str, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.site = site
        self.address = address

    def heard(self, http: H3Connection, event: H3Event) -> None:
        """A request."""
        if not isinstance(event, HeadersReceived):
            return
        headers = dict(event.headers)
        far = self._quic._network_paths[0].addr  # the address as this datagram brought it
        name = headers.get(b":authority", b"").decode()
        facts = self.site.facts((self.address,), far, name, "h3")
        kind, body = page(headers.get(b":path", b"/").decode(), headers.get(b"accept", b"").decode(), facts)
        head = {":status": "200", "content-type": kind, "content-length": str(len(body))} | HEADERS
        http.send_headers(event.stream_id, [(key.encode(), value.encode()) for key, value in head.items()])
        http.send_data(event.stream_id, body, end_stream=True)
        self.transmit()


class Client(Http3):
    """One GET."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.body = bytearray()
        self.done = asyncio.get_running_loop().create_future()

    async def get(self, host: str, path: str) -> bytes:
        """The body of the page."""
        while self.http is None:
            await asyncio.sleep(0)
        stream = self._quic.get_next_available_stream_id()
        head = [
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", host.encode()),
            (b":path", path.encode()),
        ]
        self.http.send_headers(stream, head, end_stream=True)
        self.transmit()
        await asyncio.wait_for(self.done, TIMEOUT_S)
        return bytes(self.body)

    def heard(self, http: H3Connection, event: H3Event) -> None:
        """A part of the answer."""
        if isinstance(event, DataReceived):
            self.body += event.data
        if isinstance(event, DataReceived | HeadersReceived) and event.stream_ended and not self.done.done():
            self.done.set_result(None)


async def serve(site: Site) -> None:
    """Listen on port 443 of each address, with the certificate of its name."""
    for address, name in site.name_of.items():
        certificate, key = site.files[name]
        configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
        configuration.load_cert_chain(certificate, key)

        def create(*arguments: Any, address: str = address, **options: Any) -> Server:
            return Server(site, address, *arguments, **options)

        await serve_quic(address, 443, configuration=configuration, create_protocol=create)


async def get(ca_file: str, url: str, address: str | None = None) -> bytes:
    """Fetch a page; from `address`, if it is given, instead of the name's. Raises OSError or TimeoutError."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    target = address or socket.getaddrinfo(host, parts.port or 443, type=socket.SOCK_DGRAM)[0][4][0]
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=host)
    configuration.load_verify_locations(ca_file)
    # aioquic sends from a dual-stack socket: a numeric target keeps the family
    connecting = connect(
        str(target),
        parts.port or 443,
        configuration=configuration,
        create_protocol=cast(Callable[..., Any], Client),
    )
    async with asyncio.timeout(TIMEOUT_S), connecting as client:
        return await cast(Client, client).get(host, parts.path or "/")


def main(arguments: list[str]) -> None:
    """One request from the command line."""
    sys.stdout.write(asyncio.run(get(*arguments)).decode())


if __name__ == "__main__":
    main(sys.argv[1:])
