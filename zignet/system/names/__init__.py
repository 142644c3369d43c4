"""Leading the names of this host to the node, and taking that back: nothing else of the system's resolution changes.

Five nouns. A `Host` is what governs names here; a `Choice` is the mechanism that fits it, and why; a `Plan` is what
that mechanism means to do, as a value; a `Change` is one file of it, with what was there before; the `Journal` holds
the changes of a run until they are taken back.

wanted    what the node wants, what came of it     resolved networkmanager dnsmasq macos direct   a plan each: pure
host      looks at the system                      changes   one file: read, replaced, put back
choice    host and wish in, mechanism and why out  journal   changes on disk
plan      files and programs as values             integrate does it
"""

from zignet.system.names.integrate import Restored, drift, foresee, integrate, leftover, restore, unseen
from zignet.system.names.journal import DamagedJournalError
from zignet.system.names.wanted import Applied, Mode, NamesError, Server, Wanted, routing_domains

__all__ = [
    "Applied",
    "DamagedJournalError",
    "Mode",
    "NamesError",
    "Restored",
    "Server",
    "Wanted",
    "drift",
    "foresee",
    "integrate",
    "leftover",
    "restore",
    "routing_domains",
    "unseen",
]
