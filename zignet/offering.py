"""What this host offers to whom: services, the internet by it, and what contacts are told of.

    configuration, files of keys, contacts, `zignet serve` ─► rules and offers ─► hub

Contacts are peers whom the configuration does not name. One whom nothing else admits reaches what is published to it,
and nothing more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zignet.config import Config, PeerConfig
from zignet.config.members import FILE, Members, key_files, members_of
from zignet.config.publish import ALL, CONTACTS, MOST, TAG, PublishConfig
from zignet.contacts import NAME, Contact, ContactError, read
from zignet.control.place import CONTROL_NAME
from zignet.identity import BadKey, PublicKey
from zignet.peers.services import PROTOCOLS, Rule, ServiceRules
from zignet.watched import Watched
from zignet.wire import Offer

if TYPE_CHECKING:
    from nat.loop import Loop, Timer
    from zignet.peers import Hub

__all__ = ["Offering"]

log = logging.getLogger("zignet")

NOBODY: Container[PublicKey] = frozenset()


@dataclass(slots=True)
class Lease:
    """A service that somebody publishes as long as he says so."""

    service: PublishConfig
    timer: Timer


class Offering:
    """Keeps the hub told. `changed` is called with the configuration when peers or members of lists have changed."""

    def __init__(self, loop: Loop, hub: Hub, state_dir: Path, changed: Callable[[Config], None]) -> None:
        self._loop = loop
        self._hub = hub
        self._changed = changed
        self._config: Config
        self._leases: dict[str, Lease] = {}
        self._missing: set[str] = set()  # names that nobody has, and that was told
        self._book = state_dir / CONTROL_NAME / NAME
        self.files: Watched[Container[PublicKey]] = Watched(loop, _keys_in, NOBODY, self._offer)
        self.contacts: Watched[tuple[Contact, ...]] = Watched(loop, _contacts_in, (), self._apply)
        self._only_contacts: list[Contact] = []  # those that are not the configuration's peers

    def configure(self, config: Config) -> None:
        """From now on by this configuration."""
        self._config = config
        lists = [config.exit.allow, *(service.allow for service in config.inbound.services or ())]
        lists += [service.to for service in config.publish]
        self.files.use(path for allow in lists for path in key_files(allow))
        self.contacts.use([self._book])
        self._missing.clear()
        self._apply()

    # --- while it runs

    def lease(self, service: PublishConfig, for_s: float) -> None:
        """Publish something for a while; the same name again prolongs it. Raises ValueError, for people."""
        if any(service.name == one.name for one in self._config.publish):
            raise ValueError(f'"{service.name}" is published by the configuration already')
        old = self._leases.get(service.name)
        if old is None and len(self._config.publish) + len(self._leases) >= MOST:
            raise ValueError(f"{MOST} services are published already, and that is the most")
        if key_files(service.to):
            raise ValueError("files of keys are for the configuration")
        if old is not None:
            old.timer.cancel()
        timer = self._loop.call_later(for_s, lambda: self._end(service.name))
        self._leases[service.name] = Lease(service, timer)
        if old is None or old.service != service:
            self._serve()

    def _end(self, name: str) -> None:
        lease = self._leases.pop(name, None)
        if lease is not None:
            lease.timer.cancel()
            self._serve()

    def withdraw(self, name: str) -> None:
        """End a lease before its time."""
        self._end(name)

    # --- what follows

    def _apply(self) -> None:
        """Peers or contacts are others: there may be 100,000, so what does not change them goes by `_offer`."""
        config = self._config
        self._only_contacts = list(self._people(config))
        peers = [PeerConfig(one.name, one.key, contact=True) for one in self._only_contacts]
        self._hub.configure((*config.peers, *peers), config.inbound)
        self._offer()

    def _offer(self) -> None:
        """The members of some list are others."""
        self._serve()
        self._changed(self._config)

    def _serve(self) -> None:
        """What peers may reach, and are told of."""
        config, hub = self._config, self._hub
        published = [*config.publish, *(lease.service for lease in self._leases.values())]
        known = list(self.contacts.content.get(self._book, ()))  # those that are configured peers, too
        rules = [(service, self._members(service, known)) for service in published]
        hub.serve(self._rules(config, self._only_contacts, rules))
        hub.tell(
            lambda key: tuple(
                Offer(PROTOCOLS[service.proto], service.port, service.name)
                for service, members in rules
                if members is None or key in members
            )
        )

    def _people(self, config: Config) -> Iterator[Contact]:
        """The contacts that are not the configuration's peers; a name that it uses is its own."""
        contacts = self.contacts.content.get(self._book, ())
        if not contacts:
            return
        names = {peer.name.lower() for peer in config.peers} | {name.lower() for name in config.exits}
        keys = {peer.key for peer in config.peers}
        for contact in contacts:
            if contact.key in keys:
                continue
            if contact.name.lower() in names:
                self._miss(
                    f"the contact {contact.name} is left out: the configuration has that name for a peer or an exit"
                )
            else:
                yield contact

    def _rules(
        self,
        config: Config,
        contacts: Iterable[Contact],
        published: Iterable[tuple[PublishConfig, Container[PublicKey] | None]],
    ) -> ServiceRules | None:
        inbound, tables = config.inbound, self.files.content
        only = (
            frozenset(contact.key for contact in contacts if contact.key not in inbound.allow)
            if inbound.default_action == "deny"
            else frozenset()
        )
        services = inbound.services
        if services is None and not only:
            return None
        rules = None
        if services is not None:
            rules = [
                Rule(PROTOCOLS[one.proto], one.ports, members_of(one.allow, config.peers, tables))
                for one in services
                if one.proto
            ]
        more = [Rule(PROTOCOLS[one.proto], ((one.port, one.port),), members) for one, members in published]
        return ServiceRules(rules, more, only)

    def _members(self, service: PublishConfig, contacts: list[Contact]) -> Container[PublicKey] | None:
        """Whom it is published to; None: everybody who is admitted."""
        if service.to == (ALL,):
            return None
        if service.to == (CONTACTS,):
            return frozenset(contact.key for contact in contacts)
        named = {contact.name.lower(): contact.key for contact in contacts}
        peers = {peer.name.lower() for peer in self._config.peers}
        keys: set[PublicKey] = set()
        others: list[str] = []
        for text in service.to:
            folded = text.lower()
            if folded.startswith(TAG):
                keys.update(contact.key for contact in contacts if folded[len(TAG) :] in contact.tags)
            elif folded in named:
                keys.add(named[folded])
            elif folded in peers or text.startswith(FILE) or _is_key(text):
                others.append(text)
            else:
                self._miss(f'{service.name} is published to "{text}", and nobody is called that')
        members = members_of(others, self._config.peers, self.files.content)
        assert members is not None
        return Members(members.keys | keys, members.files)

    def _miss(self, text: str) -> None:
        """Tell it once."""
        if text not in self._missing:
            self._missing.add(text)
            log.warning("%s", text)


def _is_key(text: str) -> bool:
    try:
        PublicKey.from_text(text)
    except BadKey:
        return False
    return True


def _keys_in(path: Path) -> Container[PublicKey] | None:
    from zignet.policy.keyfile import read_keys

    try:
        found = read_keys(path)
    except ValueError as error:
        log.error("%s; what was read before stays in force", error)
        return None
    for problem in found.problems:
        log.warning("%s: %s", path, problem)
    return found


def _contacts_in(path: Path) -> tuple[Contact, ...] | None:
    try:
        return read(path.parent)
    except ContactError as error:
        log.error("contacts: %s", error)
        return None
