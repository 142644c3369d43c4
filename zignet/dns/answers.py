"""A query's bytes in, its answer's bytes out, or the word that others have to answer it. Pure.

What a browser asks again and again, the addresses of a name that has fake ones, is kept ready: all of the answer but
its id, by all of the query but its id. Everything else is read and made anew:

    not a query, no header      nothing
    opcode, questions, class    NOTIMP, FORMERR, REFUSED
    EDNS (RFC 6891)             our OPT beside the answer; BADVERS for a version that is not 0
    ours                        `Zone`
    a name with fake addresses  A and AAAA with TTL 1; HTTPS and SVCB, whose hints would lead past us: SERVICE, and then
                                `service` makes the answer of what others say; or NODATA
    all others                  FORWARD, or REFUSED
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import NamedTuple

from dnslib import RR, DNSBuffer

from zignet.dns.fakes import COARSE_S, Fakes
from zignet.dns.service import services_in
from zignet.dns.wire import (
    AAAA,
    ANY,
    EDNS_SIZE,
    FORMERR,
    HEADER,
    HTTPS,
    IN,
    NOERROR,
    NOTIMP,
    NXDOMAIN,
    OPT,
    REFUSED,
    SERVFAIL,
    SVCB,
    A,
    BadMessage,
    Question,
    question_of,
    records_of,
)
from zignet.dns.zone import Verdict, Zone, no_data

__all__ = ["FORWARD", "SERVICE", "Answers", "Forward", "failure"]

FAKE_TTL_S = 1
MOST_READY = 16_384  # answers
MOST_KEPT = 300  # bytes of a query with one
SMALLEST, MOST_UDP = 512, EDNS_SIZE  # bytes of an answer in a datagram: without EDNS, and at most
OPCODE, RD, CD, AD = 0x78, 0x01, 0x10, 0x20  # bits of the two bytes of flags
QR, TC, AA, RA = 0x80, 0x02, 0x04, 0x80
TRANSFERS = (251, 252)  # IXFR, AXFR
BADVERS = 16
OUR_OPT = b"\0\0\x29" + EDNS_SIZE.to_bytes(2, "big")
OPT_SIZE = 11  # bytes of it, without options
HEADER_OF_QUERY = bytes((0, 0, RD, 0, 0, 1, 0, 0, 0, 0, 0, 0))
TO_QUESTION = b"\xc0\x0c"  # a compression pointer


class Forward(Enum):
    """Somebody else's to answer."""

    FORWARD = auto()  # as it is, and the answer as it comes
    SERVICE = auto()  # `Answers.service_query` is asked, `Answers.service` answered


FORWARD, SERVICE = Forward


class Edns(NamedTuple):
    """The OPT record of a query (RFC 6891 §6.1)."""

    size: int
    version: int
    wants_dnssec: bool
    plain: bool  # without options


def failure(query: bytes, code: int = SERVFAIL) -> bytes:
    """A query, with a whole header, whose answer did not come."""
    try:
        end = question_of(query).end
    except BadMessage:
        return _header(query, code, 0, 0, 0, 0)
    return _header(query, code, 1, 0, 0, 0) + query[HEADER:end]


