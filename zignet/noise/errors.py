"""What a handshake raises."""

from __future__ import annotations

__all__ = ["HandshakeError"]


class HandshakeError(Exception):
    """The other side's message is not a good one: malformed, for somebody else, forged, or for another psk.

    Nothing was changed by it: whoever waits for an answer goes on waiting. Carries no secret.
    """
