"""What `zignet dns` is told of a running node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zignet.control import RequestError
from zignet.control.messages import DnsStatus, DnsWhy
from zignet.system.names.wanted import ALL

if TYPE_CHECKING:
    from zignet.dns.names import Names

__all__ = ["NamesReport"]


class NamesReport:
    """See `zignet.control.DnsReport`."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def status(self) -> DnsStatus:
        """The name server as it is now."""
        names, lead = self._names, self._names.lead
        now = names.status()
        wanted = lead.wanted
        return DnsStatus(
            listen=now["listen"],
            mechanism=str(lead.applied.mechanism),
            why=lead.applied.why,
            changes=list(lead.applied.changes),
            notes=lead.notes(),
            domains=[ALL] if names.hijacks else list(wanted.domains) if wanted is not None else [],
            upstreams=now["upstreams"],
            others=names.others,
            fakes=now["names"],
            fakes_limit=now["room"],
            cached=names.cached,
            queries=now["answered"],
        )

    def why(self, name: str, kind: str) -> DnsWhy:
        """Where the answer for this name and type comes from."""
        try:
            source, text = self._names.why(name, kind)
        except ValueError as error:
            raise RequestError(str(error)) from error
        return DnsWhy(source=source, text=text)

    def flush(self) -> int:
        """Forget the upstreams' answers."""
        return self._names.flush()
