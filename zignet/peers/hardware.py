"""What the processor computes by itself."""

from __future__ import annotations

import platform
from pathlib import Path

__all__ = ["has_aes", "proposes_aes"]


def has_aes() -> bool:
    """Whether it has AES instructions, by what the kernel says; Apple's 64-bit processors all have."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return platform.machine() == "arm64"
    for line in text.splitlines():
        if line.startswith(("flags", "Features")):
            return "aes" in line.split()
    return False


def proposes_aes(cipher: str) -> bool:
    """Whether a node proposes AES-256-GCM with this `cipher` in its configuration: auto, aes or chacha20."""
    return cipher == "aes" or (cipher == "auto" and has_aes())
