"""A little internet in network namespaces, for the demo, the tests and the bench.

`namespace` makes one place with a thread of its own; `internet` and `hosts` put several together (each is a
`lab`); `certificates`, `servers`, `quic`, `proxy` give them something to do. Real kernel, real sockets, addresses
of the documentation ranges; when it is over nothing is left.
"""
