"""Admission by somebody who needs a while: the configuration's lists, then what he has said before, then "pending".

    admit ─► lists ─► known ─► pending        wait ─► questions ─► (the judge) ─► decided ─► who waited goes on

Without sockets, without a clock. Whoever asks the judge takes `questions` and brings each answer to `decided`.
A decision that has grown old holds until there is a new one, and so do all of them while there is no judge.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from zignet.identity import PublicKey
from zignet.peers.admission import ConfiguredAdmission, Decision
from zignet.peers.waiting import Caller, Waiting

__all__ = ["PENDING", "Judged", "Verdict"]

MOST_KNOWN = 65_536  # decisions; the least recently used go
MOST_ASKED = 64  # strangers that the judge is asked about at once: the others' turns are ours to give
MOST_ASKED_AGAIN = 64  # and of those whose decision is old
ANSWER_S = 60.0  # then a question counts as lost
PROVISIONAL_S = 30.0  # the judge is to say more by itself

PENDING = Decision(False, "The policies are being asked about this key.", pending=True)


@dataclass(slots=True)
class Known:
    """A decision, and when to ask again."""

    key: PublicKey
    name: str  # what the judge calls it
    decision: Decision
    until: float
    judge: int  # which one it was


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a decision of the judge changes."""

    key: PublicKey
    decision: Decision
    caller: Caller | None  # who has waited for it


class Judged:
    """An `Admission`, with a judge behind it."""

    __slots__ = (
        "_asked",
        "_forgotten",
        "_judge",
        "_known",
        "_names",
        "_strangers",
        "due",
        "lists",
        "recheck_s",
        "waiting",
    )

    def __init__(self, lists: ConfiguredAdmission, recheck_s: float) -> None:
        self.lists = lists
        self.recheck_s = recheck_s
        self.waiting = Waiting()
        self._known: OrderedDict[bytes, Known] = OrderedDict()  # by X25519 key, least recently used first
        self._names: dict[str, bytes] = {}  # of the known
        self._strangers: dict[bytes, PublicKey] = {}  # those that wait, or are asked about, and are not known
        self.due: dict[bytes, PublicKey] = {}  # to be asked about again
        self._asked: OrderedDict[str, tuple[PublicKey, float]] = OrderedDict()  # when; longest ago first
        self._forgotten: list[str] = []
        self._judge = 0

    def __len__(self) -> int:
        return len(self._known)

    @property
    def is_busy(self) -> bool:
        """Whether anybody waits, or a question is open: `expire` is to be called."""
        return bool(self._asked or len(self.waiting))

    # --- for the hub

    def admit(self, key: PublicKey, now: float) -> Decision:
        """See `Admission`. Pending: nothing is known of it, and nobody is asked unless you say so (`wait`, `ask`)."""
        listed = self.lists.listed(key)
        if listed is not None:
            return listed
        known = self._known.get(key.x)
        if known is None:
            return PENDING
        self._known.move_to_end(key.x)
        if now >= known.until or known.judge != self._judge:
            known.until, known.judge = now + ANSWER_S, self._judge  # not at each look
            self.due[key.x] = key
        return known.decision

    def wait(self, key: PublicKey, message: bytes, address: Any, packed: bytes, now: float) -> str:
        """A stranger's initiation waits for the decision; why not, or "". `packed`: the 16 bytes of its address."""
        why = self.waiting.add(key.x, message, address, packed, now)
        if not why:
            self._strangers[key.x] = key
        return why

    def ask(self, key: PublicKey) -> None:
        """Have the judge asked about somebody who is here already, and has nothing to wait for."""
        if key.x not in self._strangers and len(self.due) < MOST_KNOWN:
            self.due[key.x] = key

    # --- for whoever asks the judge

    def questions(self, now: float) -> Iterator[str]:
        """The names to ask about now: as many as the judge may have at once, strangers first."""
        count = sum(key.x in self._strangers for key, _ in self._asked.values())
        while count < MOST_ASKED and (x := self.waiting.next()) is not None:
            key = self._strangers[x]
            if key.name not in self._asked:
                count += 1
                yield self._ask(key, now)
        while self.due and len(self._asked) < MOST_ASKED + MOST_ASKED_AGAIN:
            x = next(iter(self.due))
            key = self.due.pop(x)
            if key.name not in self._asked:
                yield self._ask(key, now)

    def _ask(self, key: PublicKey, now: float) -> str:
        self._asked[key.name] = key, now
        return key.name

    def decided(
        self, name: str, decision: Decision, valid_s: float | None, provisional: bool, now: float
    ) -> Verdict | None:
        """The judge has spoken, asked or not. None: of somebody that nobody here has heard of."""
        asked = self._asked.pop(name, None)
        if asked is not None:
            key = asked[0]
        elif (x := self._names.get(name)) is not None:
            key = self._known[x].key
        else:
            return None
        hold_s = min(self.recheck_s, self.recheck_s if valid_s is None else max(valid_s, 1.0))
        if provisional:
            hold_s = min(hold_s, PROVISIONAL_S)
        self._known[key.x] = Known(key, name, decision, now + hold_s, self._judge)
        self._known.move_to_end(key.x)
        self._names[name] = key.x
        self._strangers.pop(key.x, None)
        if len(self._known) > MOST_KNOWN:
            _, old = self._known.popitem(last=False)
            del self._names[old.name]
            self.due.pop(old.key.x, None)
            self._forgotten.append(old.name)
        return Verdict(key, decision, self.waiting.take(key.x))

    def forgotten(self) -> list[str]:
        """Whom the judge need not watch any more, since the last call."""
        names, self._forgotten = self._forgotten, []
        return names

    def changed(self) -> None:
        """There is another judge, or he has other rules: all that is known holds, and is asked again when looked at."""
        self._judge += 1
        asked, self._asked = self._asked, OrderedDict()
        for key, _ in asked.values():
            if key.x in self._known:
                self.due[key.x] = key
            else:
                self.waiting.again(key.x)
        self._tidy()

    def expire(self, now: float) -> int:
        """Let nobody wait too long, and ask again what was not answered; how many strangers have waited in vain."""
        count = self.waiting.expire(now)
        while self._asked:
            name, (key, since) = next(iter(self._asked.items()))
            if since + ANSWER_S > now:
                break
            del self._asked[name]
            if key.x in self._known:
                self.due[key.x] = key
            else:
                self.waiting.again(key.x)
        self._tidy()
        return count

    def _tidy(self) -> None:
        """Forget the strangers that neither wait nor are asked about."""
        asked = {key.x for key, _ in self._asked.values()}
        self._strangers = {x: key for x, key in self._strangers.items() if x in self.waiting or x in asked}
