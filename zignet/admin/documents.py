"""The documents of the API that the control socket does not have. Times in seconds, sizes in bytes."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from zignet.control.messages import ExitStatus, Flow, Peer, Reach, Rule, SourceStatus

__all__ = [
    "Contact",
    "ContactChange",
    "ContactList",
    "Error",
    "ExitList",
    "FlowPage",
    "Flushed",
    "Health",
    "NewContact",
    "PeerPage",
    "PolicyCheck",
    "PolicyStatus",
    "PolicyStep",
    "Reloaded",
    "RulePage",
    "Whoami",
]


class Error(TypedDict):
    """Every answer whose status is 400 or more."""

    error: str  # a sentence for people


class Whoami(TypedDict):
    """This node."""

    key: str | None  # 56 characters; None: a node without peers uses no key
    base58: str | None  # the same key as Solana writes it
    hex: str | None
    host: str | None  # its name for others: KEY.zignet
    address: str  # on this host
    address6: str | None
    version: str


class Health(TypedDict):
    """The packet process answers."""

    state: str


class PeerPage(TypedDict):
    """Some of the peers."""

    peers: list[Peer]
    next: int | None  # the `offset` of the next page; None: there are no more


class FlowPage(TypedDict):
    """Some of the flows, newest first."""

    flows: list[Flow]
    next: int | None  # the `before` of the next page


class RulePage(TypedDict):
    """Some of the rules, in their order."""

    rules: list[Rule]
    next: int | None  # the `offset` of the next page


class ExitList(TypedDict):
    """All exits."""

    exits: list[ExitStatus]


class Contact(TypedDict):
    """Somebody we know."""

    name: str
    key: str
    note: str
    tags: list[str]
    address: str | None  # on this host; None: it has none yet
    address6: str | None  # None: this node has no peers
    online: bool
    last_seen: float | None  # seconds since 1970


class NewContact(TypedDict):
    """Somebody to know."""

    name: NotRequired[str]  # not needed with a link that has one
    key: str  # a name, base58, hexadecimal, or a link `zignet:KEY?name=…`
    note: NotRequired[str]
    tags: NotRequired[list[str]]


class ContactChange(TypedDict):
    """What is to be another than before."""

    name: NotRequired[str]
    note: NotRequired[str]
    tags: NotRequired[list[str]]


class ContactList(TypedDict):
    """Everybody we know, or a page of them."""

    contacts: list[Contact]
    next: int | None  # the `offset` of the next page


class PolicyStep(TypedDict):
    """A policy that was asked about a key."""

    policy: int  # its index in inbound.policies
    source: str
    said: str  # match | no match | failed | pending
    reason: str


class PolicyCheck(TypedDict):
    """Whether a key may come in, and why."""

    key: str
    allowed: bool
    reason: str  # a sentence
    valid_s: float | None  # for how long that holds; None: until something changes
    provisional: bool  # a source has not answered yet
    steps: list[PolicyStep]  # none where the lists of the configuration decide
    service: Reach | None  # None: it was not asked about


class PolicyStatus(TypedDict):
    """The inbound policies."""

    sources: list[SourceStatus]
    decisions: list[PolicyCheck]  # the latest of those about whoever knocked, newest first


class Flushed(TypedDict):
    """The name server's cache is empty."""

    flushed: int  # answers that were in it


class Reloaded(TypedDict):
    """The configuration was read again."""

    reloaded: bool
