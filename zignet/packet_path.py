"""Which modules Cython compiles where there is a C compiler (see setup.py), and whether they are."""

from __future__ import annotations

import nat

__all__ = ["COMPILED", "compiled_modules"]

COMPILED = (
    *nat.COMPILED,
    "zignet.dns.name_table",
    "zignet.peers.receive",
    "zignet.peers.send",
    "zignet.policy.keytable",
)


def compiled_modules() -> dict[str, bool]:
    """Which of them run compiled; the others run as they stand."""
    return nat.compiled_modules(COMPILED)
