"""How the command line talks to the running node: lines of JSON over a unix socket in the state directory.

{"do": "status"}            one request
{"status": {…}}             its answer, in as many lines as it needs
{"end": true}               … and the end of it; or {"error": "text for the person"} instead

messages   the shapes of requests and answers
session    the node's side of one connection, without sockets: bounded, and sent piece by piece
handler    which question goes to which method of the node
place      the socket's path, and the lock that keeps a second node out
client     the command line's side, blocking
"""

from zignet.control.client import Broken, Client, ControlError, Declined, NotPermitted, NotRunning
from zignet.control.handler import Answers, DnsReport, RequestError, handler_for
from zignet.control.messages import (
    Admission,
    ConfigStatus,
    ControlStatus,
    Decided,
    DnsStatus,
    DnsWhy,
    ExitStatus,
    Explanation,
    Flow,
    FlowCounts,
    Identity,
    IdentityStatus,
    InterfaceStatus,
    Named,
    Peer,
    PeerCounts,
    Ping,
    Pulse,
    Question,
    Reach,
    Rule,
    Status,
    Totals,
)
from zignet.control.place import AlreadyRunning, Place
from zignet.control.session import ControlSession

__all__ = [
    "Admission",
    "AlreadyRunning",
    "Answers",
    "Broken",
    "Client",
    "ConfigStatus",
    "ControlError",
    "ControlSession",
    "ControlStatus",
    "Decided",
    "Declined",
    "DnsReport",
    "DnsStatus",
    "DnsWhy",
    "ExitStatus",
    "Explanation",
    "Flow",
    "FlowCounts",
    "Identity",
    "IdentityStatus",
    "InterfaceStatus",
    "Named",
    "NotPermitted",
    "NotRunning",
    "Peer",
    "PeerCounts",
    "Ping",
    "Place",
    "Pulse",
    "Question",
    "Reach",
    "RequestError",
    "Rule",
    "Status",
    "Totals",
    "handler_for",
]
