"""`zignet serve`: a program of this machine for contacts, by a port of the ZigNet address.

It listens there itself, and passes connections on to the program, which may listen on 127.0.0.1 alone. The node is
told every few seconds that the service is there, so nothing stays when this command is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from zignet.bpf import attach_filter, by_interface
from zignet.cli.errors import ExitCode, Fault
from zignet.config.publish import service_name
from zignet.control import Client, ControlError, Declined, NotRunning

__all__ = ["Service", "parse_target", "serve"]

AT_ONCE = 1_000  # connections
PIECE = 64 << 10  # bytes
RENEW_S = 10.0
DIAL_S = 10.0
BACKLOG = 128
HTTP = 80
_TARGET = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]:|(?P<host>[^:\[\]/]+):)?(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True)
class Service:
    """What is to be served."""

    target: tuple[str, int]
    port: int  # of the ZigNet address
    name: str
    to: tuple[str, ...]


def parse_target(text: str) -> tuple[str, int]:
    """From `3000`, `127.0.0.1:3000` or `[::1]:3000`. Raises `Fault`."""
    found = _TARGET.fullmatch(text)
    port = int(found["port"]) if found is not None else 0
    if found is None or not 0 < port < 65536:
        raise Fault(f'"{text}" is neither a port nor host:port, such as 127.0.0.1:3000', ExitCode.USAGE)
    return found["six"] or found["host"] or "127.0.0.1", port


def service_of(target: str, port: int | None, name: str | None, to: Sequence[str]) -> Service:
    """From what was typed. Raises `Fault`."""
    host, own = parse_target(target)
    public = HTTP if port is None else port
    try:
        called = service_name(name or ("web" if public == HTTP else f"port-{public}"))
    except ValueError as error:
        raise Fault(str(error), ExitCode.USAGE) from None
    return Service((host, own), public, called, tuple(to) or ("contacts",))


def serve(state_dir: Path, service: Service, told: Callable[[str], None] = print) -> None:
    """Until Ctrl-C or SIGTERM. Raises `Fault`, `ControlError`."""
    with Client(state_dir) as client:
        status = client.status()
        identity = status["identity"]
        if identity is None:
            raise Fault(
                "this node has no peers: its configuration has neither `listen` nor `peers` nor `publish`"
            )
        interface = status["interface"]
        listeners = _listeners(interface["name"], [identity["address"], identity["address6"]], service.port)
        client.publish(service.name, "tcp", service.port, list(service.to))
    port = "" if service.port == HTTP else f":{service.port}"
    host, own = service.target
    shown = f"[{host}]:{own}" if ":" in host else f"{host}:{own}"
    told(
        f"{shown} is served to {' '.join(service.to)} as {service.name}, until Ctrl-C. They open what they call you:"
    )
    told(f"  http://NAME.zignet{port}/   or   http://{identity['key']}.zignet{port}/")
    asyncio.run(_Relay(state_dir, service).run(listeners))


def _listeners(interface: str, addresses: Sequence[str], port: int) -> list[socket.socket]:
    """For what comes by the TUN, and so from peers. Raises `Fault`."""
    made: list[socket.socket] = []
    try:
        for address in addresses:
            sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
            made.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Beside the Admin API, which has port 80 of the address for this host itself
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if not attach_filter(sock, by_interface(socket.if_nametoindex(interface))):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            try:
                sock.bind((address, port))
                sock.listen(BACKLOG)
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL and ":" in address:  # IPv6 is off
                    made.remove(sock)
                    sock.close()
                    continue
                raise
            sock.setblocking(False)
    except OSError as error:
        for sock in made:
            sock.close()
        raise Fault(_why(error, port)) from None
    return made


def _why(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} is taken by a program that listens on all addresses. Choose another with --port; or publish "
            "that program itself: `publish` in the configuration"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} may not be opened by this user: use sudo, or --port with one from 1024 on"
    return f"port {port} can't be opened: {error.strerror}"


class _Relay:
    """Passes connections on."""

    def __init__(self, state_dir: Path, service: Service) -> None:
        self._state_dir = state_dir
        self._service = service
        self._open: set[asyncio.Task[None]] = set()
        self._failure: Exception | None = None

    async def run(self, listeners: Sequence[socket.socket]) -> None:
        """Until a signal, or until the node is gone. Raises `ControlError`."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ended.set)
        tasks = [asyncio.create_task(self._accept(sock)) for sock in listeners]
        tasks.append(asyncio.create_task(self._renew(ended)))
        await ended.wait()
        for task in (*tasks, *self._open):
            task.cancel()
        await asyncio.gather(*tasks, *self._open, return_exceptions=True)
        for sock in listeners:
            sock.close()
        with contextlib.suppress(ControlError):
            await asyncio.to_thread(self._withdraw)
        if self._failure is not None:
            raise self._failure

    async def _renew(self, ended: asyncio.Event) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                await asyncio.to_thread(self._publish)
            except (NotRunning, Declined) as error:
                self._failure = error
                ended.set()
            except ControlError as error:  # busy; there is time for another try
                print(f"zignet: {error}", file=sys.stderr)

    def _publish(self) -> None:
        with Client(self._state_dir) as client:
            client.publish(self._service.name, "tcp", self._service.port, list(self._service.to))

    def _withdraw(self) -> None:
        with Client(self._state_dir) as client:
            client.withdraw(self._service.name)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError:  # too many descriptors, or it was reset already
                await asyncio.sleep(0.1)
                continue
            if len(self._open) >= AT_ONCE:
                sock.close()
                continue
            task = asyncio.create_task(self._carry(sock))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    async def _carry(self, sock: socket.socket) -> None:
        """One connection, both ways; what the program refuses is reset."""
        with contextlib.suppress(OSError, TimeoutError):
            caller = await asyncio.open_connection(sock=sock, limit=PIECE)
            try:
                async with asyncio.timeout(DIAL_S):
                    program = await asyncio.open_connection(*self._service.target, limit=PIECE)
            except (OSError, TimeoutError):
                caller[1].transport.abort()
                return
            try:
                await asyncio.gather(_pump(caller[0], program[1]), _pump(program[0], caller[1]))
            finally:
                for _, writer in (caller, program):
                    writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(PIECE):
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
