"""Peers: reached by key, over sealed datagrams, at local addresses of this host's choosing.

Six nouns carry the package:

- *peer*: a key, and the addresses that this host calls it by (`peer`, `table`, `store`).
- *link*: the conversation with one: its sessions and its path.
- *session*: two keys that a handshake has made, with a counter and a window (`session`, `tunnel`).
- *path*: an address of the peer that has proved itself, and the datagrams it carries (`path`).
- *sender*, *receiver*: the packet path, a file for each direction (`send`, `receive`; compiled where possible).
- *hub*: who knocks and who is let in; does what the state machines say (`hub`, `admission`, `endpoints`).

    gateway ─► sender ─► transport          transport ─► receiver ─► TUN
                 │ no session, rare              │ handshakes, control, rare
                 └────────────► hub ◄────────────┘
"""

from zignet.peers.hub import Hub, Local
from zignet.peers.installation import StampFile, device
from zignet.peers.store import Store

__all__ = ["Hub", "Local", "StampFile", "Store", "device"]
