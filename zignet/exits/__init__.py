"""The ways out: direct, block, upstream SOCKS5 or HTTP proxies, and peers.

Each is a value that answers the questions of `nat.exit.Exit`: how would this flow leave? None of them opens
a socket; a proxy's handshake is a small state machine, bytes in and bytes out, and the engine's dialler
drives it.

    Direct   the flow leaves from this host, perhaps through a named interface
    Block    nothing leaves
    Socks5   TCP by CONNECT, UDP by UDP ASSOCIATE (RFC 1928, RFC 1929)
    Http     TCP by CONNECT (RFC 9110 §9.3.6); no UDP
    PeerExit a peer resolves and dials (docs/protocol.md §6, exit flows)

`guests` is the other end of that: what this host dials for its peers.

`build_exits` makes them from the configuration.
"""

from zignet.exits.block import Block
from zignet.exits.build import BUILT_IN, AnyExit, ExitSetupError, build_exits, peers_in_rules
from zignet.exits.direct import Direct
from zignet.exits.http import Http
from zignet.exits.peer import PeerExit
from zignet.exits.socks5 import Socks5

__all__ = [
    "BUILT_IN",
    "AnyExit",
    "Block",
    "Direct",
    "ExitSetupError",
    "Http",
    "PeerExit",
    "Socks5",
    "build_exits",
    "peers_in_rules",
]
