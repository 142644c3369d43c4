"""What each endpoint answers. Knows no HTTP: parameters that were checked come in, documents go out.

Raises `Refused`, or `ControlError` where the packet process does not answer or declines.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, cast

from zignet.admin.contacts import Book
from zignet.admin.documents import (
    Contact,
    ContactChange,
    ContactList,
    ExitList,
    FlowPage,
    Flushed,
    Health,
    NewContact,
    PeerPage,
    PolicyCheck,
    PolicyStatus,
    Reloaded,
    RulePage,
    Whoami,
)
from zignet.admin.endpoint import Address, Choice, Flag, Key, Number, Parameter, Text, endpoint
from zignet.admin.events import Events
from zignet.admin.fresh import Allowance, Asked, Fresh, Share
from zignet.admin.metrics import MEDIA_TYPE, exposition
from zignet.admin.policy import Judge, Policy
from zignet.admin.refused import Refused
from zignet.control.messages import (
    DnsStatus,
    DnsWhy,
    Explanation,
    Identity,
    Peer,
    Ping,
    Pulse,
    Status,
)
from zignet.identity import PublicKey
from zignet.policy.judge import Verdict

__all__ = ["Api"]

MOST = 1_000  # of a page
PAGES, SINGLES = 16, 1_024  # answers kept for a moment
PING_S = 20.0  # a handshake comes first, and the node is patient
RELOAD_S = 30.0  # a long list of peers takes seconds

OFFSET = Parameter("offset", Number(0, 1 << 31), "how many to leave out; the `next` of the page before")
LIMIT = Parameter("limit", Number(1, MOST), f"how many at most, up to {MOST:,}")
PUBKEY = Parameter("pubkey", Key(), "a public key: name, base58 or hexadecimal", required=True)
WHO = Parameter("who", Text(), "a contact's name or key", required=True)
PROTO = Parameter("proto", Choice(("tcp", "udp", "icmp")), "the protocol")
PORT = Parameter("port", Number(1, 65535), "the port")


class Api:
    """The endpoints."""

    def __init__(
        self,
        node: Asked,
        judge: Callable[[], Judge | None] = lambda: None,
        contacts: Path | None = None,
        named: Callable[[str], None] = lambda name: None,
    ) -> None:
        """`contacts`: the directory of their file; `named` hears the node's own name once it is known."""
        self._node = node
        self._pages = Fresh(node, PAGES, Share())  # of tables that may be large
        self._singles = Fresh(node, SINGLES, Allowance())
        self._book = None if contacts is None else Book(contacts, self._pages)
        self._policy = Policy(self._singles.one, judge)
        self._named = named
        self._whoami: bytes | None = None
        self.events = Events(node)

    # --- who is who

    @endpoint("GET", "/api/whoami", Whoami)
    async def whoami(self) -> bytes:
        """This node's key and addresses."""
        if self._whoami is None:  # it changes with a restart, and this process ends with the node
            status = await self._status()
            identity = status["identity"]
            key = None if identity is None else PublicKey.from_text(identity["key"])
            document = Whoami(
                key=None if key is None else key.name,
                base58=None if key is None else key.base58,
                hex=None if key is None else key.hex,
                host=None if key is None else f"{key.name}.zignet",
                address=status["interface"]["address"],
                address6=status["interface"]["address6"],
                version=status["version"],
            )
            if document["host"] is not None:
                self._named(document["host"])
            self._whoami = json.dumps(document, separators=(",", ":")).encode()
        return self._whoami

    @endpoint(
        "GET",
        "/api/identity",
        Identity,
        Parameter("ip", Address(), "a ZigNet address of this host"),
        Parameter("pubkey", Key(), PUBKEY.text),
        declined=404,
    )
    async def identity(self, ip: str | None = None, pubkey: PublicKey | None = None) -> Identity:
        """Whose address or key something is, and whether they are online."""
        if (ip is None) == (pubkey is None):
            raise Refused(400, "either ip or pubkey is needed")
        of = ip if pubkey is None else pubkey.name
        return cast(Identity, await self._singles.one({"do": "identity", "of": of}, "identity"))

    @endpoint("GET", "/api/contacts", ContactList, OFFSET, LIMIT, declined=404)
    async def contacts(self, offset: int = 0, limit: int = MOST) -> ContactList:
        """The contacts, and whether they are online."""
        found = await self._contacts_or_none().page(offset, limit + 1)
        return ContactList(contacts=found[:limit], next=_next(offset, limit, len(found)))

    @endpoint("POST", "/api/contacts", Contact, body=NewContact)
    async def add_contact(self, body: NewContact) -> Contact:
        """Know somebody by a name."""
        return await self._contacts_or_none().add(body)

    @endpoint("PATCH", "/api/contacts/{who}", Contact, WHO, body=ContactChange, declined=404)
    async def change_contact(self, who: str, body: ContactChange) -> Contact:
        """Another name, note or tags for a contact."""
        return await self._contacts_or_none().change(who, body)

    @endpoint("DELETE", "/api/contacts/{who}", Contact, WHO, declined=404)
    async def remove_contact(self, who: str) -> Contact:
        """Forget a contact; what it was."""
        return await self._contacts_or_none().remove(who)

    @endpoint(
        "GET",
        "/api/peers",
        PeerPage,
        Parameter(
            "which",
            Choice(("connected", "configured", "all")),
            "`connected` (the default): with a session; `configured`: those too that the configuration names; "
            "`all`: also those that were ever here",
        ),
        OFFSET,
        LIMIT,
        declined=404,
    )
    async def peers(self, which: str = "connected", offset: int = 0, limit: int = MOST) -> PeerPage:
        """The peers."""
        request = {"do": "peers", "offset": offset, "limit": limit + 1}
        if which != "configured":
            request[which] = True
        peers = await self._peers(request)
        return PeerPage(peers=peers[:limit], next=_next(offset, limit, len(peers)))

    @endpoint(
        "POST",
        "/api/peers/{key}/ping",
        Ping,
        Parameter("key", Text(), "a peer's name, key or local address", required=True),
        declined=404,
    )
    async def ping(self, key: str) -> Ping:
        """One sealed ping of a peer."""
        return cast(Ping, await self._ask_one({"do": "ping", "peer": key}, "ping", PING_S))

    # --- what it does

    @endpoint("GET", "/api/status", Status)
    async def status(self) -> Status:
        """The node as it is now."""
        return await self._status()

    @endpoint(
        "GET",
        "/api/flows",
        FlowPage,
        Parameter("ended", Flag(), "whether those that ended recently are wanted too"),
        Parameter("before", Number(0, 1 << 53), "only flows with a lower id: the `next` of the page before"),
        LIMIT,
    )
    async def flows(self, ended: bool = False, before: int | None = None, limit: int = MOST) -> FlowPage:
        """Open flows, newest first."""
        request: dict[str, Any] = {"do": "flows", "ended": ended, "limit": limit + 1}
        if before is not None:
            request["before"] = before
        lines = await self._pages.ask(request)
        flows = [flow for line in lines for flow in line["flows"]]
        return FlowPage(flows=flows[:limit], next=flows[limit - 1]["id"] if len(flows) > limit else None)

    @endpoint("GET", "/api/routes", RulePage, OFFSET, LIMIT)
    async def routes(self, offset: int = 0, limit: int = MOST) -> RulePage:
        """The rules in force; the first that matches decides."""
        lines = await self._pages.ask({"do": "rules", "offset": offset, "limit": limit + 1})
        rules = [rule for line in lines for rule in line["rules"]]
        return RulePage(rules=rules[:limit], next=_next(offset, limit, len(rules)))

    @endpoint(
        "GET",
        "/api/routes/explain",
        Explanation,
        Parameter("name", Text(), "the name that would be asked for"),
        Parameter("address", Address(), "the address that it has"),
        PORT,
        Parameter("proto", Choice(("tcp", "udp")), PROTO.text),
    )
    async def explain(
        self, name: str | None = None, address: str | None = None, port: int = 443, proto: str = "tcp"
    ) -> Explanation:
        """How a flow would leave, step by step, by the rules in force."""
        if name is None and address is None:
            raise Refused(400, "name or address is needed")
        request = {"do": "explain", "name": name, "address": address, "port": port, "protocol": proto}
        return cast(Explanation, await self._pages.one(request, "explanation"))  # looks for flows alike

    @endpoint("GET", "/api/exits", ExitList)
    async def exits(self) -> ExitList:
        """The exits, and what went through each."""
        return ExitList(exits=(await self._status())["exits"])

    @endpoint("GET", "/api/dns", DnsStatus, declined=404)
    async def dns(self) -> DnsStatus:
        """The name server, and how this host's names come to it."""
        return cast(DnsStatus, await self._singles.one({"do": "dns"}, "dns"))

    @endpoint(
        "GET",
        "/api/dns/why",
        DnsWhy,
        Parameter("name", Text(), "the name", required=True),
        Parameter("type", Text(16), "the record type, A unless given"),
        declined=404,
    )
    async def dns_why(self, name: str, type: str = "A") -> DnsWhy:  # noqa: A002
        """Where the answer for a name comes from."""
        return cast(DnsWhy, await self._singles.one({"do": "dns-why", "name": name, "type": type}, "why"))

    @endpoint("POST", "/api/dns/flush", Flushed, declined=404)
    async def dns_flush(self) -> Flushed:
        """Forget the answers of other name servers; fake addresses stay."""
        return Flushed(flushed=await self._ask_one({"do": "dns-flush"}, "flushed"))

    @endpoint("POST", "/api/reload", Reloaded, declined=409)
    async def reload(self) -> Reloaded:
        """Read the configuration again; where it is wrong, the old one stays in force."""
        return Reloaded(reloaded=await self._ask_one({"do": "reload"}, "reloaded", RELOAD_S))

    # --- who may come in

    @endpoint("GET", "/api/policy", PolicyStatus)
    async def policy(self) -> PolicyStatus:
        """The sources of the inbound policy, and the latest decisions."""
        return self._policy.status()

    @endpoint("GET", "/api/policy/check", PolicyCheck, PUBKEY, PROTO, PORT, declined=404)
    async def policy_check(
        self, pubkey: PublicKey, proto: str | None = None, port: int | None = None
    ) -> PolicyCheck:
        """Whether a key may come in, and reach a service, and why."""
        if port is not None and proto not in ("tcp", "udp"):
            raise Refused(400, "a port needs proto=tcp or proto=udp")
        return await self._policy.check(pubkey, proto, port)

    def decided(self, key: PublicKey, verdict: Verdict) -> None:
        """The judge has decided about somebody who knocked: it is kept, and told to whoever listens."""
        self.events.tell("decision", self._policy.decided(key, verdict))

    # --- for monitors

    @endpoint("GET", "/healthz", Health)
    async def healthz(self) -> Health:
        """Whether the packet process answers."""
        return Health(state=cast(Pulse, await self._singles.one({"do": "pulse"}, "pulse"))["state"])

    @endpoint("GET", "/metrics", MEDIA_TYPE)
    async def metrics(self) -> bytes:
        """Counters for Prometheus."""
        return exposition(await self._status())

    @endpoint("GET", "/api/events", "text/event-stream")
    def event_stream(self) -> AsyncGenerator[bytes, None]:
        """What happens, as server-sent events: peer, flows, reload, decision, node."""
        return self.events.stream()

    def _contacts_or_none(self) -> Book:
        if self._book is None:
            raise Refused(404, "this node keeps no contacts")
        return self._book

    # --- the packet process

    async def _status(self) -> Status:
        return cast(Status, await self._singles.one({"do": "status"}, "status"))

    async def _peers(self, request: dict[str, Any]) -> list[Peer]:
        return [peer for line in await self._pages.ask(request) for peer in line["peers"]]

    async def _ask_one(self, request: dict[str, Any], key: str, timeout_s: float = 10.0) -> Any:
        """What is asked for each time."""
        for part in await self._node.ask(request, timeout_s):
            if key in part:
                return part[key]
        raise LookupError(f"the packet process answers {request['do']} without {key}")


def _next(offset: int, limit: int, found: int) -> int | None:
    """Where the next page begins, if one more than the limit was asked for and found."""
    return offset + limit if found > limit else None
