"""How datagrams reach a peer: one file for each kind of transport.

A transport takes datagrams side by side and sends them to an address, and brings what came, many at a time. An
*address* is what the transport's own socket calls it; everybody else only compares it and hands it back.
"""

from zignet.transport.filter import marked
from zignet.transport.udp import Udp, UdpError

__all__ = ["Udp", "UdpError", "marked"]
