"""tests/vectors/protocol/handshake.json, read both ways: what we make of its inputs, and what we take."""

from __future__ import annotations

import json
from ipaddress import ip_address

import pytest

from tests.zignet.noise.make_vectors import PATH, text
from zignet.noise import (
    InitiationPayload,
    Initiator,
    MacChecker,
    MacMaker,
    Responder,
    ResponsePayload,
    Static,
    Suite,
)

VECTORS = json.loads(PATH.read_text(encoding="utf-8"))["vectors"]
pytestmark = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: Suite(vector["suite"]).name)


class Side:
    def __init__(self, said: dict):
        self.static = Static(bytes.fromhex(said["x25519_secret"]))
        assert self.static.public.hex() == said["x25519"]
        self.ed25519 = bytes.fromhex(said["ed25519"])
        self.device = bytes.fromhex(said["device"])
        self.ephemeral = bytes.fromhex(said["ephemeral"])
        self.index, self.features = said["index"], said["features"]

    def random(self, size: int) -> bytes:
        assert size == len(self.ephemeral)
        return self.ephemeral


def begin(vector: dict, ephemeral: bytes, timestamp: int) -> Initiator:
    us, them = Side(vector["initiator"]), Side(vector["responder"])
    return Initiator.begin(
        us.static,
        them.static.public,
        bytes.fromhex(vector["psk"]),
        Suite(vector["suite"]),
        us.index,
        InitiationPayload(us.ed25519, timestamp, us.device, us.features),
        lambda size: ephemeral,
    )


def test_the_messages_are_made(vector: dict):
    us, them = Side(vector["initiator"]), Side(vector["responder"])
    initiator = begin(vector, us.ephemeral, vector["timestamp"])
    assert MacMaker(them.static.public).add(initiator.message, 0.0).hex() == vector["initiation"]
    responder = Responder.open(them.static, bytes.fromhex(vector["initiation"]))
    message = responder.answer(
        bytes.fromhex(vector["psk"]), them.index, ResponsePayload(them.device, them.features), them.random
    )
    assert MacMaker(us.static.public).add(message, 0.0).hex() == vector["response"]
    assert responder.keys.send.hex() == vector["responder_sends_with"]
    assert responder.keys.receive.hex() == vector["initiator_sends_with"]


def test_the_messages_are_taken(vector: dict):
    us, them = Side(vector["initiator"]), Side(vector["responder"])
    initiation, response = bytes.fromhex(vector["initiation"]), bytes.fromhex(vector["response"])
    assert MacChecker(them.static.public).mac1_ok(initiation)
    responder = Responder.open(them.static, initiation)
    assert responder.payload == InitiationPayload(us.ed25519, vector["timestamp"], us.device, us.features)
    assert responder.remote == us.static.public
    assert (responder.suite, responder.sender_index) == (vector["suite"], us.index)
    initiator = begin(vector, us.ephemeral, vector["timestamp"])
    assert MacChecker(us.static.public).mac1_ok(response)
    assert initiator.finish(response) == ResponsePayload(them.device, them.features)
    assert initiator.remote_index == them.index
    assert initiator.keys.send.hex() == vector["initiator_sends_with"]
    assert initiator.keys.receive.hex() == vector["responder_sends_with"]


def test_the_cookie(vector: dict):
    cookie = vector["cookie"]
    address = ip_address(cookie["initiator_ip"]).packed
    if len(address) == 4:
        address = bytes(10) + b"\xff\xff" + address
    address += cookie["initiator_port"].to_bytes(2, "big")
    bytes_of = {32: bytes.fromhex(cookie["secret"]), 24: bytes.fromhex(cookie["nonce"])}
    them = Side(vector["responder"])
    checker = MacChecker(them.static.public, bytes_of.__getitem__)
    maker = MacMaker(them.static.public)
    first = begin(vector, Side(vector["initiator"]).ephemeral, vector["timestamp"])
    initiation = maker.add(first.message, 0.0)
    assert not checker.mac2_ok(initiation, address, 0.0)
    assert checker.cookie_for(initiation, address, 0.0).hex() == cookie["message"]
    assert maker.cookie_received(bytes.fromhex(cookie["message"]), 1.0)
    second = begin(vector, bytes.fromhex(cookie["next_ephemeral"]), cookie["next_timestamp"])
    again = maker.add(second.message, 5.0)
    assert again.hex() == cookie["next_initiation"]
    assert checker.mac1_ok(again)
    assert checker.mac2_ok(again, address, 5.0)


def test_the_file_is_what_other_code_makes(vector: dict):
    assert vector in json.loads(text())["vectors"]
