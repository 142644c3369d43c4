"""The kernel sends on what peers send through this host as whole packets, and brings the answers back.

Three nouns:

* **table** (`table`): what nftables is told: who may forward, under which address it leaves, and that nothing of a
  peer ever goes to another peer;
* **switches** (`switches`): `net.ipv4.ip_forward` and its IPv6 twin, and what the kernel changes along with them;
* **journal** (`carry`): how all of it was before, written down before it is changed.

    begin(state_dir, wanted)     # at start, after what a killed node has left was put back
    restore(state_dir)           # at stop, and at the next start after a crash

A host that is no such exit needs none of this: there no packet of a peer leaves the TUN for anything but this host.
"""

from zignet.system.forwarding.carry import ForwardingError, begin, restore, state
from zignet.system.forwarding.table import Wanted

__all__ = ["ForwardingError", "Wanted", "begin", "restore", "state"]
