"""Handshakes and sessions of one peer, as WireGuard's: without sockets, without a clock (protocol.md §3, §5).

Sessions. What moves them is in this table and nowhere else:

    ours:    (nothing) ──wanted──► HANDSHAKE ──response──────────────────► SENDING ──newer one──► BEFORE (up to three)
                                     │   └─ each REKEY_TIMEOUT again           │                    │
                                     └─ REKEY_ATTEMPT_TIME: given up           │                    ├─ a fourth: erased
    theirs:  initiation ──► NEXT ──first message of it──► SENDING              └── REJECT_AFTER_TIME, farewell: erased
                             └─ UNCONFIRMED_TIME, a newer initiation: erased

    We seal with SENDING, and open what comes for SENDING, BEFORE and NEXT. A session that becomes valid is SENDING at
    once, whoever began it. Three are kept BEFORE because both sides may begin at once: then there are two new ones,
    each side sends on the one that the other began, and so it may have been with the two old ones, on which something
    may still be under way.

Timers. What is in the first column sets one, what is in the last unsets it:

    set by                          after                                       then                    unset by
    ─────────────────────────────   ─────────────────────────────────────────   ─────────────────────   ─────────────
    an initiation was sent          REKEY_TIMEOUT and jitter                    another                 a new session
    the first of them               REKEY_ATTEMPT_TIME                          GaveUp                  a new session
    the fourth; the second, if it   ANSWER_TIME                                 Dead                    anything heard
      is silent; any, if it is dead
    sent on a session that we       REKEY_AFTER_TIME (REKEY_AFTER_MESSAGES:     initiation              a new session
      have begun                      whoever has begun it)
    heard something on such a one   REJECT − KEEPALIVE_TIMEOUT − REKEY_TIMEOUT  initiation              a new session
    first data sent since           KEEPALIVE_TIMEOUT + REKEY_TIMEOUT           Unheard, initiation     anything heard
      anything was heard
    first data heard since          KEEPALIVE_TIMEOUT                           Keepalive               anything sent
      anything was sent
    anything sent                   keepalive_s, if configured                  Keepalive, initiation   anything sent
    a session stands aside          UNCONFIRMED_TIME                            it is erased            Confirmed
    a session                       REJECT_AFTER_TIME                           it is erased
    the last session                3 × REJECT_AFTER_TIME                       Expired                 a new session

The packet path touches little: before a batch `before_send`, after it `sent`, after what came `heard`. All else is
slow, and answers with `Action`s. `deadline` is when `handle_timer` is due; look at it after every call but the first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zignet.noise import (
    AES_IN_HARDWARE,
    NO_PSK,
    HandshakeError,
    InitiationPayload,
    Initiator,
    Keys,
    MacMaker,
    Responder,
    ResponsePayload,
    Static,
    Suite,
)
from zignet.peers.actions import (
    Action,
    Confirmed,
    Dead,
    Ended,
    Established,
    Expired,
    GaveUp,
    Initiate,
    Keepalive,
    Prepared,
    Respond,
    Resumed,
    Superseded,
    Unheard,
)
from zignet.peers.session import Halves, Indices, Session
from zignet.wire import FarewellReason

__all__ = ["Kit", "Tunnel"]

# protocol.md §5; seconds
REKEY_AFTER_TIME = 120.0
REJECT_AFTER_TIME = 180.0
REKEY_ATTEMPT_TIME = 90.0
REKEY_TIMEOUT = 5.0
REKEY_JITTER = 1 / 3
KEEPALIVE_TIMEOUT = 10.0
UNCONFIRMED_TIME = 15.0  # §9
REKEY_AFTER_MESSAGES = 1 << 59
REJECT_AFTER_MESSAGES = (1 << 60) - (1 << 16)  # 2^60, less what one batch may add after it was asked for

INITIATION_INTERVAL_S = (
    0.02  # between two initiations of a peer that are answered (wireguard-go's and the kernel's)
)
ANSWER_TIME = 2.0  # seconds from an initiation to its response, at most
FAIR_ATTEMPTS, SILENT_ATTEMPTS = 4, 2  # in vain, until a peer counts as dead
SILENT_S = 1.0  # since the first data that nothing answered: longer than a round trip
MOST_BEFORE = 3
MOST_DEVICES = 4  # of a peer, whose timestamps are remembered

_NEVER = float("inf")
_LONG_AGO = -_NEVER


@dataclass(slots=True)
class Kit:
    """What all tunnels of a node have in common."""

    static: Static
    key: bytes  # Ed25519, 32 bytes
    device: bytes  # 8 bytes
    aes: bool  # whether this host proposes suite 2
    features: int  # what this host says of itself, 32 bits
    stamp: Callable[[], int]  # the timestamp of an initiation that is made now, see `zignet.noise.Stamps`
    jitter: Callable[[], float]  # seconds, 0 to REKEY_JITTER
    indices: Indices
    halves: Halves

    def begin(self, remote: bytes, psk: bytes, suite: Suite, index: int) -> Initiator:
        """A handshake with `remote`. Raises HandshakeError."""
        payload = InitiationPayload(self.key, self.stamp(), self.device, self.features)
        return Initiator.begin(self.static, remote, psk, suite, index, payload)

    def answer(self, responder: Responder, psk: bytes, index: int) -> bytes:
        """The response up to mac1. Raises HandshakeError."""
        return responder.answer(psk, index, ResponsePayload(self.device, self.features))


class Tunnel:
    """All that binds us and one peer, but for the path. 0.0 is a time that is not set."""

    __slots__ = (
        "_attempt",
        "_began",
        "_consumed_at",
        "_dead_at",
        "_handshake",
        "_initiated_at",
        "_kept_at",
        "_kit",
        "_macs",
        "_rekey_at",
        "_retry_at",
        "_stamps",
        "_unheard_at",
        "_weak",
        "before",
        "dead",
        "deadline",
        "keepalive_s",
        "next",
        "owner",
        "psk",
        "quiet",
        "received_at",
        "remote",
        "renewed_at",
        "sending",
        "sent_at",
        "unanswered_since",
        "unheard_since",
        "used_at",
    )

    def __init__(self, kit: Kit, remote: bytes, psk: bytes = NO_PSK, keepalive_s: float = 0.0) -> None:
        self._kit = kit
        self.remote = remote  # X25519 form
        self.psk = psk
        self.keepalive_s = keepalive_s  # 0.0: only where an answer is owed
        self.owner: Any = None  # whoever made it
        self.sending: Session | None = None
        self.before: tuple[Session, ...] = ()  # newest first
        self.next: Session | None = None
        self.renewed_at = 0.0  # when the last session became valid
        self.quiet = False  # another device has taken over, or we are not wanted: only our user begins again
        self.dead = False  # it does not answer, or has said that it stops; until anything is heard of it
        self.deadline = _NEVER
        self.sent_at = self.received_at = 0.0  # messages of a session
        self.used_at = 0.0  # data was sent
        self.unheard_since = 0.0  # the first data that was sent since anything was heard
        self.unanswered_since = 0.0  # the first data that was heard since anything was sent
        self._handshake: Initiator | None = None
        self._macs: MacMaker | None = None
        self._began = 0.0  # the row of attempts under way; 0.0: none
        self._attempt = 0
        self._initiated_at = _LONG_AGO
        self._retry_at = _NEVER
        self._dead_at = _NEVER  # when the last initiation should have been answered
        self._rekey_at = _NEVER  # when the packet path has found that a new session is due
        self._kept_at = 0.0  # when `keepalive_s` was last seen to
        self._consumed_at = _LONG_AGO
        self._stamps: tuple[Any, ...] = ()  # device, its greatest timestamp, and so on; latest first
        self._unheard_at = 0.0  # when `Unheard` was said last
        self._weak = False  # the peer has said that it has no AES instructions

    def __repr__(self) -> str:
        return f"<Tunnel {self.remote.hex()[:16]}>"

    # --- for the packet path

    def before_send(self, now: float) -> bool:
        """Whether a batch may be sealed with `sending` now. If not, keep the packets and call `wanted`."""
        sending = self.sending
        return (
            sending is not None
            and now < sending.reject_at
            and sending.sealing.counter < REJECT_AFTER_MESSAGES
        )

    def sent(self, now: float, is_data: bool) -> bool:
        """A batch was sealed and sent. True: `deadline` has come nearer."""
        before = self.deadline
        self.sent_at = now
        self.unanswered_since = 0.0
        if is_data:
            self.used_at = now
            if not self.unheard_since:
                self.unheard_since = now
                self.deadline = min(self.deadline, now + KEEPALIVE_TIMEOUT + REKEY_TIMEOUT)
        sending = self.sending
        if sending is not None and (
            now >= sending.fresh_until or sending.sealing.counter >= REKEY_AFTER_MESSAGES
        ):
            self._rekey(now)
            if sending.sealing.counter >= REJECT_AFTER_MESSAGES:
                sending.reject_at = now  # `Link.ready` asks for this alone
        return self.deadline < before

    def heard(self, session: Session, now: float, is_data: bool) -> bool:
        """A batch of authentic messages of a valid session came. True: `deadline` has come nearer."""
        before = self.deadline
        self.received_at = now
        self.unheard_since = 0.0
        if self.dead:
            self.dead = session.opening is None  # with this very message it has said farewell
        if is_data and not self.unanswered_since:
            self.unanswered_since = now
            self.deadline = min(self.deadline, now + KEEPALIVE_TIMEOUT)
        if now >= session.renew_at:
            sending = self.sending
            if sending is None or now >= sending.born + REKEY_AFTER_TIME:
                self._rekey(now)
        return self.deadline < before

    def _rekey(self, now: float) -> None:
        """Let the timer begin a handshake: not in the midst of a batch."""
        if not self._began and not self.quiet:
            self._rekey_at = now
            self.deadline = min(self.deadline, now)

    # --- what else happens

    @property
    def is_idle(self) -> bool:
        """Whether there is no session, and nothing that would make one."""
        return self.sending is None and self.next is None and not self.before and self.deadline == _NEVER

    @property
    def is_trying(self) -> bool:
        """Whether a handshake of ours is under way."""
        return bool(self._began)

    def is_silent(self, now: float) -> bool:
        """Whether what was sent to the peer has not been answered for longer than it should take."""
        return (
            self.dead
            or self._unheard_at > self.received_at
            or (self.unheard_since > 0.0 and now >= self.unheard_since + SILENT_S)
        )

    def start(self, now: float) -> list[Action]:
        """The node has started: whoever is to be kept alive is called."""
        if not self.keepalive_s:
            return []
        self._kept_at = now
        return self._armed(self._begin(now))

    def wanted(self, now: float) -> list[Action]:
        """The user's data waits for a session. Call it as often as you like."""
        self.quiet = False
        return self._armed(self._begin(now))

    def opened(self, session: Session, now: float, is_data: bool) -> list[Action]:
        """An authentic message of `session` came; if it was the first, the session becomes valid."""
        actions: list[Action] = []
        if session is self.next:
            self.next = None
            resumed = [Resumed()] if self.is_silent(now) else []
            actions = [*self._adopt(session, now), Confirmed(session), *resumed]
            self._end_attempts()  # a response that is under way now comes for nothing
        self.heard(session, now, is_data)
        return self._armed(actions)

    def receive_initiation(self, responder: Responder, origin: Any, now: float) -> list[Action]:
        """An initiation of this peer, which the policy admits, came from `origin`.

        Raises HandshakeError if it is not to be answered; nothing has changed then.
        """
        payload = responder.payload
        if payload.timestamp <= self._newest(payload.device):
            raise HandshakeError("the initiation was seen before, or a newer one was")
        if now < self._consumed_at + INITIATION_INTERVAL_S:
            raise HandshakeError("initiations come too fast")
        kit = self._kit
        index = kit.indices.new(self)
        try:
            message = kit.answer(responder, self.psk, index)
        except BaseException:
            kit.indices.free(index)
            raise
        self._remember(payload.device, payload.timestamp)
        self._consumed_at = now
        self._weak = not payload.features & AES_IN_HARDWARE
        self.drop_next()
        indices = (index, responder.sender_index)
        session = self._session(responder.suite, responder.keys, indices, payload.device, origin, False, now)
        self.next = session
        return self._armed([Prepared(session), Respond(self._mac(message, now), origin)])

    def receive_response(self, message: bytes, source: Any, now: float) -> list[Action]:
        """A response with an index of a handshake of ours came. Raises HandshakeError, as above."""
        handshake = self._handshake
        if handshake is None:
            raise HandshakeError("nobody waits for this response any more")
        payload = handshake.finish(message)
        self._weak = not payload.features & AES_IN_HARDWARE
        indices = (handshake.sender_index, handshake.remote_index)
        self._handshake = None  # its index lives on
        self._end_attempts()
        session = self._session(handshake.suite, handshake.keys, indices, payload.device, source, True, now)
        resumed = [Resumed()] if self.is_silent(now) else []
        self.received_at = now
        self.unheard_since = 0.0
        self.dead = False
        return self._armed([*self._adopt(session, now), Established(session), *resumed])

    def receive_cookie(self, message: bytes, now: float) -> bool:
        """A cookie that answers our last message; the next one bears it. False: it does not."""
        return self._macs is not None and self._macs.cookie_received(message, now)

    def receive_farewell(self, session: Session, reason: int, now: float) -> list[Action]:
        """The other side has said on `session` that it is over."""
        if session is self.sending:  # what is older is over too
            self._erase(session, *self.before)
            self.sending, self.before = None, ()
            self.unheard_since = self.unanswered_since = 0.0
            self.dead = True
        elif session in self.before:
            self.before = tuple(one for one in self.before if one is not session)
            self._erase(session)
        else:
            return []
        if reason in (FarewellReason.OTHER_DEVICE, FarewellReason.NOT_ADMITTED):
            self.quiet = True
            self._end_attempts()
        return self._armed([Ended(reason)])

    def drop_next(self) -> None:
        """Forget the session that stands aside: another one needs its place."""
        if self.next is not None:
            self._erase(self.next)
            self.next = None

    def valid(self, now: float) -> list[Session]:
        """The sessions that the other side may still send on, newest first: where to say farewell."""
        sessions = self.before if self.sending is None else (self.sending, *self.before)
        return [one for one in sessions if now < one.reject_at]

    def forget(self) -> None:
        """Erase everything secret. What is left can begin anew."""
        self.drop_next()
        self._erase(*self.before, *(() if self.sending is None else (self.sending,)))
        self.sending, self.before = None, ()
        self._end_attempts()
        self._macs = None
        self.renewed_at = self.unheard_since = self.unanswered_since = 0.0
        self._unheard_at = 0.0
        self.dead = False
        self.deadline = _NEVER

    # --- time

    def handle_timer(self, now: float) -> list[Action]:
        """`deadline` has come, or not; whatever is due is done."""
        actions: list[Action] = []
        self._age(now)
        if now >= self._dead_at:
            self._dead_at = _NEVER
            if self._is_in_vain():
                actions.append(Dead(self.dead))
                self.dead = True
        if self._began:
            actions += self._retry(now)
        elif self._rekey_at <= now:
            actions += self._begin(now)
        if self.unheard_since and now >= self.unheard_since + KEEPALIVE_TIMEOUT + REKEY_TIMEOUT:
            self.unheard_since = 0.0
            self._unheard_at = now
            actions.append(Unheard())
            actions += [] if self.quiet else self._begin(now)
        if self.unanswered_since and now >= self.unanswered_since + KEEPALIVE_TIMEOUT:
            self.unanswered_since = 0.0
            actions += [Keepalive()] if self.before_send(now) else []
        if now >= self._keep_at():
            self._kept_at = now
            actions += [Keepalive()] if self.before_send(now) else self._begin(now)
        if self.renewed_at and now >= self.renewed_at + 3 * REJECT_AFTER_TIME and not self._began:
            self.forget()
            actions.append(Expired())
        return self._armed(actions)

    def _age(self, now: float) -> None:
        """Erase what is too old."""
        if self.next is not None and now >= self.next.born + UNCONFIRMED_TIME:
            self.drop_next()
        if self.sending is not None and now >= self.sending.reject_at:
            self._erase(self.sending)
            self.sending = None
        if self.before and now >= min(one.reject_at for one in self.before):
            self._erase(*(one for one in self.before if now >= one.reject_at))
            self.before = tuple(one for one in self.before if now < one.reject_at)

    def _keep_at(self) -> float:
        """When the configured keepalive is due."""
        if not self.keepalive_s or self.quiet or self._began:
            return _NEVER
        return max(self.sent_at, self._kept_at) + self.keepalive_s

    def _armed(self, actions: list[Action]) -> list[Action]:
        """Set the deadline anew."""
        due = [self._rekey_at, self._keep_at()]
        if self._began:
            due += (self._retry_at, self._dead_at, self._began + REKEY_ATTEMPT_TIME)
        if self.unheard_since:
            due.append(self.unheard_since + KEEPALIVE_TIMEOUT + REKEY_TIMEOUT)
        if self.unanswered_since:
            due.append(self.unanswered_since + KEEPALIVE_TIMEOUT)
        if self.next is not None:
            due.append(self.next.born + UNCONFIRMED_TIME)
        if self.sending is not None:
            due.append(self.sending.reject_at)
        due += [one.reject_at for one in self.before]
        if self.renewed_at and not self._began:
            due.append(self.renewed_at + 3 * REJECT_AFTER_TIME)
        self.deadline = min(due)
        return actions

    # --- handshakes

    def _begin(self, now: float) -> list[Action]:
        """Begin a row of attempts, unless there is one. The first waits if the last initiation was just now."""
        if self._began:
            return []
        self._began = now
        self._attempt = 0
        self._rekey_at = _NEVER
        self._retry_at = self._initiated_at + REKEY_TIMEOUT
        return self._retry(now)

    def _retry(self, now: float) -> list[Action]:
        if now >= self._began + REKEY_ATTEMPT_TIME:
            self._end_attempts()
            self._kept_at = now
            return [GaveUp()]
        return self._initiate(now) if now >= self._retry_at else []

    def _is_in_vain(self) -> bool:
        """Whether the last attempt has been one too many.

        A silent peer has two of them to say that it is there, one of which nothing is known four, a dead one one.
        """
        silent = self._unheard_at > self.received_at
        fair = SILENT_ATTEMPTS if silent else FAIR_ATTEMPTS
        return self.dead or (self._attempt >= fair and (silent or self.received_at <= self._began))

    def _initiate(self, now: float) -> list[Action]:
        self._drop_handshake()
        kit = self._kit
        self._initiated_at = now
        self._dead_at = now + ANSWER_TIME
        self._retry_at = now + REKEY_TIMEOUT + kit.jitter()
        suite = Suite.AES if kit.aes and not self._weak else Suite.CHACHA
        index = kit.indices.new(self)
        try:
            self._handshake = kit.begin(self.remote, self.psk, suite, index)
        except BaseException:
            kit.indices.free(index)
            raise
        attempt = self._attempt
        self._attempt += 1
        return [Initiate(self._mac(self._handshake.message, now), attempt)]

    def _mac(self, message: bytes, now: float) -> bytes:
        if self._macs is None:
            self._macs = MacMaker(self.remote)
        return self._macs.add(message, now)

    def _end_attempts(self) -> None:
        self._drop_handshake()
        self._dead_at = _NEVER
        self._began = 0.0
        self._rekey_at = _NEVER

    def _drop_handshake(self) -> None:
        if self._handshake is not None:
            self._kit.indices.free(self._handshake.sender_index)
            self._handshake = None

    def _newest(self, device: bytes) -> int:
        """The greatest timestamp of a device."""
        return int(self._stamps[self._stamps.index(device) + 1]) if device in self._stamps else -1

    def _remember(self, device: bytes, stamp: int) -> None:
        stamps = self._stamps
        at = stamps.index(device) if device in stamps else len(stamps)
        self._stamps = (device, stamp, *stamps[:at], *stamps[at + 2 :])[: 2 * MOST_DEVICES]

    # --- sessions

    def _session(
        self,
        suite: Suite,
        keys: Keys,
        indices: tuple[int, int],
        device: bytes,
        origin: Any,
        initiator: bool,
        now: float,
    ) -> Session:
        halves = self._kit.halves(suite, keys.send, keys.receive, *indices)
        keys.erase()
        session = Session(self, halves, indices, suite, device, origin, initiator, now)
        session.reject_at = now + REJECT_AFTER_TIME
        if initiator:
            session.fresh_until = now + REKEY_AFTER_TIME
            session.renew_at = now + REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT
        return session

    def _adopt(self, session: Session, now: float) -> list[Action]:
        """A session is valid: send on it from now on."""
        old = self.before if self.sending is None else (self.sending, *self.before)
        others = tuple(one for one in old if one.device != session.device and now < one.reject_at)
        same = [one for one in old if one.device == session.device]
        self._erase(*same[MOST_BEFORE:], *(one for one in old if one not in others and one not in same))
        for one in others:
            self._kit.indices.free(one.local_index)  # it may still be sealed with, once
        self.sending = session
        self.before = tuple(same[:MOST_BEFORE])
        self.renewed_at = now
        self.quiet = False
        self._macs = None  # with a cookie that has cost its worth
        return [Superseded(others, session.device)] if others else []

    def _erase(self, *sessions: Session) -> None:
        for session in sessions:
            self._kit.indices.free(session.local_index)
            session.erase()
