"""Two devices with one key: the newest handshake wins, the older one is told, and both sides log it."""

from __future__ import annotations

import logging

import pytest

from tests.zignet.peers.hubs import Node, World, met

INITIATION, RESPONSE, DATA = 1, 2, 4
TAKEN_OVER = "another device has taken over this identity"
PUT_OFF = "another device with this node's key has connected there"


@pytest.fixture
def three(world: World, caplog: pytest.LogCaptureFixture) -> tuple[Node, Node, Node]:
    """A laptop and a phone with one key, and whom they both know; the laptop has met it."""
    caplog.set_level(logging.INFO, "zignet.peers")
    laptop = world.node("laptop", seed=7)
    phone = world.node("phone", seed=7)
    b = world.node("b")
    met(world, laptop, b)
    phone.knows(b)
    world.run(12)
    world.sent.clear()
    caplog.clear()
    return laptop, phone, b


def test_the_newest_wins(
    world: World, caplog: pytest.LogCaptureFixture, three: tuple[Node, Node, Node]
) -> None:
    laptop, phone, b = three
    phone.send(b, b"from the phone")
    world.run(1.0)
    assert b.heard() == [b"from the phone"]
    assert b.link(phone).address == phone.address
    assert f"laptop: {TAKEN_OVER}" in caplog.text
    assert f"b: {PUT_OFF}" in caplog.text
    assert phone.connected(b)
    assert not laptop.connected(b)
    b.send(phone, b"to the phone")
    world.run(1.0)
    assert (phone.heard(), laptop.heard()) == ([b"to the phone"], [])
    assert b.state()["known"] == 1
    assert b.state()["openings"] == 1


def test_the_farewell_goes_to_where_the_older_one_is(world: World, three: tuple[Node, Node, Node]) -> None:
    laptop, phone, b = three
    phone.send(b, b"x")
    world.run(1.0)
    (farewell,) = world.of(DATA, b, laptop)
    assert len(farewell.data) == 16 + 4 + 1 + 16


def test_it_is_told_on_each_of_the_old_sessions(world: World, three: tuple[Node, Node, Node]) -> None:
    laptop, phone, b = three
    world.run(110)
    laptop.send(b, b"renew")
    world.run(1.0)
    laptop.send(b, b"on the new one")
    world.run(1.0)
    b.heard()
    assert laptop.hub.handshakes == 2
    world.sent.clear()
    phone.send(b, b"x")
    world.run(1.0)
    assert len(world.of(DATA, b, laptop)) == 2
    assert laptop.state()["openings"] == 0


def test_the_older_one_waits_for_its_user(world: World, three: tuple[Node, Node, Node]) -> None:
    """It does not call by itself, or the two would push each other out for ever."""
    laptop, phone, b = three
    laptop.knows(b, keepalive_s=25)
    phone.send(b, b"x")
    world.run(1.0)
    b.heard()
    world.sent.clear()
    world.run(400)
    assert world.of(INITIATION, laptop) == []
    laptop.send(b, b"back again")
    world.run(1.0)
    assert b.heard() == [b"back again"]
    assert laptop.connected(b)
    assert b.link(laptop).address == laptop.address


def test_they_take_turns(world: World, three: tuple[Node, Node, Node]) -> None:
    laptop, phone, b = three
    for _ in range(5):
        for device in (phone, laptop):
            device.send(b, device.name.encode())
            world.run(10)
            assert b.heard() == [device.name.encode()]
            b.send(device, b"answer")
            world.run(1.0)
            assert device.heard() == [b"answer"]
    assert b.state()["known"] == 1


def test_a_clock_that_goes_behind_is_no_hindrance(world: World, three: tuple[Node, Node, Node]) -> None:
    """Each device has timestamps of its own."""
    laptop, phone, b = three
    world.wall_offset = -1e6
    phone.restart()
    phone.send(b, b"x")
    world.run(1.0)
    assert b.heard() == [b"x"]
    world.wall_offset = 0.0
    laptop.send(b, b"y")
    world.run(1.0)
    assert b.heard() == [b"y"]


def test_who_is_called_may_be_another_device(
    world: World, caplog: pytest.LogCaptureFixture, three: tuple[Node, Node, Node]
) -> None:
    """The endpoint leads to the phone now, and the initiator is the one who finds out."""
    laptop, phone, b = three
    phone.knows(b)
    laptop_place = laptop.address
    world.nodes.pop(phone.address)
    phone.transport.address_ = laptop_place
    world.nodes[laptop_place] = phone
    laptop.transport.address_ = ("192.0.2.200", 51830)
    world.nodes[laptop.address] = laptop
    b.send(phone, b"anybody there?")
    world.run(20)
    b.send(phone, b"and now?")
    world.run(1.0)
    assert phone.heard()[-1] == b"and now?"
    assert TAKEN_OVER in caplog.text


def test_a_stranger_with_two_devices(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """One that came by itself keeps its one address."""
    caplog.set_level(logging.INFO, "zignet.peers")
    laptop, phone = world.node("laptop", seed=7), world.node("phone", seed=7)
    b = world.node("b")
    b.admits("allow")
    for device in (laptop, phone):
        device.knows(b)
        device.send(b, device.name.encode())
        world.run(1.0)
    assert b.heard() == [b"laptop", b"phone"]
    assert b.state()["stored"] == b.state()["known"] == 1
    assert TAKEN_OVER in caplog.text
    assert not laptop.connected(b)


def test_a_restarted_device_is_the_same(
    world: World, caplog: pytest.LogCaptureFixture, three: tuple[Node, Node, Node]
) -> None:
    laptop, _, b = three
    laptop.restart()
    laptop.send(b, b"it is me")
    world.run(1.0)
    assert b.heard() == [b"it is me"]
    assert TAKEN_OVER not in caplog.text
