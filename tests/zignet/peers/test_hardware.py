"""Whether the processor has AES instructions, by what kernels say of processors."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest

from zignet.peers import hardware

X86 = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu vme de pse {} avx2 rdrand\nbugs\t\t: spectre_v1\n"
ARM = "processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm {} crc32 cpuid\nCPU implementer\t: 0x41\n"


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Has /proc/cpuinfo say something; None: there is no such file."""

    def say(text: str | None) -> None:
        path = tmp_path / "cpuinfo"
        if text is not None:
            path.write_text(text, encoding="latin-1")
        monkeypatch.setattr(hardware, "Path", lambda asked: path if asked == "/proc/cpuinfo" else Path(asked))

    return say


@pytest.mark.parametrize(
    ("text", "has"),
    [
        (X86.format("aes"), True),
        (X86.format("sse2"), False),
        (X86.format("vaes aes_lookalike"), False),  # whole words
        (ARM.format("aes pmull"), True),
        (ARM.format("pmull"), False),  # a Raspberry Pi 4
        ("model name\t: aes machine\n", False),
        ("", False),
        ("flags", False),
        (X86.format("aes \xff\xfe"), True),
    ],
)
def test_what_the_kernel_says(says: Any, text: str, has: bool) -> None:
    says(text)
    assert hardware.has_aes() == has


@pytest.mark.parametrize(("machine", "has"), [("arm64", True), ("x86_64", False), ("armv7l", False)])
def test_where_the_kernel_says_nothing(
    says: Any, monkeypatch: pytest.MonkeyPatch, machine: str, has: bool
) -> None:
    says(None)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert hardware.has_aes() == has


def test_this_machine() -> None:
    assert isinstance(hardware.has_aes(), bool)