class Answers:
    """What is answered here. `is_fake` says which names get fake addresses: lower case, no trailing dot."""

    def __init__(
        self,
        zone: Zone,
        fakes: Fakes,
        is_fake: Callable[[str], bool],
        *,
        forwards: bool = True,
        ipv6: bool = True,  # whether flows to fake IPv6 addresses come in
    ) -> None:
        self._zone = zone
        self._ipv6 = ipv6
        self._fakes = fakes
        self._is_fake = is_fake
        self._forwards = forwards
        self._ready: dict[bytes, tuple[bytes, float]] = {}
        self.counts = {"fake": 0, "zone": 0, "forwarded": 0, "refused": 0, "malformed": 0, "pool full": 0}

    def rules_changed(self, is_fake: Callable[[str], bool], *, forwards: bool = True) -> None:
        """From now on other names get fake addresses; those that were given stay."""
        self._is_fake = is_fake
        self._forwards = forwards
        self._ready.clear()

    def flush(self) -> int:
        """Forget what is ready; how many answers that were."""
        count = len(self._ready)
        self._ready.clear()
        return count

    def answer(self, query: bytes, now: float, tcp: bool = False) -> bytes | Forward | None:
        """The answer, FORWARD, or None where none is due. `now`: monotonic seconds."""
        ready = self._ready.get(query[2:])
        if ready is not None and now < ready[1]:
            self.counts["fake"] += 1
            return query[:2] + ready[0]
        if len(query) < HEADER or query[2] & QR:
            self.counts["malformed"] += 1
            return None
        if query[2] & OPCODE:
            return self._refused(query, NOTIMP)
        try:
            question = question_of(query)
            edns = _edns_of(query, question.end)
        except BadMessage:
            self.counts["malformed"] += 1
            return _header(query, FORMERR, 0, 0, 0, 0)
        if edns is not None and edns.version != 0:
            return self._made(query, question, edns, Verdict(BADVERS), tcp)
        if question.family != IN or question.kind in TRANSFERS or question.kind == OPT:
            return self._made(query, question, edns, Verdict(REFUSED), tcp)
        verdict = self._zone.answer(question.name, question.kind)
        if verdict is not None:
            self.counts["zone"] += 1
            return self._made(query, question, edns, verdict, tcp)
        if question.kind in (A, AAAA, ANY, HTTPS, SVCB) and self._is_fake(question.name):
            if question.kind in (HTTPS, SVCB) and self._forwards:
                self.counts["forwarded"] += 1
                return SERVICE
            return self._fake(query, question, edns, now, tcp)
        if self._forwards:
            self.counts["forwarded"] += 1
            return FORWARD
        return self._made(query, question, edns, Verdict(REFUSED), tcp)

    # --- fake addresses

    def _fake(self, query: bytes, question: Question, edns: Edns | None, now: float, tcp: bool) -> bytes:
        if question.kind not in (A, AAAA, ANY) or (question.kind == AAAA and not self._ipv6):
            self.counts["fake"] += 1
            return self._made(query, question, edns, no_data(question.name, FAKE_TTL_S), tcp)
        number = self._fakes.number_of(question.name)
        if number is None:
            self.counts["pool full"] += 1
            return self._made(query, question, edns, Verdict(SERVFAIL), tcp)
        self.counts["fake"] += 1
        kind, address = A, self._fakes.address4(number)
        if question.kind == AAAA:
            kind, address = AAAA, self._fakes.address6(number)
        record = _record(kind, FAKE_TTL_S, address)
        answer = self._assembled(query, question, edns, NOERROR, 1, 0, record)
        if len(query) <= MOST_KEPT and (edns is None or edns.plain):  # an option may be a new one each time
            if len(self._ready) >= MOST_READY:
                self._ready.clear()
            # No longer than the map may not know of the use: a mapping that is in use is never recycled.
            self._ready[query[2:]] = (answer[2:], now + COARSE_S)
        return answer

    # --- what others say of services at a name with fake addresses

    def service_query(self, query: bytes) -> bytes:
        """What to ask others, when `answer` has said SERVICE: without EDNS, since no signature would hold."""
        return HEADER_OF_QUERY + query[HEADER : question_of(query).end]

    def service(self, query: bytes, answer: bytes | None, tcp: bool = False) -> bytes:
        """The answer to `query`, from what others have answered; NODATA where that is nothing, or of no use."""
        question = question_of(query)
        edns = _edns_of(query, question.end)
        found = services_in(answer, self._is_fake) if answer is not None else []
        if not found:
            return self._made(query, question, edns, no_data(question.name, FAKE_TTL_S), tcp)
        records = b"".join(_record(question.kind, each.ttl, each.data) for each in found)
        made = self._assembled(query, question, edns, NOERROR, len(found), 0, records, ours=False)
        return self._fitting(made, edns, tcp)

    # --- messages

    def _refused(self, query: bytes, code: int) -> bytes:
        self.counts["refused"] += 1
        return failure(query, code)

    def _made(
        self, query: bytes, question: Question, edns: Edns | None, verdict: Verdict, tcp: bool
    ) -> bytes:
        if verdict.code in (REFUSED, BADVERS):
            self.counts["refused"] += 1
        records = _packed((*verdict.answers, *verdict.authority), query[: question.end])
        counts = len(verdict.answers), len(verdict.authority)
        answer = self._assembled(query, question, edns, verdict.code, *counts, records)
        return self._fitting(answer, edns, tcp)

    def _fitting(self, answer: bytes, edns: Edns | None, tcp: bool) -> bytes:
        """The answer, or what says that it is too large for a datagram."""
        most = SMALLEST if edns is None else min(MOST_UDP, edns.size)
        if tcp or len(answer) <= most:
            return answer
        end = question_of(answer).end
        opt = answer[-OPT_SIZE:] if edns is not None else b""
        counts = b"\0\1\0\0\0\0" + answer[10:HEADER]
        return answer[:2] + bytes((answer[2] | TC, answer[3])) + counts + answer[HEADER:end] + opt

    def _assembled(
        self,
        query: bytes,
        question: Question,
        edns: Edns | None,
        code: int,
        answers: int,
        authority: int,
        records: bytes,
        *,
        ours: bool = True,
    ) -> bytes:
        """The question as it was asked, its case included, and what follows it."""
        opt = b""
        if edns is not None:
            flags = b"\x80\0" if edns.wants_dnssec else b"\0\0"
            opt = OUR_OPT + bytes((code >> 4, 0)) + flags + b"\0\0"
        head = _header(query, code & 0x0F, 1, answers, authority, 1 if opt else 0, ours)
        return head + query[HEADER : question.end] + records + opt


