"""ZigNet: a userspace NAT loopback proxy engine.

Five nouns carry the project:

flow      one TCP connection, one UDP mapping or one ICMP echo: protocol, source, target. It has a *source*
          (the local TUN now, a peer later), a state, and one way out.
listener  a TCP socket on 127.0.0.1 that the NAT leads flows to, so that the kernel terminates TCP. The
          accepted socket's peer name finds the flow, and so its true target, in the NAT's table.
rule      a line such as `*.video.example -> tokyo`. The first that matches a flow names its exit. A flow is
          judged at its SYN; only if a rule about names could still win is its name sniffed first.
exit      a way out: direct, block, an upstream SOCKS5 or HTTP proxy. An exit is a value that says *how* a
          flow would leave; the engine's dialler does it.
peer      another node, known by its public key; a source of flows and an exit at once (not in this version).

One flow's way: TUN -> `nat` (parse, rewrite) -> the kernel's TCP -> listener -> `sniff` (its name)
-> `zignet.routing` (the rule) -> `zignet.exits` (the plan) -> `nat` (dial, splice both ways).

`nat` and `sniff` know nothing of this package; `zignet.node` is the one place that wires them together.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
