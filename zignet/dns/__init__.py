"""Names: this host's own resolver, the fake addresses, and the server that applications ask.

Five nouns carry the package:

- *answers*: a query's bytes in, its answer's bytes out, or the word that others have to answer it. Pure.
- *fakes*: the map between names and the addresses that stand for them; its file is the *store*.
- *zone*: what this node knows itself, from its *directory*: peers, keys, its own addresses.
- *exchange*: queries to the *upstreams*, the system's name servers; the *resolver* asks them for the engine.
- *choice*: which names get fake addresses, and what a flow to one means to the rules.

    server (UDP), stream (TCP) ─► answers ─► zone, fakes, exchange     flows ─► choice ─► rules     dialler ─► resolver

`names` wires all of it, and is loaded only where the configuration has a `dns` section.
"""
