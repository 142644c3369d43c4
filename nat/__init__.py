"""The NAT loopback engine: every flow that enters a TUN is terminated by the kernel on a loopback listener.

Five nouns carry the package:

- *gateway*: the TUN's end. Reads a packet, looks its flow up, rewrites it in place, writes it back.
- *flow*: one conversation: a source, a target, a route; in a `Table` (TCP) or with `Udp`.
- *exit*: a way out, as its owner describes it: a plan for a stream, a plan for datagrams (`nat.exit`).
- *relay*: two sockets of one flow, the listener's and the exit's, and the pump between them.
- *chooser*: the rules, asked at the SYN with the name unknown and, if need be, again once it was sniffed.

    loop ◄── gateway ──► table, tcp, udp, icmp ──► arrival (sniff) ──► chooser ──► dial ──► relay

`nat` knows nothing of configuration files or people. It can be used without `zignet`.
"""

from __future__ import annotations

import importlib
import importlib.machinery
from collections.abc import Sequence

from nat.exit import Chooser, Exit, Route, Target
from nat.settings import Settings

__all__ = ["COMPILED", "Chooser", "Exit", "Route", "Settings", "Target", "compiled_modules"]

# The packet path: ordinary Python that Cython compiles where there is a C compiler (see setup.py).
COMPILED = (
    "nat.arrival",
    "nat.checksum",
    "nat.craft",
    "nat.dial",
    "nat.expiry",
    "nat.flow",
    "nat.gateway",
    "nat.listener",
    "nat.loop",
    "nat.packet",
    "nat.relay",
    "nat.table",
    "nat.tally",
    "nat.tcp",
    "nat.udp",
)


def compiled_modules(names: Sequence[str] = COMPILED) -> dict[str, bool]:
    """Which modules of the packet path run compiled; the others run as they stand."""
    endings = tuple(importlib.machinery.EXTENSION_SUFFIXES)
    found = {name: importlib.import_module(name).__file__ or "" for name in names}
    return {name: file.endswith(endings) for name, file in found.items()}