def _record(kind: int, ttl: int, data: bytes) -> bytes:
    """A record of the name that was asked."""
    head = TO_QUESTION + kind.to_bytes(2, "big") + b"\0\1" + ttl.to_bytes(4, "big")
    return head + len(data).to_bytes(2, "big") + data


def _header(
    query: bytes,
    code: int,
    questions: int,
    answers: int,
    authority: int,
    additional: int,
    ours: bool = True,
) -> bytes:
    flags = bytes(
        (
            QR | query[2] & (OPCODE | RD) | (AA if ours and code in (NOERROR, NXDOMAIN) else 0),
            RA | query[3] & CD | code,
        )
    )
    counts = (questions, answers, authority, additional)
    return query[:2] + flags + b"".join(count.to_bytes(2, "big") for count in counts)


def _packed(records: Iterable[RR], before: bytes) -> bytes:
    """Records as they stand behind the question; dnslib's compression counts from the message's start."""
    buffer = DNSBuffer(before)
    buffer.offset = len(before)
    for record in records:
        record.pack(buffer)
    return bytes(buffer.data[len(before) :])


def _edns_of(query: bytes, end: int) -> Edns | None:
    """The OPT record, if there is one. Raises `BadMessage` where there are more, or records that no query has."""
    if query[6:8] != b"\0\0":
        raise BadMessage("answers in a query")
    if query[8:12] == b"\0\0\0\0":
        return None
    found = None
    for record in records_of(query, end):
        if record.kind == OPT:
            if found is not None or record.name or record.section != 2:
                raise BadMessage("more than one OPT, or one in a wrong place")
            ttl = record.ttl
            found = Edns(
                max(SMALLEST, record.family), ttl >> 16 & 0xFF, bool(ttl & 0x8000), record.length == 0
            )
    return found
