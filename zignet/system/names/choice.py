"""Which mechanism, and why: a pure function of what the host is like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from zignet.system.names import direct, dnsmasq, networkmanager, resolved
from zignet.system.names.host import Host
from zignet.system.names.wanted import Mode, Wanted

__all__ = ["Choice", "choices"]


@dataclass(frozen=True, slots=True)
class Choice:
    """A mechanism, and a sentence about it."""

    mode: Mode
    why: str


def choices(host: Host, wanted: Wanted) -> tuple[Choice, ...]:
    """What to try, the best first. With a mode other than auto it is that alone."""
    if wanted.mode is Mode.AUTO:
        return tuple(_automatic(host, wanted))
    return (Choice(wanted.mode, f"`dns.mode: {wanted.mode}` says so"),)


def _automatic(host: Host, wanted: Wanted) -> Iterator[Choice]:
    """Who governs names is asked to send ours here; only where nobody does, a file is replaced."""
    if host.system == "darwin":
        yield Choice(Mode.RESOLVER, "this is macOS, which looks domains up in /etc/resolver")
        yield _off(wanted, "/etc/resolver can't be used")
        return
    if resolved.governs(host):
        yield Choice(Mode.RESOLVED, f"systemd-resolved governs names here: /etc/resolv.conf {_points(host)}")
    if networkmanager.governs(host) and networkmanager.runs_dnsmasq(host) and not wanted.everything:
        yield Choice(
            Mode.NETWORKMANAGER, "NetworkManager runs a dnsmasq here, which can lead domains to ZigNet"
        )
    elif dnsmasq.governs(host) and not wanted.everything:
        yield Choice(Mode.DNSMASQ, f"dnsmasq governs names here: /etc/resolv.conf {_points(host)}")
    if (seen := direct.hijackable(host, wanted)) is None:
        yield Choice(
            Mode.HIJACK,
            f"all traffic enters {wanted.link}, queries to {_servers(host)} too: they are answered there, and nothing "
            "needs to be changed",
        )
    if networkmanager.governs(host):
        yield Choice(Mode.NETWORKMANAGER, f"NetworkManager writes /etc/resolv.conf here, and {_no(seen)}")
    yield Choice(Mode.RESOLVCONF, f"nothing here can lead single domains elsewhere, and {_no(seen)}")
    yield _off(wanted, "nothing here could be changed")


def _off(wanted: Wanted, why: str) -> Choice:
    server = wanted.server53 or wanted.servers[0]
    return Choice(Mode.OFF, f"{why}: programs that are to know ZigNet's names must ask {server}")


def _points(host: Host) -> str:
    return f"names {_servers(host)}" + (f" (it is a link to {host.target})" if host.target else "")


def _servers(host: Host) -> str:
    return ", ".join(map(str, host.nameservers)) or "no server"


def _no(seen: str | None) -> str:
    return "its queries can't be answered on the TUN" if seen is None else f"its queries are not seen: {seen}"
