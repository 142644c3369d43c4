"""Names: this host's own resolver, the fake addresses, and the server that applications ask.

wire        questions and records of DNS messages: pure
upstreams   which name servers the system uses
exchange    one query to them, answered or not
resolver    names to addresses for the engine's dialler (`nat.exit.Resolver`)
"""
