"""Names from the first bytes of a flow: pure parsers that never read a socket, a clock or a byte too many.

Five nouns carry the package:

- *sniffer*: one per undecided flow. `StreamSniffer` for TCP, `DatagramSniffer` for UDP. `feed` it what the
  client sends, as it comes, and it answers.
- *answer*: `Outcome.NEED_MORE`, `Outcome.NOT_THIS`, or `Found`. The last two are final: more bytes change
  nothing. However the same bytes are cut, the final answer is the same.
- *reader*: one protocol's parser behind a stream sniffer (`tls`, `http1`, `http2`). It looks at all early
  bytes of the flow, and remembers how far it has come.
- *name*: the DNS name that the client asked for, lower case, without port and trailing dot; "" where the
  protocol was understood and carries none. Never an IP literal.
- *limit*: how many bytes (16 KiB) or datagrams (8) a sniffer looks at before it says `NOT_THIS`. How long
  to wait for the next bytes is the caller's to decide.

Nothing here raises on any input.
"""

from sniff.datagram import DatagramSniffer
from sniff.outcome import Answer, Found, Outcome
from sniff.ports import speaks_first
from sniff.stream import StreamSniffer

__all__ = ["Answer", "DatagramSniffer", "Found", "Outcome", "StreamSniffer", "speaks_first"]
