"""What crosses the wire inside of a session: frames, and the datagrams that seal them (docs/protocol.md §4, §6, §7).

Seven nouns carry the package:

- *frame*: what one data message seals: four bytes of header, then a packet without its IP header, a piece of a
  larger frame, or a control frame. A frame that is malformed raises `BadFrame`.
- *strip*, *rebuild*: from an IP packet to its frame, and back under other addresses. ICMP errors carry a packet
  inside, whose addresses change likewise.
- *control frame*: what two nodes say to each other; each is a value with `encode`, and `parse_control` reads it.
- *whole packet*: one with its IP header, for an exit that sends it on (`wrap`, `unwrap`).
- *exit frame*: a packet for a destination that the receiver dials (`to_exit`, `parse_exit`).
- *bundle*: several small frames in one (`bundle`, `unbundle`).
- *pieces*: of a frame that is larger than the path (`split`); one peer's `Fragments` join them, within the
  `Budget` of all.
- *data message*: index, counter, seal (`seal`, `unseal`).

Nothing here reads a socket or a clock. `headers` and `data` are the slow path and the oracle of the packet path that
`zignet.peers` compiles.

For people who look at packets, and imported by them alone: `capture` (pcap, pcapng), `links` (the UDP datagrams in
it), `describe` (what a datagram says), `keylog` (the keys to open it).
"""

from zignet.wire.bundle import bundle, unbundle
from zignet.wire.data import (
    COUNTER_END,
    DATA_HEADER,
    DATA_LEAST,
    TAG,
    BadDatagram,
    kind_of,
    parse_data,
    seal,
    unseal,
)
from zignet.wire.ecn import combine, outside
from zignet.wire.exit import NUMBERS, ExitFrame, address_of, good_name, parse_exit, to_exit
from zignet.wire.fragment import FRAGMENT_HEADER, Budget, Fragments, split
from zignet.wire.frame import (
    FRAME_HEADER,
    Answer,
    BadFrame,
    Challenge,
    Control,
    ControlFrame,
    Farewell,
    FarewellReason,
    Flag,
    Keepalive,
    Offers,
    Ping,
    Pong,
    Protocol,
    Refusal,
    Refused,
    is_known,
    parse_control,
)
from zignet.wire.headers import rebuild, strip
from zignet.wire.mss import clamp_mss
from zignet.wire.offers import MOST_OFFERS, Offer, offers_frame, parse_offers
from zignet.wire.whole import unwrap, wrap

__all__ = [
    "COUNTER_END",
    "DATA_HEADER",
    "DATA_LEAST",
    "FRAGMENT_HEADER",
    "FRAME_HEADER",
    "MOST_OFFERS",
    "NUMBERS",
    "TAG",
    "Answer",
    "BadDatagram",
    "BadFrame",
    "Budget",
    "Challenge",
    "Control",
    "ControlFrame",
    "ExitFrame",
    "Farewell",
    "FarewellReason",
    "Flag",
    "Fragments",
    "Keepalive",
    "Offer",
    "Offers",
    "Ping",
    "Pong",
    "Protocol",
    "Refusal",
    "Refused",
    "address_of",
    "bundle",
    "clamp_mss",
    "combine",
    "good_name",
    "is_known",
    "kind_of",
    "offers_frame",
    "outside",
    "parse_control",
    "parse_data",
    "parse_exit",
    "parse_offers",
    "rebuild",
    "seal",
    "split",
    "strip",
    "to_exit",
    "unbundle",
    "unseal",
    "unwrap",
    "wrap",
]
