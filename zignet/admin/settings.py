"""What the packet process tells the control process at its start, and again at a reload.

The configuration as it was read, not its text: its files may be readable by root alone, and `~` is another place for
another user. What is long, and not the control process's business, stays behind.
"""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, replace

from zignet.config import Config
from zignet.routing import Lines

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Goes from the process with more rights to the one with fewer, and never back."""

    config: Config  # without peers, rules, lists of keys: the packet process can be asked about them
    token: str = ""  # that changes by the API need

    @classmethod
    def of(cls, config: Config, token: str = "") -> Settings:
        """From the whole configuration."""
        inbound = replace(config.inbound, allow=frozenset(), deny=frozenset())
        return cls(replace(config, peers=(), routes=Lines(), inbound=inbound), token)

    def dump(self) -> bytes:
        """As bytes."""
        return pickle.dumps(self)

    @classmethod
    def load(cls, descriptor: int) -> Settings:
        """From the file that the packet process writes. Raises ValueError if it is being written just now."""
        data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        try:
            found = pickle.loads(data)  # noqa: S301 -- who wrote it has all rights that we have, and more
        except Exception as error:
            raise ValueError("these are no settings") from error
        if not isinstance(found, cls):
            raise ValueError("these are no settings")
        return found
