"""The system's names lead here while the node runs: done beside the packet loop, for it calls programs.

Others may change the same files: a DHCP client that has heard of another name server, a VPN, a person. So they are
looked at now and then, and if they are not as they were written they are written anew, around what is there now; but
not for ever against somebody who insists.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

from nat.loop import Loop, Timer
from zignet.config import DnsConfig
from zignet.system.names import (
    Applied,
    DamagedJournalError,
    Mode,
    NamesError,
    Server,
    Wanted,
    drift,
    integrate,
    restore,
    routing_domains,
    unseen,
)

__all__ = ["Lead", "wanted"]

log = logging.getLogger("zignet.dns")

LOOK_S = 15.0
MOST_REPAIRS = 3  # …
REPAIRS_S = 600.0  # … in so long


def wanted(
    settings: DnsConfig,
    own: Iterable[str],
    link: str,
    index: int,
    patterns: Iterable[str],
    *,
    captures: bool = False,
    bypass: tuple[IPv4Network | IPv6Network, ...] = (),
) -> Wanted:
    """What a configuration asks of the system. `own`: the node's addresses on `link`, which answer at port 53.

    `captures`: all traffic enters the link, but for that to `bypass`, and queries in it can be answered.
    """
    servers = (
        *(Server(ip_address(host)) for host in own),
        *(Server(ip_address(one.host), one.port) for one in settings.listen),
    )
    domains = routing_domains(filter(_is_domain, patterns))
    return Wanted(link, index, servers, domains, Mode(settings.mode), captures, bypass)


def _is_domain(pattern: str) -> bool:
    """A rule may be about names that no resolver's configuration can hold."""
    try:
        routing_domains((pattern,))
    except ValueError:
        return False
    return True


class Lead:
    """`integrate` and `restore` of one node."""

    def __init__(self, loop: Loop, state_dir: Path, done: Callable[[Applied], None]) -> None:
        """`done` is called with what came of it, each time."""
        self._loop = loop
        self._told = done
        self._state_dir = state_dir
        self._thread: threading.Thread | None = None
        self._next: Wanted | None = None
        self.wanted: Wanted | None = None  # what was led here last
        self.applied = Applied(Mode.OFF, "not yet")
        self._looking: Timer | None = None
        self._repaired: list[float] = []  # when; monotonic seconds

    def want(self, wanted: Wanted) -> None:
        """Lead these names here from now on; what was led here before is taken back first."""
        if self._thread is not None:
            self._next = wanted
        elif wanted != self.wanted:
            self.wanted = wanted
            self._repaired.clear()
            self._begin(wanted)

    def _begin(self, wanted: Wanted) -> None:
        self._thread = threading.Thread(target=self._integrate, args=(wanted,), daemon=True)
        self._thread.start()

    def _integrate(self, wanted: Wanted) -> None:
        try:
            applied = integrate(wanted, self._state_dir)
        except NamesError as error:
            applied = Applied(Mode.OFF, f"{wanted.mode} did not work: {error}")
        self._loop.from_thread(lambda: self._done(applied))

    def _done(self, applied: Applied) -> None:
        self._thread = None
        self.applied = applied
        self._told(applied)
        if applied.mechanism is not Mode.OFF or (
            self.wanted is not None and self.wanted.mode is not Mode.OFF
        ):
            log.info("names come here by %s: %s", applied.mechanism, applied.why)
        for note in applied.notes:
            log.warning("names: %s", note)
        following, self._next = self._next, None
        if following is not None:
            self.want(following)
        self._look_later()

    def _look_later(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        waits = self.wanted is not None and self.wanted.mode is Mode.HIJACK
        if self._thread is None and (waits or self.applied.mechanism is not Mode.OFF):
            self._looking = self._loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        """Is everything still as it was written? A few small files."""
        self._looking = None
        changed = drift(self._state_dir)
        if self._thread is not None or self.wanted is None:
            return  # somebody is at it
        if not changed and (moved := self._moved(self.wanted)):
            log.warning("names: %s", moved)
            self._begin(self.wanted)
            return
        if not changed:
            self._look_later()
            return
        now = self._loop.now
        self._repaired = [when for when in self._repaired if now < when + REPAIRS_S]
        if len(self._repaired) >= MOST_REPAIRS:
            log.error(
                "names: %s, %d times in %.0f minutes; it is left now, and names may not come here. Find out who does "
                "it, or choose another dns.mode, and reload",
                "; ".join(changed),
                MOST_REPAIRS + 1,
                REPAIRS_S / 60,
            )
            return
        self._repaired.append(now)
        log.warning("names: %s; they are led here again", "; ".join(changed))
        self._begin(self.wanted)

    def _moved(self, wanted: Wanted) -> str:
        """Whether HIJACK sees the queries no longer, or again: another network has other servers."""
        if Mode.HIJACK not in (wanted.mode, self.applied.mechanism):
            return ""
        why = unseen(wanted)
        if self.applied.mechanism is Mode.HIJACK:
            return f"queries are not seen on the TUN any more: {why}" if why is not None else ""
        return "queries are seen on the TUN again" if why is None else ""

    def notes(self) -> list[str]:
        """What a person should know."""
        return [*self.applied.notes, *drift(self._state_dir)]

    def close(self) -> None:
        """Take it back. Waits for what is under way."""
        if self._looking is not None:
            self._looking.cancel()
        if self._thread is not None:
            self._thread.join()
        try:
            for left in restore(self._state_dir).left:
                log.warning("names: %s", left)
        except (NamesError, DamagedJournalError) as error:
            log.error("names: %s", error)
