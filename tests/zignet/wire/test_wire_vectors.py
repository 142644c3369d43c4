"""tests/vectors/protocol/frames.json and data.json, by which another implementation can check itself."""

from __future__ import annotations

import ipaddress
import itertools
import json

import pytest

from tests.zignet.wire.make_vectors import FOLDER, texts
from zignet import wire
from zignet.noise import Suite, nonce

FRAMES = json.loads((FOLDER / "frames.json").read_text(encoding="utf-8"))
DATA = json.loads((FOLDER / "data.json").read_text(encoding="utf-8"))["data"]


def test_they_are_what_their_maker_makes():
    for name, text in texts().items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text


@pytest.mark.parametrize("vector", FRAMES["packets"], ids=lambda vector: vector["name"])
def test_packets(vector):
    packet, frame, rebuilt = (bytes.fromhex(vector[name]) for name in ("packet", "frame", "rebuilt"))
    assert wire.strip(packet, partial=vector["partial"]) == frame
    assert wire.is_known(frame)
    addresses = (ipaddress.ip_address(vector[name]).packed for name in ("source", "target"))
    assert wire.rebuild(frame, *addresses) == rebuilt


@pytest.mark.parametrize("vector", FRAMES["control"], ids=lambda vector: vector["type"])
def test_control_frames(vector):
    fields = {
        name: bytes.fromhex(value) if isinstance(value, str) else value
        for name, value in vector["fields"].items()
    }
    value, frame = getattr(wire, vector["type"])(**fields), bytes.fromhex(vector["frame"])
    assert value.encode() == frame
    assert wire.parse_control(frame) == value


@pytest.mark.parametrize("name", FRAMES["not_control"])
def test_what_is_no_control_frame(name):
    with pytest.raises(wire.BadFrame):
        wire.parse_control(bytes.fromhex(FRAMES["not_control"][name]))


@pytest.mark.parametrize("vector", FRAMES["fragments"], ids=lambda vector: vector["room"])
def test_fragments(vector):
    frame, pieces = bytes.fromhex(vector["frame"]), [bytes.fromhex(piece) for piece in vector["pieces"]]
    assert wire.split(frame, vector["number"], vector["room"]) == pieces
    for order in itertools.permutations(pieces):
        fragments = wire.Fragments(wire.Budget())
        assert [fragments.add(piece, 0.0) for piece in order] == [None] * (len(pieces) - 1) + [frame]


@pytest.mark.parametrize("vector", FRAMES["bundles"], ids=lambda vector: vector["name"])
def test_bundles(vector):
    frame, inside = bytes.fromhex(vector["frame"]), [bytes.fromhex(one) for one in vector["inside"]]
    frames, fault = wire.unbundle(frame)
    assert frames == inside
    assert bool(fault) != (wire.bundle(inside) == frame)


@pytest.mark.parametrize("vector", FRAMES["exits"], ids=lambda vector: vector["name"])
def test_exit_flows(vector):
    frame, inside = bytes.fromhex(vector["frame"]), bytes.fromhex(vector["inside"])
    number, back, meaning = vector["number"], vector["back"], vector["meaning"]
    assert wire.parse_exit(frame) == wire.ExitFrame(number, back, meaning, inside)
    assert wire.to_exit(inside, number, meaning, back=back) == frame


@pytest.mark.parametrize("name", FRAMES["not_exits"])
def test_what_is_no_exit_flow(name):
    with pytest.raises(wire.BadFrame):
        wire.parse_exit(bytes.fromhex(FRAMES["not_exits"][name]))


@pytest.mark.parametrize("vector", FRAMES["wholes"], ids=lambda vector: vector["name"])
def test_whole_packets(vector):
    names = ("packet", "frame", "known_as", "rebuilt")
    packet, frame, known_as, rebuilt = (bytes.fromhex(vector[name]) for name in names)
    assert wire.wrap(packet, back=vector["back"]) == frame
    assert wire.is_known(frame)
    assert wire.unwrap(frame, known_as) == rebuilt


@pytest.mark.parametrize("name", FRAMES["not_wholes"])
def test_what_is_no_whole_packet(name):
    with pytest.raises(wire.BadFrame):
        wire.unwrap(bytes.fromhex(FRAMES["not_wholes"][name]), bytes((100, 64, 0, 9)))


@pytest.mark.parametrize("vector", DATA, ids=lambda vector: f"suite{vector['suite']}-{vector['counter']}")
def test_data(vector):
    key, frame, datagram = (bytes.fromhex(vector[name]) for name in ("key", "frame", "datagram"))
    suite = Suite(vector["suite"])
    assert nonce(suite, vector["counter"]) == bytes.fromhex(vector["nonce"])
    assert wire.seal(suite, key, vector["index"], vector["counter"], frame) == datagram
    assert wire.parse_data(datagram) == (vector["index"], vector["counter"])
    assert wire.unseal(suite, key, datagram) == frame
