"""Who may come in, where no list says it: rules in order, each asking a source; the first that matches decides.

source     what a source is asked, and what it answers
sources/   files, scripts, databases, chains
rules      what follows from what they say: pure
judge      asks them, remembers what they said, and tells of changes
build      from the configuration to sources and a judge
"""

from zignet.policy.source import Finding, Source, SourceError

__all__ = ["Finding", "Source", "SourceError"]
