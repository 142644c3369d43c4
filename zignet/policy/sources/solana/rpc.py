"""JSON-RPC servers of Solana: asked in turn, each given a rest when it fails or asks for one (HTTP 429).

Whoever runs such a server may be slow, wrong or hostile: an answer has a time limit and a greatest size, redirects
are not followed. A URL often holds an API key, so only its host is ever shown. Answers are read by `json` and looked at
here: the parsers of `solders` abort with a trace where an answer is not as they expect.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
from solana.exceptions import SolanaRpcException, handle_async_exceptions
from solana.rpc.async_http_provider import AsyncHTTPProvider

from zignet.policy.source import SourceError

__all__ = ["Rpc"]

R = TypeVar("R")

for _name in ("httpx2", "httpcore2", "solana"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # they tell of each request, with its whole URL

TIMEOUT_S = 5.0  # of one server's answer, all of it
MOST_BYTES = 4 << 20  # of an answer: 100 accounts of 10 KiB, as base64, and some
AT_ONCE = 16  # requests under way
FIRST_REST_S = 1.0
LONGEST_REST_S = 60.0
MOST_TOLD = 120  # characters of a server's own error


class _Rest(Exception):
    """The server asks for a rest of so many seconds; None: it does not say."""

    def __init__(self, seconds: float | None) -> None:
        super().__init__("it asks to be left alone for a while (429)")
        self.seconds = seconds


@dataclass(slots=True)
class _Server:
    url: str
    host: str
    rest_s: float = 0.0  # the latest
    until: float = 0.0  # monotonic seconds; it is not asked before
    error: str = ""


class _Provider(AsyncHTTPProvider):
    """As its parent, with a bound on what is read."""

    @handle_async_exceptions(SolanaRpcException, httpx2.HTTPError)
    async def make_request_unparsed(self, body: Any) -> str:
        """One request. Raises `_Rest`, ValueError, `SolanaRpcException`."""
        headers = {"Content-Type": "application/json"}
        async with self.session.stream(
            "POST", self.endpoint_uri, content=body.to_json(), headers=headers
        ) as response:
            if response.status_code == 429:
                raise _Rest(_seconds(response.headers.get("retry-after")))
            if response.status_code != 200:
                raise ValueError(f"HTTP status {response.status_code}")
            held = bytearray()
            async for chunk in response.aiter_bytes():
                held += chunk
                if len(held) > MOST_BYTES:
                    raise ValueError(f"an answer of more than {MOST_BYTES >> 20} MiB")
        try:
            return held.decode()
        except UnicodeDecodeError:
            raise ValueError("an answer that is not text") from None


class Rpc:
    """The servers of one policy."""

    def __init__(
        self,
        urls: Sequence[str],
        timeout_s: float = TIMEOUT_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._servers = [_Server(url, _host(url)) for url in urls]
        self._providers = {url: _provider(url, timeout_s) for url in urls}
        self._timeout_s = timeout_s
        self._now = now
        self._slots = asyncio.Semaphore(AT_ONCE)

    @property
    def hosts(self) -> list[str]:
        """Who is asked, first to last."""
        return [server.host for server in self._servers]

    async def call(self, body: Any, read: Callable[[Any], R]) -> R:
        """What `read` makes of the first result that fits: it raises ValueError for one that does not.

        `body` is a request of `solders.rpc.requests`. Raises `SourceError`.
        """
        async with self._slots:
            for server in self._servers:
                if server.until > self._now():
                    continue
                try:
                    found = read(await self._ask(server, body))
                except (SolanaRpcException, _Rest, TimeoutError, ValueError) as error:
                    self._rest(server, error)
                else:
                    server.rest_s = server.until = 0.0
                    server.error = ""
                    return found
        raise SourceError("; ".join(f"{server.host}: {server.error}" for server in self._servers))

    async def _ask(self, server: _Server, body: Any) -> Any:
        async with asyncio.timeout(self._timeout_s):
            text = await self._providers[server.url].make_request_unparsed(body)
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        if (
            not isinstance(answer, dict)
            or answer.get("id") != body.id
            or not answer.keys() & {"result", "error"}
        ):
            raise ValueError("an answer that is not JSON-RPC")
        if "error" in answer:
            raise ValueError(f"it answers with an error, {_message(answer['error'])}")
        return answer["result"]

    def _rest(self, server: _Server, error: Exception) -> None:
        """A failed server is left alone for twice as long as the time before."""
        server.error = _told(error)
        asked = error.seconds if isinstance(error, _Rest) else None
        server.rest_s = min(max(FIRST_REST_S, 2 * server.rest_s), LONGEST_REST_S)
        server.until = self._now() + min(max(server.rest_s, asked or 0.0), LONGEST_REST_S)

    async def close(self) -> None:
        """Hang up."""
        for provider in self._providers.values():
            await provider.close()


def _provider(url: str, timeout_s: float) -> AsyncHTTPProvider:
    made = _Provider(url, timeout=timeout_s, http2=False, max_transport_retries=0)
    limits = httpx2.Limits(max_connections=AT_ONCE)
    made.session = httpx2.AsyncClient(
        timeout=timeout_s, limits=limits, trust_env=False
    )  # no proxies of others
    return made


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def _seconds(text: str | None) -> float | None:
    """Of a Retry-After header; a date counts as nothing said."""
    return float(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 9 else None


def _told(error: Exception) -> str:
    """One clause, without the URL that the library's own texts hold."""
    cause = error.__cause__ if isinstance(error, SolanaRpcException) else error
    if isinstance(cause, TimeoutError | httpx2.TimeoutException):
        return "no answer in time"
    return f"no connection ({type(cause).__name__})" if isinstance(cause, httpx2.HTTPError) else str(error)


def _message(error: Any) -> str:
    message = error.get("message") if isinstance(error, dict) else None
    return "".join(letter for letter in str(message or "unnamed")[:MOST_TOLD] if letter.isprintable())
