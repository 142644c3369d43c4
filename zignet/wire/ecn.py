"""Explicit congestion notification through the tunnel (RFC 6040).

The two low bits of a traffic class: Not-ECT 0, ECT(1) 1, ECT(0) 2, CE 3.
"""

from __future__ import annotations

from zignet.wire.frame import FRAME_HEADER, FRAME_PROTOCOL, FRAME_TRAFFIC, BadFrame, Protocol

__all__ = ["CE", "DROP", "ECN_MASK", "ECT0", "ECT1", "NOT_ECT", "TABLE", "combine", "outside"]

NOT_ECT, ECT1, ECT0, CE = 0, 1, 2, 3
ECN_MASK = 0x03
DROP = 0xFF

# RFC 6040 figure 4, at inner * 4 + outer: what the inner field becomes. It is for the packet path; `combine` is for
# everybody else.
TABLE = bytes(
    (
        # outer: Not-ECT  ECT(1)   ECT(0)   CE
        *(NOT_ECT, NOT_ECT, NOT_ECT, DROP),  # inner Not-ECT
        *(ECT1, ECT1, ECT1, CE),  # inner ECT(1)
        *(ECT0, ECT1, ECT0, CE),  # inner ECT(0)
        *(CE, CE, CE, CE),  # inner CE
    )
)


def combine(traffic: int, outer: int) -> int | None:
    """The traffic class to write into a packet whose datagram came with the ECN field `outer`; None: drop it.

    The DSCP stays. Not for control frames and fragments, whose datagrams have nothing to combine with.
    """
    inner = TABLE[(traffic & ECN_MASK) << 2 | outer & ECN_MASK]
    return None if inner == DROP else traffic & ~ECN_MASK | inner


def outside(frame: bytes | bytearray | memoryview) -> int:
    """The ECN field of the datagram that carries a frame: that of its packet (RFC 6040 §4.1, normal mode).

    0 for control frames and fragments. Raises BadFrame where there is no frame header.
    """
    if len(frame) < FRAME_HEADER:
        raise BadFrame("shorter than a frame header")
    if frame[FRAME_PROTOCOL] in (Protocol.CONTROL, Protocol.FRAGMENT):
        return NOT_ECT
    return frame[FRAME_TRAFFIC] & ECN_MASK
