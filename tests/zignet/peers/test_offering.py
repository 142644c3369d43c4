"""What the configuration, contacts and `zignet serve` come to: whole hubs, a clock by hand, contacts in a real file."""

from __future__ import annotations

import logging

import pytest

from tests.zignet.peers.hubs import Node, World, met
from zignet.config import Config, InboundConfig, PeerConfig, parse_config
from zignet.config.publish import MOST, PublishConfig
from zignet.contacts import Contact, Store
from zignet.control.place import CONTROL_NAME
from zignet.offering import Offering

TCP = 6
WEB = PublishConfig("web", "tcp", 80)
PUBLISH = "publish: [{name: web, port: 80}, {name: files, port: 81, to: [alice, 'tag:friend']}]\n"


class Host:
    """A hub, its offering, and a file of contacts."""

    def __init__(self, world: World, text: str) -> None:
        self.node = world.node("host")
        self.world = world
        self.directory = world.directory / "state" / CONTROL_NAME
        self.directory.mkdir(parents=True)
        self.config = parse_config(text)
        self.seen: list[Config] = []
        self.offering = Offering(self.node.loop, self.node.hub, self.directory.parent, self.seen.append)

    def knows(self, *contacts: Contact) -> None:
        store = Store(self.directory)
        for old in list(store):
            store.remove(old.name)
        for contact in contacts:
            store.add(contact)
        store.close()
        self.offering.contacts.use(())  # as if two seconds had passed
        self.offering.configure(self.config)

    def admits(self, key) -> bool:
        return self.node.hub.admission.admit(key, self.world.now).allowed

    def reaches(self, key, port: int) -> bool:
        services = self.node.hub._desk.open(key)
        return services is None or bool(services.tcp[port >> 3] >> (port & 7) & 1)

    def told(self, key) -> list[str]:
        return [offer.name for offer in self.node.hub._offers(key)]


@pytest.fixture
def guests(world: World) -> tuple[Node, Node]:
    return world.node("alice"), world.node("bob")


def test_a_contact_reaches_what_is_published_to_it_and_nothing_more(world, guests):
    alice, bob = (guest.key for guest in guests)
    host = Host(world, PUBLISH)
    host.knows(Contact("Alice", alice), Contact("bob", bob))
    assert host.admits(alice)
    assert [host.reaches(alice, port) for port in (80, 81, 22)] == [True, True, False]
    assert [host.reaches(bob, port) for port in (80, 81, 22)] == [True, False, False]
    assert (host.told(alice), host.told(bob)) == (["web", "files"], ["web"])
    host.knows(Contact("bob", bob, tags=("friend",)))
    assert not host.admits(alice)
    assert host.told(alice) == []
    assert host.reaches(bob, 81)
    assert host.seen[-1] is host.config


def test_whoever_is_admitted_otherwise_reaches_all(world, guests):
    alice, bob = (guest.key for guest in guests)
    for more in (f"inbound: {{allow: [{alice}]}}\n", f"peers: [{{name: someone, key: {alice}}}]\n"):
        host = Host(World(world.directory / more[:5]), PUBLISH + more)
        host.knows(Contact("alice", alice), Contact("bob", bob))
        assert host.reaches(alice, 22)
        assert host.told(alice) == ["web", "files"]
        assert not host.reaches(bob, 22)
    host = Host(World(world.directory / "open"), PUBLISH + "inbound: {default_action: allow}\n")
    host.knows(Contact("alice", alice))
    assert host.reaches(alice, 22)


def test_services_and_what_is_published_add_up(world, guests):
    alice, bob = (guest.key for guest in guests)
    host = Host(world, PUBLISH + f"inbound: {{allow: [{bob}], services: [{{proto: tcp, port: 22}}]}}\n")
    host.knows(Contact("alice", alice), Contact("bob", bob))
    assert [host.reaches(alice, port) for port in (22, 80, 443)] == [False, True, False]
    assert [host.reaches(bob, port) for port in (22, 80, 443)] == [True, True, False]


def test_names_that_the_configuration_uses_are_its_own(world, guests, caplog):
    alice, bob = (guest.key for guest in guests)
    host = Host(world, PUBLISH + f"peers: [{{name: Alice, key: {bob}}}]\n")
    with caplog.at_level(logging.WARNING):
        host.knows(Contact("alice", alice))
    assert not host.admits(alice)
    assert "the contact alice is left out" in caplog.text


def test_nobody_of_that_name_is_told_once(world, caplog):
    host = Host(world, PUBLISH)
    with caplog.at_level(logging.WARNING):
        host.knows()
        host.offering.contacts._changed()
    assert caplog.text.count('files is published to "alice", and nobody is called that') == 1


def test_a_lease_ends_by_itself(world, guests):
    alice = guests[0].key
    host = Host(world, "peers: []\n")
    host.knows(Contact("alice", alice))
    assert not host.reaches(alice, 80)
    host.offering.lease(WEB, 30.0)
    assert host.reaches(alice, 80)
    world.run(20)
    host.offering.lease(WEB, 30.0)
    world.run(29)
    assert host.told(alice) == ["web"]
    world.run(2)
    assert host.told(alice) == []
    assert not host.reaches(alice, 80)
    host.offering.lease(WEB, 30.0)
    host.offering.withdraw("web")
    host.offering.withdraw("web")
    assert not host.reaches(alice, 80)


def test_leases_are_bounded(world):
    host = Host(world, PUBLISH)
    host.knows()
    with pytest.raises(ValueError, match="by the configuration already"):
        host.offering.lease(WEB, 30.0)
    for number in range(MOST - 2):
        host.offering.lease(PublishConfig(f"s{number}", "tcp", 1000 + number), 30.0)
    with pytest.raises(ValueError, match="that is the most"):
        host.offering.lease(PublishConfig("more", "tcp", 1), 30.0)
    host.offering.lease(PublishConfig("s0", "udp", 5), 30.0)  # another service of that name takes its place
    with pytest.raises(ValueError, match="for the configuration"):
        host.offering.lease(PublishConfig("s0", "udp", 5, ("file:/etc/passwd",)), 30.0)


def test_offers_are_told_when_a_session_begins_and_when_they_change(world):
    a, b = world.node("a"), world.node("b")
    met(world, a, b)
    assert b.link(a).offers == ()
    offering = Offering(a.loop, a.hub, world.directory, lambda config: None)
    config = Config(
        peers=a.peers, inbound=InboundConfig(), publish=(PublishConfig("web", "tcp", 80, ("all",)),)
    )
    offering.configure(config)
    world.run(1.0)
    assert [offer.name for offer in b.link(a).offers] == ["web"]
    b.restart()
    b.peers = (PeerConfig("a", a.key, "192.0.2.1:51830"),)
    b.reload()
    b.send(a, b"again")
    world.run(1.0)
    assert [offer.name for offer in b.link(a).offers] == ["web"]
    offering.configure(Config(peers=a.peers, inbound=InboundConfig()))
    world.run(1.0)
    assert b.link(a).offers == ()


def test_offers_of_strangers_are_not_kept(world):
    a, b = world.node("a"), world.node("b")
    a.knows(b)
    b.admits("allow")
    offering = Offering(a.loop, a.hub, world.directory, lambda config: None)
    offering.configure(Config(peers=a.peers, publish=(PublishConfig("web", "tcp", 80, ("all",)),)))
    a.send(b, b"hello")
    world.run(1.0)
    assert b.heard() == [b"hello"]
    assert b.link(a).offers == ()
