"""The kernel's switches for forwarding, and what it changes along with them.

Writing `net.ipv4.ip_forward` sets `forwarding` on every interface, and `accept_redirects` (ip-sysctl.rst); that of
IPv6 likewise, and a router takes no default route from advertisements unless `accept_ra` is 2. So the settings of all
interfaces are noted, and only those that are not again as they were by themselves are written back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

__all__ = ["is_known", "noted", "off", "on", "put_back"]

ROOT = Path("/proc/sys/net")
MASTER = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}
ALONG = {4: ("forwarding", "accept_redirects"), 6: ("forwarding", "accept_ra")}
_KNOWN = re.compile(r"ipv4/ip_forward|ipv[46]/conf/[^/\s]{1,15}/(?:forwarding|accept_redirects|accept_ra)")


def off() -> tuple[int, ...]:
    """The IP versions that this host has and does not forward."""
    return tuple(version for version, path in MASTER.items() if _read(path) == "0")


def noted(versions: tuple[int, ...]) -> dict[str, str]:
    """All settings that switching these on may change, as they are."""
    found = {MASTER[version]: _read(MASTER[version]) for version in versions}
    for version in versions:
        for interface in sorted((ROOT / f"ipv{version}" / "conf").iterdir()):
            for setting in ALONG[version]:
                path = f"ipv{version}/conf/{interface.name}/{setting}"
                if value := _read(path):
                    found[path] = value
    return found


def on(versions: tuple[int, ...]) -> None:
    """Forward these. Raises OSError."""
    for version in versions:
        if version == 6:
            for path, value in noted((6,)).items():
                if path.endswith("/accept_ra") and value == "1":
                    (ROOT / path).write_text("2")
        (ROOT / MASTER[version]).write_text("1")


def put_back(before: Mapping[str, str]) -> list[str]:
    """What was noted, where it is still as we have left it. Returns a sentence for each that could not be."""
    lost = []
    masters = [path for path in MASTER.values() if path in before]
    ours = {path.partition("/")[0] for path in masters if _read(path) == "1"}
    for path in (*masters, *(each for each in before if each not in masters)):
        now, value = _read(path), before[path]
        left = now == "2" if path.endswith("/accept_ra") else path.partition("/")[0] in ours
        if left and now not in ("", value):
            try:
                (ROOT / path).write_text(value)
            except OSError as error:
                lost.append(f"{ROOT / path} stays {now}, it was {value}: {error.strerror}")
    return lost


def is_known(path: str, value: str) -> bool:
    """Whether a journal may name this: never any other setting."""
    return _KNOWN.fullmatch(path) is not None and ".." not in path.split("/") and value in ("0", "1", "2")


def _read(path: str) -> str:
    try:
        return (ROOT / path).read_text().strip()
    except OSError:
        return ""
