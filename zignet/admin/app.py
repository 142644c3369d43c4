"""The API as HTTP: Sanic's application, its errors, and the sockets that it serves."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing, suppress
from itertools import count
from pathlib import Path
from socket import socket
from typing import Any

import zignet.admin.lean

# isort: split
from sanic import HTTPResponse, Request, Sanic
from sanic.application.state import ApplicationServerInfo
from sanic.config import Config
from sanic.exceptions import MethodNotAllowed, NotFound, SanicException
from sanic.handlers import ErrorHandler
from sanic.http.constants import HTTP
from sanic.server import AsyncioServer

import zignet
from zignet.admin.api import Api
from zignet.admin.endpoint import JSON, Endpoint, endpoints_of
from zignet.admin.fresh import Asked
from zignet.admin.guard import Guard
from zignet.admin.openapi import document
from zignet.admin.policy import Judge
from zignet.admin.protocol import AdminProtocol
from zignet.admin.refused import Refused
from zignet.control import ControlError, Declined

__all__ = ["OPENAPI", "Servers", "create_app", "create_servers"]

log = logging.getLogger("zignet.admin")

OPENAPI = "/openapi.json"
GRACE_S = 1.0  # for answers that are under way at a stop
Settings = dict[str, str | bool | int | float | None]

LIMITS: Settings = {
    "REQUEST_MAX_SIZE": 64 << 10,  # bytes of a body
    "REQUEST_MAX_HEADER_SIZE": 8 << 10,
    "REQUEST_BUFFER_SIZE": 64 << 10,
    "REQUEST_TIMEOUT": 10,  # seconds, from the first byte of the head to its last
    "RESPONSE_TIMEOUT": 40,  # from the first byte to an answer, and for a part of it that nobody reads
    "KEEP_ALIVE_TIMEOUT": 30,
    "GRACEFUL_TCP_CLOSE_TIMEOUT": 2.0,
}
QUIET: Settings = {
    "ACCESS_LOG": False,
    "AUTO_EXTEND": False,
    "MOTD": False,
    "FALLBACK_ERROR_FORMAT": "json",
}
HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
}
_numbers = count(1)


def create_app(
    node: Asked,
    judge: Callable[[], Judge | None] = lambda: None,
    contacts: Path | None = None,
    token: str = "",
) -> Sanic[Any, Any]:
    """The application. `node`: the packet process; `judge` gives the one that decides now, None without policies;
    `contacts`: the directory of their file; `token`: what changes by TCP need, with "" there are none.

    `app.ctx.api.decided` is to hear of decisions.
    """
    guard = Guard(token)
    api = Api(node, judge, contacts, guard.also_called)
    app: Sanic[Any, Any] = Sanic(
        f"zignet-admin-{next(_numbers)}",  # Sanic wants names of their own
        config=Config(QUIET | LIMITS, env_prefix=None),
        error_handler=Errors(),
        configure_logging=False,
        strict_slashes=True,
    )
    app.ctx.api = api
    # Says that there is only HTTP/1: else each answer has an empty Alt-Svc
    app.state.server_info.append(ApplicationServerInfo(settings={"version": HTTP.VERSION_1}))

    @app.on_request
    async def pass_guard(request: Request) -> None:
        if not request.head:  # what Sanic makes up to report what was not even a request
            return
        assert request.conn_info is not None
        guard.check(request.method, request.head, request.headers, request.conn_info.ctx.arrival)

    endpoints = list(endpoints_of(Api))
    described = json.dumps(document(endpoints, zignet.__version__)).encode()

    async def openapi(request: Request) -> HTTPResponse:
        return answer(described)

    app.add_route(openapi, OPENAPI, methods=("GET", "HEAD"), name="openapi")
    for each in endpoints:
        path = each.path.replace("{", "<").replace("}", ":str>")
        handler = getattr(api, each.handler)
        streamed = each.media == "text/event-stream"
        methods = ("GET", "HEAD") if each.method == "GET" and not streamed else (each.method,)
        served: Any = _streaming(each, handler) if streamed else _serving(each, handler)
        app.add_route(served, path, methods=methods, name=each.handler)
    return app


def methods_of(path: str) -> list[str]:
    """By which methods a path can be asked."""
    parts = path.split("/")
    found: list[str] = []
    for each in endpoints_of(Api):
        pattern = each.path.split("/")
        if len(pattern) == len(parts) and all(
            ours.startswith("{") or ours == theirs for ours, theirs in zip(pattern, parts, strict=True)
        ):
            found += ("GET", "HEAD") if each.method == "GET" else (each.method,)
    return found or ["GET", "HEAD"]  # of the OpenAPI document


def answer(body: bytes, status: int = 200, media: str = JSON, **more: str) -> HTTPResponse:
    """A response with the headers that all have."""
    return HTTPResponse(body, status, {**HEADERS, **more} if more else HEADERS, media)


def _serving(
    described: Endpoint, handler: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[HTTPResponse]]:
    async def serve(request: Request, **path: str) -> HTTPResponse:
        given = _given(described, request, path) if path or request.query_string else described.read({}, path)
        if described.body is not None:
            given["body"] = described.read_body(request.headers.get("content-type", ""), request.body)
        try:
            found = await handler(**given)
        except Declined as error:
            raise Refused(described.declined, str(error)) from error
        body = found if isinstance(found, bytes) else json.dumps(found, separators=(",", ":")).encode()
        return answer(body, media=described.media)

    return serve


def _streaming(
    described: Endpoint, handler: Callable[..., AsyncGenerator[bytes, None]]
) -> Callable[..., Awaitable[None]]:
    async def serve(request: Request, **path: str) -> None:
        async with aclosing(handler(**_given(described, request, path))) as stream:
            first = await anext(stream)  # from here on it ends with this block
            head = HTTPResponse(status=200, headers=HEADERS, content_type=described.media)
            response = await request.respond(head)
            assert response is not None
            await response.send(first)
            async for part in stream:  # `send` waits as long as the reader is behind
                await response.send(part)
            await response.eof()

    return serve


def _given(described: Endpoint, request: Request, path: dict[str, str]) -> dict[str, Any]:
    return described.read(dict(request.get_args(keep_blank_values=True)), path)


class Errors(ErrorHandler):
    """Whatever goes wrong is a status and a sentence."""

    def response(self, request: Request, exception: Exception) -> HTTPResponse:
        """See `ErrorHandler`."""
        match exception:
            case Refused(status=401):
                return _error(401, exception.sentence, **{"www-authenticate": 'Bearer realm="zignet"'})
            case Refused():
                return _error(exception.status, exception.sentence)
            case ControlError():
                return _error(503, f"the packet process does not answer: {exception}", **{"retry-after": "1"})
            case NotFound():
                return _error(404, f"there is nothing here: {OPENAPI} says what there is")
            case MethodNotAllowed():
                allowed = ", ".join(methods_of(request.path))  # Sanic does not always know them
                return _error(405, f"not by this method: {allowed}", allow=allowed)
            case SanicException():
                return _error(exception.status_code, str(exception) or "the request can't be answered")
        log.error("an answer of the Admin API failed", exc_info=exception)
        return _error(500, "this is a fault of ZigNet's own; its log says more")


def _error(status: int, sentence: str, **more: str) -> HTTPResponse:
    return answer(json.dumps({"error": sentence}).encode(), status, **more)


class Servers:
    """The application at its sockets."""

    def __init__(self, app: Sanic[Any, Any], servers: list[AsyncioServer]) -> None:
        self._app = app
        self._servers = servers

    async def close(self) -> None:
        """Listen no more, let answers that are under way end, and hang up."""
        for server in self._servers:
            server.close()
        self._app.ctx.api.events.close()
        open_ = [connection for server in self._servers for connection in server.connections]
        waiting = [connection for connection in open_ if not connection.close_if_idle()]
        if waiting:
            await asyncio.sleep(GRACE_S)
        for connection in waiting:
            connection.abort()
        Sanic.unregister_app(self._app)


async def create_servers(app: Sanic[Any, Any], sockets: Iterable[socket]) -> Servers:
    """Serve at sockets that listen already: unix ones, and TCP ones that are bound to addresses of this node."""
    servers: list[AsyncioServer] = []
    for sock in sockets:
        sock.setblocking(False)
        server = await app.create_server(
            sock=sock, protocol=AdminProtocol, asyncio_server_kwargs={"start_serving": False}
        )
        assert server is not None
        servers.append(server)
    await servers[0].startup()
    with suppress(ControlError):  # it will be asked again
        await app.ctx.api.whoami()
    for server in servers:
        await server.start_serving()
    return Servers(app, servers)
