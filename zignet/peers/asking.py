"""Between the hub and whoever judges: questions go out when there is room, answers let people in or turn them out.

The judge is another process (`zignet.control.process`), which may be slow, away, or broken: nothing here waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zignet.identity import PublicKey
from zignet.peers.admission import Admission, ConfiguredAdmission, Decision, Right
from zignet.peers.judged import Judged, Verdict

if TYPE_CHECKING:
    from zignet.peers.hub import Hub

__all__ = ["Asking"]

log = logging.getLogger("zignet.peers")

EXPIRE_S = 1.0
MOST_REASON = 300  # characters
CLOSED = Decision(False, "This node is stopping.")

Send = Callable[[dict[str, Any]], bool]  # False: not now; `Asking.resume` is called when there is room again


class Asking:
    """Drives a `Judged` in the packet loop. Without policies it has nothing to do."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._send: Send | None = None
        self._pumping = False
        self._watching = False
        self._left: list[str] = []  # questions that were taken, and not sent
        self.judged: Judged | None = None

    def configured(self, lists: ConfiguredAdmission, recheck_s: float | None) -> Admission:
        """The admission that the hub is to ask. `recheck_s`: how long policies hold; None: there are none."""
        if recheck_s is None:
            self.judged = None
            return lists
        if self.judged is None:
            self.judged = Judged(lists, recheck_s)
        else:
            self.judged.lists, self.judged.recheck_s = lists, recheck_s
        return self

    # --- from the hub

    def admit(self, key: PublicKey, now: float) -> Decision:
        """See `Admission`, and `Judged.admit`."""
        judged = self.judged
        if judged is None:
            return CLOSED
        decision = judged.admit(key, now)
        if judged.due:
            self._pump_soon()
        return decision

    def wait(self, key: PublicKey, message: bytes, address: Any) -> None:
        """A stranger's initiation: it is answered when the judge has said yes."""
        judged, hub = self.judged, self._hub
        assert judged is not None  # who else is pending?
        why = judged.wait(key, message, address, hub.transport.packed(address)[:16], hub.loop.now)
        if why:
            hub.dropped[f"handshake: {why}"] += 1
            return
        self._pump_soon()
        self._watch()

    def ask(self, key: PublicKey) -> None:
        """About somebody who is here already."""
        if self.judged is not None:
            self.judged.ask(key)
            self._pump_soon()

    # --- from the judge's channel

    def connect(self, send: Send) -> None:
        """There is a judge, perhaps a new one: what is known holds, and whoever is here is asked about again."""
        self._send = send
        self._left.clear()
        if self.judged is not None:
            self.judged.changed()
            self._hub.recheck_all()
            self._pump_soon()

    def disconnect(self) -> None:
        """There is none: what is known holds, strangers wait."""
        self._send = None

    def reloaded(self) -> None:
        """He has other rules."""
        if self._send is not None:
            self.connect(self._send)

    def resume(self) -> None:
        """There is room again for questions."""
        self._pump_soon()

    def told(self, message: dict[str, Any]) -> None:
        """A decision as it comes over the channel. Raises `zignet.control.process.NONSENSE` for what is none."""
        name, allowed, reason = message["decided"], message["allowed"], message["reason"]
        valid_s, provisional = message["valid_s"], message["provisional"]
        if not (
            isinstance(name, str) and isinstance(reason, str) and type(allowed) is type(provisional) is bool
        ):
            raise ValueError("a decision")
        if valid_s is not None and not (isinstance(valid_s, int | float) and valid_s >= 0):
            raise ValueError("for how long a decision holds")
        rights = Right.NONE
        for right in message["rights"] if allowed else ():
            rights |= Right[right.upper()]
        shown = "".join(letter if letter.isprintable() else "?" for letter in reason[:MOST_REASON])
        self.decided(name, Decision(allowed, shown, rights=rights), valid_s, provisional)

    def decided(self, name: str, decision: Decision, valid_s: float | None, provisional: bool) -> None:
        """An answer, asked for or not."""
        judged, hub = self.judged, self._hub
        if judged is None:
            return
        verdict = judged.decided(name, decision, valid_s, provisional, hub.loop.now)
        if verdict is not None:
            self._carry_out(judged, verdict)
        self._pump_soon()

    def _carry_out(self, judged: Judged, verdict: Verdict) -> None:
        hub, key, caller = self._hub, verdict.key, verdict.caller
        decision = judged.admit(key, hub.loop.now)  # the lists come first, and may have changed meanwhile
        peer = hub.table.by_key.get(key.x)
        if not decision.allowed and peer is not None and peer.link is not None:
            hub.turn_out(peer.link, decision)
        if caller is None:
            return
        if decision.allowed:
            hub.answer(caller.message, caller.address)
        else:
            hub.not_admitted(key, decision)

    # --- questions

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            self._hub.loop.call_later(EXPIRE_S, self._expire)

    def _pump_soon(self) -> None:
        if not self._pumping:
            self._pumping = True
            self._hub.loop.soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        judged, send = self.judged, self._send
        if judged is None or send is None:
            return
        self._left += judged.questions(self._hub.loop.now)
        while self._left and send({"admit": self._left[0]}):
            del self._left[0]
        if not self._left:
            for name in judged.forgotten():
                if not send({"forget": name}):
                    break  # it watches one key more than it need
        if judged.is_busy:
            self._watch()

    def _expire(self) -> None:
        judged, hub = self.judged, self._hub
        self._watching = False
        if judged is None:
            return
        count = judged.expire(hub.loop.now)
        if count:
            hub.dropped["handshake: no decision of the policies in time"] += count
        self._pump_soon()
        if judged.is_busy:
            self._watch()

    def close(self) -> None:
        """Nobody waits any more."""
        self.judged = self._send = None
