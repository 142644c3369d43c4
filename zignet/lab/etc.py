"""An /etc of its own for a machine of the lab, so that a node there may change how names are found."""

from __future__ import annotations

import shutil
from pathlib import Path

from zignet.lab.namespace import Namespace

__all__ = ["copy_etc", "cover_etc"]


def copy_etc(directory: Path, resolv_conf: str) -> Path:
    """A copy of this machine's below `directory`, with this resolv.conf: an ordinary file, whatever it is here."""
    etc = directory / "etc"
    shutil.copytree("/etc", etc, symlinks=True)
    file = etc / "resolv.conf"
    file.unlink(missing_ok=True)
    file.write_text(resolv_conf)
    return etc


def cover_etc(namespace: Namespace, directory: Path, resolv_conf: str) -> Path:
    """Show the namespace such a copy as its /etc, from now on. Raises RuntimeError."""
    etc = copy_etc(directory, resolv_conf)
    done = namespace.run(["mount", "--bind", etc, "/etc"])
    if done.returncode != 0:
        raise RuntimeError(f"/etc of {namespace.role}: {done.stderr.strip()}")
    return etc
