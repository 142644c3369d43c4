"""Where a peer is reached, and how large a datagram gets there (protocol.md §8).

The path in use:

    what is known                                       what comes of it
    ───────────────────────────────────────────────     ─────────────────────────────────────────────────────
    our initiation was answered          `established`  where it went to becomes the path
    a session of theirs is valid         `confirmed`    where its handshake came from becomes the path, if the
                                                        message that proved it came from there too
    a data message from elsewhere        `heard`        a challenge there; nothing else changes
    the answer, from there               `answered`     that becomes the path
    sent much and heard nothing          `silent`       the path stays; its MTU is no longer believed

The path MTU, for each path anew. Sizes are those of datagrams, the UDP payload:

    SEARCH   from the ceiling down the ladder. A size gets three challenges, a second apart; one answer puts it in
             force and ends the search. When all three are lost, and the peer is known to be there, the next size
    REST     a minute after, if the path was used: CONFIRM. Ten minutes after the last search: SEARCH
    CONFIRM  challenges of the size in force. All three lost: back to the first size, and SEARCH below it
    STOP     after `silent`, until the next handshake: nothing is known, so nothing is concluded

No address is believed because of what was said from it, so all that an address gets before it has answered is
a challenge, and no more than three times the bytes that came from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zignet.wire import DATA_HEADER, TAG, Challenge

__all__ = ["FIRST_MTU", "Action", "Paths", "Probe", "Switched"]

Address = Any  # hashable; only compared

FIRST_MTU = 1_232  # bytes: IPv6's least packet (RFC 8200 §5) without its header and UDP's
SEALED = DATA_HEADER + TAG  # bytes that a data message adds to its frame
CHALLENGE = SEALED + Challenge.SIZE  # bytes of a challenge's datagram without padding
RESPONSE = 104  # bytes

CHALLENGE_INTERVAL_S = 0.5  # to addresses that are not the path
CHALLENGE_LIFE_S = 10.0  # an answer that is later counts no more
MOST_STRANGE = 4  # addresses that bytes are counted for
MOST_PROBES = 16  # challenges that an answer is waited for
AMPLIFICATION = 3  # bytes to a strange address for each that came from it

PROBE_INTERVAL_S = 1.0
TRIES = 3
PATIENCE_S = 32.0  # between two questions whether the peer is there at all, at most
SEARCH_INTERVAL_S = 600.0
CONFIRM_INTERVAL_S = 60.0  # RFC 8899 §5.1.1: the confirmation timer

# What links carry, less UDP and IPv4 (IPv6): 9000; 4096; 1500; 1460; 1448; 1420; 1400; 1360; 1308; 1280; and two for
# interfaces that IPv6 could not use.
LADDER = (
    8_972,
    8_952,
    4_048,
    1_472,
    1_452,
    1_432,
    1_420,
    1_392,
    1_372,
    1_332,
    1_280,
    1_252,
    1_232,
    1_000,
    548,
)

_NEVER = float("inf")
_LONG_AGO = -_NEVER


@dataclass(frozen=True, slots=True)
class Probe:
    """Send a challenge to this address, whatever the path in use."""

    address: Address
    token: bytes  # 16
    number: int  # 32 bits, of the path
    size: int  # bytes of the whole datagram, to be reached by padding; 0: none


@dataclass(frozen=True, slots=True)
class Switched:
    """The path in use is another one."""

    address: Address
    before: Address | None


Action = Probe | Switched


@dataclass(slots=True)
class _Waiting:
    """A challenge that was not answered yet."""

    address: Address
    number: int
    size: int
    sent: float


class Paths:
    """The paths of one peer. `deadline` is when `handle_timer` is due; look at it, and `mtu`, after every call."""

    __slots__ = (
        "_began",
        "_ceiling",
        "_challenged",
        "_confirmed",
        "_most",
        "_random",
        "_search_at",
        "_strange",
        "_tried",
        "_tries",
        "_trying",
        "_waiting",
        "address",
        "deadline",
        "endpoints",
        "mtu",
        "number",
    )

    def __init__(
        self,
        endpoints: tuple[Address, ...],
        ceiling: Callable[[Address], int],  # bytes of the largest datagram that the own interface sends there
        random: Callable[[int], bytes],
    ) -> None:
        self.endpoints = endpoints  # where the configuration says that the peer is; may be set anew
        self.address: Address | None = None  # of the path in use; it has proved itself
        self.mtu = FIRST_MTU
        self.number = 0
        self.deadline = _NEVER
        self._ceiling = ceiling
        self._random = random
        self._tried: Address | None = None  # where the last initiation went
        self._waiting: dict[bytes, _Waiting] | None = None  # by token, oldest first
        self._strange: dict[Address, list[int]] | None = None  # bytes from there, bytes to there
        self._challenged = _LONG_AGO
        self._trying = 0  # the size that is being tried; 0: none
        self._tries = 0
        self._began = 0.0  # when it was first tried
        self._most = 0  # sizes above were refused, or lost
        self._confirmed = 0.0
        self._search_at = _NEVER

    @property
    def room(self) -> int:
        """Bytes of a frame that one datagram carries."""
        return self.mtu - SEALED

    # --- the path in use

    def for_handshake(self, attempt: int) -> Address | None:
        """Where the initiation of this attempt (0, 1, …) goes: to the path and the endpoints in turn. None: nowhere."""
        places = [*(() if self.address is None else (self.address,))]
        places += [one for one in self.endpoints if one != self.address]
        self._tried = places[attempt % len(places)] if places else None
        return self._tried

    def established(self, source: Address, now: float) -> list[Action]:
        """The response to our last initiation has come, from `source`."""
        actions = self._proved(source if self._tried is None else self._tried, now)
        if source != self.address:
            actions += self.heard(source, RESPONSE, now)
        return actions

    def confirmed(self, origin: Address, source: Address, now: float) -> list[Action]:
        """A session that began with an initiation from `origin` was proved by a message from `source`.

        If they differ it is for the caller to tell `heard` of `source`.
        """
        if source == origin or self.address is None:  # whoever made the message has got our response
            return self._proved(origin, now)
        return self._resumed(now)

    def heard(self, source: Address, size: int, now: float) -> list[Action]:
        """An authentic datagram of `size` bytes came from an address that is not the path in use."""
        counts = self._counts(source)
        counts[0] += size
        if now < self._challenged + CHALLENGE_INTERVAL_S or counts[1] + CHALLENGE > AMPLIFICATION * counts[0]:
            return []
        counts[1] += CHALLENGE
        self._challenged = now
        return [self._challenge(source, self.number, 0, now)]

    def answered(self, token: bytes, number: int, size: int, source: Address, now: float) -> list[Action]:
        """An answer came, from `source`. One that nobody waits for is ignored."""
        waiting = None if self._waiting is None else self._waiting.get(token)
        if waiting is None or waiting.number != number or waiting.address != source:
            return []
        assert self._waiting is not None
        del self._waiting[token]
        if not self._waiting:
            self._waiting = None  # there may be many peers, and most of them are not asked anything
        if now >= waiting.sent + CHALLENGE_LIFE_S:
            return []
        if source != self.address:
            return self._switch(source, now)
        return self._carried(min(size, waiting.size), now)

    def silent(self) -> None:
        """Nothing has been heard for too long, or there is no session: conclude nothing until `established`."""
        self.mtu = min(self.mtu, FIRST_MTU)
        self._trying = 0
        self._search_at = self.deadline = _NEVER
        self._waiting = None

    def _proved(self, address: Address, now: float) -> list[Action]:
        return self._resumed(now) if address == self.address else self._switch(address, now)

    def _resumed(self, now: float) -> list[Action]:
        """Search again if `silent` has stopped it."""
        return self._search(now) if self.deadline == _NEVER and self.address is not None else []

    def _switch(self, address: Address, now: float) -> list[Action]:
        before, self.address = self.address, address
        self.number = (self.number + 1) & 0xFFFFFFFF
        self._waiting = self._strange = None  # an answer from yet another address is older than this
        self.mtu = FIRST_MTU
        return [Switched(address, before), *self._search(now)]

    def _counts(self, source: Address) -> list[int]:
        if self._strange is None:
            self._strange = {}
        counts = self._strange.pop(source, None) or [0, 0]
        self._strange[source] = counts
        if len(self._strange) > MOST_STRANGE:
            del self._strange[next(iter(self._strange))]
        return counts

    def _challenge(self, address: Address, number: int, size: int, now: float) -> Probe:
        if self._waiting is None:
            self._waiting = {}
        token = self._random(16)
        self._waiting[token] = _Waiting(address, number, size, now)
        if len(self._waiting) > MOST_PROBES:
            del self._waiting[next(iter(self._waiting))]
        return Probe(address, token, number, size)

    # --- the path MTU

    def too_large(self, size: int, now: float) -> list[Action]:
        """The kernel refused to send a datagram of `size` bytes on the path in use (EMSGSIZE)."""
        if self.address is None:
            return []
        self._most = min(self._most, size - 1)
        if size <= self.mtu:
            self.mtu = max(
                (step for step in LADDER if step <= min(FIRST_MTU, self._most)), default=LADDER[-1]
            )
            return self._try_below(self._most, now)
        return self._try_below(self._most, now) if size <= self._trying else []

    def handle_timer(self, now: float, used_at: float, heard_at: float) -> list[Action]:
        """`deadline` has come. With when data was last sent to the peer, and anything heard of it.

        Challenges and their answers are no use: two ends would keep each other awake.
        """
        if now < self.deadline or self.address is None:
            return []
        if self._trying:
            return self._next_try(now, heard_at)
        if now >= self._search_at:
            return self._search(now)
        if self.mtu > FIRST_MTU and used_at > self._confirmed:
            return self._try(self.mtu, now)
        self._rest(now)
        return []

    def _search(self, now: float) -> list[Action]:
        """Begin at the top."""
        assert self.address is not None
        self._search_at = now + SEARCH_INTERVAL_S
        self._most = self._ceiling(self.address)
        if self._most <= self.mtu:
            self.mtu = self._most
            return self._try(self.mtu, now) if self.mtu > FIRST_MTU else self._end(now)
        return self._try(self._most, now)

    def _try_below(self, most: int, now: float) -> list[Action]:
        """Try the largest size up to `most` that says anything new."""
        assert self.address is not None
        size = max((step for step in (*LADDER, self._ceiling(self.address)) if step <= most), default=0)
        return self._try(size, now) if size > self.mtu else self._end(now)

    def _try(self, size: int, now: float) -> list[Action]:
        self._trying = size
        self._tries = 1
        self._began = now
        self.deadline = now + PROBE_INTERVAL_S
        return [self._challenge(self.address, self.number, size, now)]

    def _next_try(self, now: float, heard_at: float) -> list[Action]:
        """The last challenge was not answered in time."""
        self._tries += 1
        if self._tries <= TRIES:
            self.deadline = now + PROBE_INTERVAL_S
            return [self._challenge(self.address, self.number, self._trying, now)]
        if heard_at <= self._began:  # was it the size, or is nobody there? A small one tells
            self.deadline = now + min(PROBE_INTERVAL_S * (1 << (self._tries - TRIES - 1)), PATIENCE_S)
            return [self._challenge(self.address, self.number, 0, now)]
        self._most = self._trying - 1
        if self._trying <= self.mtu:
            self.mtu = min(FIRST_MTU, self._most)
        return self._try_below(self._most, now)

    def _carried(self, size: int, now: float) -> list[Action]:
        """A challenge of `size` bytes got through."""
        self.mtu = max(self.mtu, size)
        if self._trying and self._trying <= self.mtu and size >= self._trying:
            return self._end(now)
        return []

    def _end(self, now: float) -> list[Action]:
        self._trying = 0
        self._rest(now)
        return []

    def _rest(self, now: float) -> None:
        self._confirmed = now
        self.deadline = (
            min(now + CONFIRM_INTERVAL_S, self._search_at) if self.mtu > FIRST_MTU else self._search_at
        )
