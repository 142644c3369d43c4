"""`zignet wire-dump`, on captures that scapy writes."""

from __future__ import annotations

import io
import json
import os
import sys
from types import SimpleNamespace

import pytest
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import PcapNgWriter, PcapWriter

from zignet.cli import main
from zignet.noise import Suite
from zignet.wire import Keepalive, Ping, seal, strip
from zignet.wire.keylog import format_line

SEND, RECEIVE = bytes(range(32)), bytes(range(32, 64))
LOCAL, REMOTE = 0x0A, 0xDEADBEEF
PEER = "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrstuvwx"
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
INNER = bytes(IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=40001, dport=443, flags="S", seq=7))


def out(payload, v6=False):
    ip = IPv6(src="2001:db8::1", dst="2001:db8::2") if v6 else IP(src="192.0.2.1", dst="192.0.2.2")
    return ETHER / ip / UDP(sport=51830, dport=40000) / Raw(payload)


def back(payload):
    return ETHER / IP(src="192.0.2.2", dst="192.0.2.1", tos=3) / UDP(sport=40000, dport=51830) / Raw(payload)


INITIATION = (b"\1\2\0\0" + LOCAL.to_bytes(4, "little")).ljust(220, b"\0")
RESPONSE = (b"\2\2\0\0" + REMOTE.to_bytes(4, "little") + LOCAL.to_bytes(4, "little")).ljust(104, b"\0")
SYN = seal(Suite.AES, SEND, REMOTE, 0, strip(INNER))
PING = seal(Suite.AES, RECEIVE, LOCAL, 0, Ping(bytes(8)).encode())
SUPER = b"".join(seal(Suite.AES, SEND, REMOTE, n, Keepalive().encode() + bytes(100)) for n in range(1, 4))
OTHER = ETHER / IP() / UDP(sport=53, dport=53) / Raw(b"a question")
CONVERSATION = [out(INITIATION), back(RESPONSE), OTHER, out(SYN), back(PING), out(SUPER), out(SYN, v6=True)]


def write(path, packets, writer=PcapWriter, **options):
    with writer(str(path), **options) as file:
        for n, packet in enumerate(packets):
            packet.time = 1_700_000_000 + n
            file.write(packet)
    return path


@pytest.fixture
def capture(tmp_path):
    return write(tmp_path / "seen.pcap", CONVERSATION)


@pytest.fixture
def keys(tmp_path):
    path = tmp_path / "session.keys"
    path.write_text(format_line(2, LOCAL, REMOTE, SEND, RECEIVE, PEER))
    path.chmod(0o600)
    return path


@pytest.fixture
def dump(capsys):
    def run(*args):
        code = main(["wire-dump", *map(str, args)])
        said = capsys.readouterr()
        for key in (SEND, RECEIVE):
            assert key.hex() not in said.out + said.err
        return SimpleNamespace(code=code, lines=said.out.splitlines(), notes=said.err.splitlines())

    return run


def test_with_keys(dump, capture, keys):
    said = dump(capture, "--keys", keys)
    assert said.code == 0
    assert said.notes == []
    assert [each[16:] for each in said.lines] == [
        "192.0.2.1:51830 > 192.0.2.2:40000 initiation 0000000a for 0000000000000000…, aes, 220 bytes, to abcdefgh…",
        "192.0.2.2:40000 > 192.0.2.1:51830 response deadbeef > 0000000a, aes, 104 bytes, CE, from abcdefgh…",
        "192.0.2.1:51830 > 192.0.2.2:40000 data deadbeef #0, 56 bytes, to abcdefgh…: "
        "tcp 40001 > 443 [S], seq 7, win 8192, length 0 (v4, hops 64)",
        "192.0.2.2:40000 > 192.0.2.1:51830 data 0000000a #0, 44 bytes, CE, from abcdefgh…: "
        "ping, token 0000000000000000",
        *(
            f"192.0.2.1:51830 > 192.0.2.2:40000 data deadbeef #{n}, 136 bytes, to abcdefgh…: keepalive"
            for n in (1, 2, 3)
        ),
        "[2001:db8::1]:51830 > [2001:db8::2]:40000 data deadbeef #0, 56 bytes, to abcdefgh…: "
        "tcp 40001 > 443 [S], seq 7, win 8192, length 0 (v4, hops 64)",
    ]


def test_without_keys(dump, capture):
    said = dump(capture)
    assert (said.code, said.notes, len(said.lines)) == (0, [], 8)
    assert said.lines[2].endswith("data deadbeef #0, 56 bytes: sealed (no key)")


def test_json_is_one_object_a_line(dump, capture, keys):
    said = dump(capture, "--keys", keys, "--json")
    facts = [json.loads(each) for each in said.lines]
    assert [each["message"] for each in facts] == ["initiation", "response", *["data"] * 6]
    assert facts[2]["time"] == 1_700_000_003
    assert (facts[2]["from"], facts[2]["to"], facts[2]["ecn"]) == ("192.0.2.1:51830", "192.0.2.2:40000", 0)
    assert facts[2]["peer"] == PEER
    assert facts[2]["frame"]["target_port"] == 443
    assert facts[3]["ecn"] == 3


def test_pcapng_and_other_link_types(dump, tmp_path, keys, capture):
    wanted = [each[16:] for each in dump(capture, "--keys", keys).lines]
    path = write(tmp_path / "seen.pcapng", CONVERSATION, PcapNgWriter)
    assert [each[16:] for each in dump(path, "--keys", keys).lines] == wanted
    path = write(tmp_path / "raw.pcap", [Raw(bytes(packet)[14:]) for packet in CONVERSATION], linktype=101)
    assert [each[16:] for each in dump(path, "--keys", keys).lines] == wanted


