"""What every lab is: namespaces and a directory that vanish together."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Self

from zignet.lab.namespace import Namespace, more_descriptors, sweep

__all__ = ["Lab"]

CARRIER_S = 5.0


class Lab:
    """A context manager: afterwards nothing is left. What there is, `build` of the subclass says."""

    def __init__(self) -> None:
        sweep()
        self.most_open = more_descriptors()  # files of one process
        self._temporary = tempfile.TemporaryDirectory(prefix="zn-lab-")
        self.directory = Path(self._temporary.name)  # for files of the run
        self.namespaces: list[Namespace] = []
        try:
            self.build()
        except BaseException:
            self.close()
            raise

    def build(self) -> None:
        """Namespaces, cables, addresses, servers."""
        raise NotImplementedError

    def add(self, role: str, hosts: Path | None = None) -> Namespace:
        """One more namespace, closed with the others."""
        namespace = Namespace(role, hosts)
        self.namespaces.append(namespace)
        return namespace

    def wait_for_carriers(self) -> None:
        """The kernel takes up to a second to see that a cable's other end is up, and IPv6 waits for that."""
        deadline = time.monotonic() + CARRIER_S
        for namespace in self.namespaces:
            while not all(
                link.get("state") == "up" and link.get("operstate") in ("UP", "UNKNOWN")
                for link in namespace.netlink(lambda ip: list(ip.get_links()))
            ):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"a cable of {namespace.name} does not come up")
                time.sleep(0.02)

    def close(self) -> None:
        """Take everything down. Harmless when repeated."""
        for namespace in self.namespaces:
            namespace.close()
        self._temporary.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
