"""`zignet contacts`: people by their keys. Works with and without a running node, which hears of what changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zignet.cli.errors import Fault
from zignet.cli.files import load, read_input
from zignet.cli.text import duration, printable
from zignet.contacts import Contact, ContactError, Store, Unreadable, format_link, parse, parse_link
from zignet.contacts.exchange import MOST_BYTES
from zignet.control.messages import Peer
from zignet.identity import BadKey, PublicKey

if TYPE_CHECKING:
    from rich.table import Table

    from zignet.config import Config

__all__ = [
    "Imported",
    "as_json",
    "book",
    "config_of",
    "contact_of",
    "how_reached",
    "import_all",
    "link",
    "online",
    "read",
    "refuse_oneself",
    "table",
]

_MOST_SHOWN = 20  # entries of a file that could not be taken
ONESELF = "This key is this node's own; a contact is somebody else."


@contextmanager
def book(directory: Path) -> Iterator[Store]:
    """The contacts in a directory, which is made if there is none. Raises `Fault`."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = Store(directory)
    except OSError as error:
        raise Fault(f"{directory}: {error.strerror}") from None
    except ContactError as error:
        raise Fault(str(error)) from None
    try:
        yield store
    except ContactError as error:
        raise Fault(str(error)) from None
    finally:
        store.close()


def contact_of(name: str, key: str | None, note: str, tags: Iterable[str]) -> Contact:
    """From what was typed: a name and a key, a name and a link, or a link alone. Raises `Fault`."""
    try:
        if key is None:
            found, name = parse_link(name)
            if not name:
                raise Fault(
                    "The link has no name: give one before it, as in `zignet contacts add alice LINK`."
                )
        elif key.lower().startswith("zignet:"):
            found, _ = parse_link(key)
        else:
            found = PublicKey.from_text(key)
        return Contact(name, found, note, tuple(tags))
    except (ContactError, BadKey) as error:
        raise Fault(str(error)) from None


def config_of(path: Path | None) -> Config:
    """The configuration; the defaults where it is broken, since contacts are kept all the same."""
    from zignet.config import Config, ConfigError

    try:
        return load(path)
    except ConfigError:
        return Config()


def own_key(config: Config) -> PublicKey | None:
    """This node's; None if there is none yet, or it is another user's."""
    from zignet.identity import KeyFileError, read_key

    try:
        return read_key(config.identity_file).public
    except (KeyFileError, OSError):
        return None


def refuse_oneself(contact: Contact, config: Config) -> None:
    """Raises `Fault` if the key is this node's own."""
    if contact.key == own_key(config):
        raise Fault(ONESELF)


def how_reached(contact: Contact, config: Config) -> str:
    """By which name, in words. A key or a name that the configuration has for a peer or an exit is its own."""
    name = contact.name.lower()
    for peer in config.peers:
        if peer.key == contact.key:
            return f"reached as {peer.name.lower()}.zignet: the configuration names this key {peer.name}"
    if name in {peer.name.lower() for peer in config.peers} | {
        exit_name.lower() for exit_name in config.exits
    }:
        return (
            f"not reached: the configuration has the name {contact.name} for a peer or an exit. "
            f"Choose another: zignet contacts rename {contact.name} NEW"
        )
    return f"reached as {name}.zignet"


def read(file: Path) -> str:
    """A file to import, or standard input. Raises `Fault`."""
    return read_input(file, MOST_BYTES).decode("utf-8", "replace")


@dataclass(slots=True)
class Imported:
    """What became of the entries of a file."""

    added: int = 0
    known: int = 0  # the same name and key were there
    refused: list[tuple[str, str]] | None = None  # where or who, and why

    def lines(self) -> list[str]:
        """For people."""
        refused = self.refused or []
        told = [f"{self.added} added, {self.known} known already, {len(refused)} not taken."]
        told += [f"  {who}: {why}" for who, why in refused[:_MOST_SHOWN]]
        if len(refused) > _MOST_SHOWN:
            told.append(f"  and {len(refused) - _MOST_SHOWN} more")
        return told


def import_all(store: Store, text: str, own: PublicKey | None = None) -> Imported:
    """Take in what can be taken in, but for one's `own` key. What is there is not changed.

    Raises `ContactError` if nothing can be read.
    """
    done = Imported(refused=[])
    assert done.refused is not None
    for entry in parse(text):
        if isinstance(entry, Unreadable):
            done.refused.append((entry.place, entry.why))
            continue
        if entry.key == own:
            done.refused.append((entry.name, ONESELF))
            continue
        old = store.find(entry.name)
        if old is not None and old.key == entry.key:
            done.known += 1
            continue
        try:
            store.add(entry)
        except ContactError as error:
            done.refused.append((entry.name, str(error)))
        else:
            done.added += 1
    return done


def link(contact: Contact) -> str:
    """To hand over."""
    return format_link(contact.key, contact.name)


def online(state_dir: Path) -> Mapping[str, Peer]:
    """What the running node knows of peers, by key; nothing where none runs."""
    from zignet.control import Client, ControlError

    try:
        with Client(state_dir) as client:
            return {peer["key"]: peer for peer in client.peers(every=True)}
    except ControlError:
        return {}


def as_json(contacts: Iterable[Contact], peers: Mapping[str, Peer]) -> list[dict[str, Any]]:
    """With their state, where it is known."""
    return [
        {
            **contact.to_json(),
            "added": contact.added,
            "link": link(contact),
            **_state(peers.get(contact.key.name)),
        }
        for contact in contacts
    ]


def _state(peer: Peer | None) -> dict[str, Any]:
    if peer is None:
        return {"online": None, "last_seen": None, "address": None}
    return {
        "online": peer["state"] == "connected",
        "last_seen": peer["last_seen"],
        "address": peer["address"] or None,
    }


def table(contacts: Sequence[Contact], peers: Mapping[str, Peer], wall: float) -> Table:
    """One line each."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in ("contact", "state", "address", "tags", "note"):
        made.add_column(heading, no_wrap=heading != "note")
    for contact in contacts:
        peer = peers.get(contact.key.name)
        state = _told(peer, wall)
        made.add_row(
            Text(contact.name),
            Text(state, style="green" if state == "online" else "dim"),
            Text(peer["address"] if peer is not None else ""),
            Text(" ".join(contact.tags)),
            Text(printable(contact.note.partition("\n")[0])),
        )
    return made


def _told(peer: Peer | None, wall: float) -> str:
    if peer is not None and peer["state"] == "connected":
        return "online"
    seen = peer["last_seen"] if peer is not None else None
    return f"{duration(max(0.0, wall - seen))} ago" if seen else "–"
