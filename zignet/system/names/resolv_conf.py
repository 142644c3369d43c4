"""/etc/resolv.conf, the last resort: our server alone, and everything else of the file as it was. Pure.

Our server stands alone because resolvers ask several at once or in turn (musl, glibc with `rotate`), and another
one would say NXDOMAIN to names that only we know. The lines that were there before stand in the file as comments,
so that they are not lost with the journal. resolv.conf(5).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from zignet.system.names.wanted import Server

__all__ = ["PATH", "Before", "before_ours", "compose", "is_ours", "nameservers", "owner_of"]

PATH = "/etc/resolv.conf"

_MARK = b"# Written by ZigNet; `zignet dns restore` puts back what was here:"
_OWNER = b"#state "  # the directory with the journal
_FILE, _LINK, _CUT = b"#was ", b"#was-link ", b"#was-cut"  # _CUT: the last line had no end
_NOTHING = b"#was-nothing"  # no file, or an empty one
_MOST = 16 << 10  # bytes of an earlier file that are kept in comments
_KEPT = (b"search", b"domain", b"options", b"sortlist")


@dataclass(frozen=True, slots=True)
class Before:
    """What the file was: a symlink's target, or a file's content; b"" for nothing."""

    target: str | None = None
    content: bytes = b""


def nameservers(content: bytes) -> tuple[IPv4Address | IPv6Address, ...]:
    """The servers in the file's order; what is no address is passed over, as glibc does."""
    found = []
    for line in content.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == b"nameserver":
            try:
                found.append(ip_address(words[1].decode("ascii")))
            except ValueError:  # UnicodeDecodeError is one
                continue
    return tuple(found)


def compose(server: Server, content: bytes, target: str | None, owner: str) -> bytes:
    """The new file, from the content that programs read before and, if it was a symlink, its target."""
    lines = [_MARK, _OWNER + os.fsencode(owner)]
    if target is not None:
        lines.append(_LINK + os.fsencode(target))
    elif len(content) <= _MOST:
        lines += (
            [_FILE + line for line in content.removesuffix(b"\n").split(b"\n")] if content else [_NOTHING]
        )
        lines += [_CUT] if content and not content.endswith(b"\n") else []
    lines.append(b"nameserver " + str(server.address).encode())
    lines += [
        line for line in content.splitlines() if line.split(maxsplit=1)[:1] and line.split()[0] in _KEPT
    ]
    return b"\n".join(lines) + b"\n"


def is_ours(content: bytes) -> bool:
    """Whether ZigNet wrote this."""
    return content.startswith(_MARK)


def owner_of(content: bytes) -> str:
    """The state directory of the node that wrote this; "" where ZigNet did not."""
    lines = content.split(b"\n", 2)
    if not is_ours(content) or len(lines) < 2 or not lines[1].startswith(_OWNER):
        return ""
    return os.fsdecode(lines[1].removeprefix(_OWNER))


def before_ours(content: bytes) -> Before | None:
    """What was there before a file of ours, out of its comments; None where they don't say."""
    if not is_ours(content):
        return None
    lines = content.split(b"\n")
    for line in lines:
        if line.startswith(_LINK):
            return Before(target=os.fsdecode(line.removeprefix(_LINK)))
    kept = [line.removeprefix(_FILE) for line in lines if line.startswith(_FILE)]
    if _NOTHING in lines:
        return Before()
    if not kept:
        return None
    return Before(content=b"\n".join(kept) + (b"" if _CUT in lines else b"\n"))
