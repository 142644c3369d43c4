"""What can go wrong with a device and its surroundings: what, why, and what to do about it."""

from __future__ import annotations

__all__ = [
    "BadDescriptor",
    "InterfaceGone",
    "NameTaken",
    "NoTunDriver",
    "NotPermitted",
    "Overlap",
    "OwnedByAnother",
    "SettingRefused",
    "TunError",
]


class TunError(Exception):
    """A device or its configuration failed, through the fault of this machine's set-up.

    `what` was tried, `why` it failed, `advice` says what a person can do. The text is all three.
    """

    def __init__(self, what: str, why: str, advice: str = "") -> None:
        super().__init__(f"{what}: {why}" + (f"; {advice}" if advice else ""))
        self.what = what
        self.why = why
        self.advice = advice

    def to_json(self) -> dict[str, str]:
        """The error as a child process reports it."""
        return {"kind": type(self).__name__, "what": self.what, "why": self.why, "advice": self.advice}

    @staticmethod
    def from_json(value: dict[str, str]) -> TunError:
        """The error that `to_json` described, as the class it was."""
        return _KINDS.get(value["kind"], TunError)(value["what"], value["why"], value["advice"])


class NoTunDriver(TunError):
    """The kernel offers no /dev/net/tun here."""


class NotPermitted(TunError):
    """CAP_NET_ADMIN is missing."""


class NameTaken(TunError):
    """The interface belongs to another program, or is no TUN."""


class BadDescriptor(TunError):
    """`fd:N` names nothing that packets can be read from."""


class Overlap(TunError):
    """One of our address blocks is in use on this host already."""


class OwnedByAnother(TunError):
    """Another ZigNet in this network namespace holds the rules or the routing table."""


class SettingRefused(TunError):
    """A file under /proc/sys cannot be written."""


class InterfaceGone(TunError):
    """The interface does not exist (any more)."""


_KINDS: dict[str, type[TunError]] = {
    kind.__name__: kind
    for kind in (
        NoTunDriver,
        NotPermitted,
        NameTaken,
        BadDescriptor,
        Overlap,
        OwnedByAnother,
        SettingRefused,
        InterfaceGone,
    )
}