def test_by_port(dump, capture):
    assert len(dump(capture, "--port", 51830).lines) == 8
    said = dump(capture, "--port", 53)
    assert [each[16:] for each in said.lines] == ["127.0.0.1:53 > 127.0.0.1:53 not ZigNet, 10 bytes"]
    said = dump(capture, "--port", 1)
    assert (said.code, said.lines) == (0, [])
    assert said.notes == ["zignet: no ZigNet datagrams of UDP port 1 among 7 packets"]
    assert dump(capture, "--port", 0).code == 2


def test_standard_input(dump, capture, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(capture.read_bytes())))
    assert dump("-").lines == dump(capture).lines


def test_cut_anywhere(dump, capture, keys, tmp_path):
    whole = capture.read_bytes()
    wanted = dump(capture, "--keys", keys).lines
    path = tmp_path / "cut.pcap"
    for end in [*range(60), *range(60, len(whole), 29)]:
        path.write_bytes(whole[:end])
        said = dump(path, "--keys", keys)
        assert said.lines == wanted[: len(said.lines)]
        if end < 4:
            assert said.code == 1
            assert "can't be read as a capture" in said.notes[0]
        else:
            assert said.code == 0
            assert all("cut off" in note or "no ZigNet datagrams" in note for note in said.notes)


def test_snapped_packets(dump, tmp_path, keys):
    path = tmp_path / "snapped.pcap"
    with PcapWriter(str(path), linktype=1) as file:
        file.write_header(None)
        raw = bytes(out(SYN))
        file.write_packet(raw[:70], sec=1, usec=2, caplen=70, wirelen=len(raw))
    said = dump(path, "--keys", keys)
    assert said.lines[0].endswith(
        "data deadbeef #0, 56 bytes, 28 bytes not captured: sealed (the capture does not have all of it)"
    )


def test_damage(dump, capture):
    with capture.open("ab") as file:
        file.write(b"\xff" * 100)
    said = dump(capture)
    assert said.code == 1
    assert len(said.lines) == 8
    assert "the capture is damaged" in said.notes[0]


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b\x08\x00", b"<html>", b"\0" * 100])
def test_no_capture(dump, tmp_path, content):
    path = tmp_path / "some.file"
    path.write_bytes(content)
    said = dump(path)
    assert (said.code, said.lines, len(said.notes)) == (1, [], 1)
    assert said.notes[0].startswith(f"zignet: {path} can't be read as a capture: ")


def test_files_that_are_not_there(dump, tmp_path, capture):
    for args in ((tmp_path / "nothing.pcap",), (tmp_path,), (capture, "--keys", tmp_path / "nothing")):
        said = dump(*args)
        assert (said.code, said.lines, len(said.notes)) == (1, [], 1)
        assert "can't be read" in said.notes[0]
    assert dump().code == 2


def test_a_key_log_with_bad_lines(dump, capture, keys):
    keys.write_text("nonsense\n" * 7 + keys.read_text())
    said = dump(capture, "--keys", keys)
    assert (said.code, len(said.lines)) == (0, 8)
    assert len(said.notes) == 6
    assert said.notes[0] == f"zignet: {keys}:1: a line has 7 fields, not 1; the line is passed over"
    assert said.notes[5] == f"zignet: {keys}: 2 more lines are passed over"


def test_a_key_log_without_keys(dump, capture, keys):
    keys.write_bytes(b"\xff\xfe binary\n")
    said = dump(capture, "--keys", keys)
    assert said.code == 1
    assert "holds no session's keys" in said.notes[-1]


def test_a_key_log_that_others_may_read(dump, capture, keys):
    keys.chmod(0o640)
    said = dump(capture, "--keys", keys)
    assert (said.code, len(said.lines)) == (0, 8)
    assert "chmod 600" in said.notes[0]


def test_keys_of_other_sessions(dump, capture, keys):
    keys.write_text(format_line(2, 1, 2, SEND, RECEIVE, PEER))
    assert dump(capture, "--keys", keys).notes == [
        f"zignet: data messages of sessions that {keys} does not hold: 6"
    ]


def test_ip_fragments_and_unknown_links_are_noted(dump, tmp_path):
    ip = IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=1, dport=2) / Raw(bytes(3000))
    path = write(tmp_path / "pieces.pcap", [ETHER / piece for piece in fragment(ip)])
    assert "zignet: IP fragments were passed over: 3" in dump(path).notes
    path = write(tmp_path / "radio.pcap", [Raw(bytes(60))], linktype=105)
    assert any("link type 105" in note for note in dump(path).notes)


def test_a_long_capture_costs_no_memory(tmp_path, keys):
    """60 MiB of datagrams, in a process of its own: what it holds does not grow with them."""
    import subprocess
    from pathlib import Path

    record = bytes(out(seal(Suite.AES, SEND, REMOTE, 9, bytes(4) + bytes(60_000))))
    path = tmp_path / "long.pcap"
    with PcapWriter(str(path), linktype=1) as file:
        file.write_header(None)
        for n in range(1000):
            file.write_packet(record, sec=n, usec=0)
    program = (
        "import re, sys; from zignet.cli import main; code = main(sys.argv[1:]);"  # ru_maxrss knows its parent's peak
        "print(re.search('VmHWM:(.*)kB', open('/proc/self/status').read())[1], file=sys.stderr); sys.exit(code)"
    )
    command = [sys.executable, "-c", program, "wire-dump", str(path), "--keys", str(keys)]
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=root, env={**os.environ, "PYTHONPATH": root}
    )
    assert len(done.stdout.splitlines()) == 1000
    assert int(done.stderr.split()[-1]) < 120_000  # KiB
