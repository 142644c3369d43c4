"""People whom one knows by their key: a name here, a note, tags. Kept in SQLite beside the node's other state.

contact   what a contact is, and what its parts may be: pure
link      `zignet:KEY?name=…`, to hand over: pure
exchange  lists of contacts as text, both ways: pure
store     the file
"""

from zignet.contacts.contact import Contact, ContactError
from zignet.contacts.exchange import Unreadable, dump, parse
from zignet.contacts.link import format_link, parse_link
from zignet.contacts.store import NAME, Store, read

__all__ = [
    "NAME",
    "Contact",
    "ContactError",
    "Store",
    "Unreadable",
    "dump",
    "format_link",
    "parse",
    "parse_link",
    "read",
]
