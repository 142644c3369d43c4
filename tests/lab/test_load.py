"""Many flows, floods and garbage: nobody gets another's bytes, and what lives goes on living."""

import json
import os
import random
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from zignet.bench.world import load_command
from zignet.lab.namespace import start_module

pytestmark = pytest.mark.root

FLOWS = 2000
SYNS = 20_000
GARBAGE = 5_000


@pytest.fixture(scope="module", autouse=True)
def bench_origin(net):
    server = start_module(net.origin, "zignet.bench.origin", "small")
    yield
    server.terminate()
    server.wait()


@pytest.mark.parametrize("exit_", ["direct", "tokyo"])
def test_many_flows_at_once_and_none_cross_wired(net, engine, exit_):
    node = engine([f"MATCH,{exit_}"])
    arguments = {"hosts": ["203.0.113.10", "203.0.113.20", "203.0.113.30"], "flows": FLOWS}
    client = net.host.popen(
        load_command("idle", arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with client:
        assert json.loads(client.stdout.readline()) == {"held": FLOWS}
        assert node.ask("status", "--json")["flows"]["tcp"] >= FLOWS
        client.stdin.write("\n")
        client.stdin.flush()
        assert json.loads(client.stdout.readline()) == {"flows": FLOWS, "crossed": 0, "failed": 0}


@pytest.mark.parametrize("exit_", ["direct", "tokyo"])
def test_short_connections_do_not_stall_when_ports_come_round(net, engine, exit_):
    engine([f"MATCH,{exit_}"])
    ports = "20000 20199"
    usual = net.host.call(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text)
    net.host.sysctl("net.ipv4.ip_local_port_range", ports)
    try:
        hosts = ["203.0.113.10", "203.0.113.20"]
        done = net.host.run(load_command("requests", {"hosts": hosts, "count": 2000}), timeout_s=60)
        result = json.loads(done.stdout)
    finally:
        net.host.sysctl("net.ipv4.ip_local_port_range", usual.strip())
    assert (result["failed"], result["stalled"]) == (0, 0)


def syn(source, target, port):
    """An IPv4 SYN; the kernel fills in the header's checksum, we ours."""
    source_port, sequence = random.randrange(1024, 65536), random.getrandbits(32)
    head = struct.pack(">HHIIBBHHH", source_port, port, sequence, 0, 0x50, 2, 64240, 0, 0)
    pseudo = source + target + struct.pack(">BBH", 0, 6, len(head))
    total = sum(struct.unpack(f">{len(pseudo + head) // 2}H", pseudo + head))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    tcp = head[:16] + struct.pack(">H", ~total & 0xFFFF) + head[18:]
    return struct.pack(">BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, 6, 0, source, target) + tcp


@pytest.mark.parametrize(
    "routes", [["MATCH,direct"], ["DOMAIN,any.example,tokyo", "MATCH,direct"]], ids=["decided", "undecided"]
)
def test_a_syn_flood_spares_the_living(net, engine, curl, routes):
    node = engine(routes)
    target = socket.inet_aton("203.0.113.30")
    with (
        net.host.connect("203.0.113.30", 7) as live,
        net.host.socket(kind=socket.SOCK_RAW, protocol=255) as raw,
    ):
        live.sendall(b"before")
        assert live.recv(6) == b"before"
        for number in range(SYNS):
            raw.sendto(syn(os.urandom(4), target, 4444), ("203.0.113.30", 0))
            if number % 1000 == 0:
                live.sendall(b"during")
                assert live.recv(6) == b"during"
        live.sendall(b"after")
        assert live.recv(5) == b"after"
        assert curl("-4", "http://plain.example/")["server"] == "plain.example"
    status = node.ask("status", "--json")
    assert status["flows"]["half_open"] <= 8192
    assert node.process.poll() is None


def test_garbage_is_dropped(net, engine, curl):
    node = engine(["MATCH,direct"])
    whole = syn(socket.inet_aton("192.0.2.2"), socket.inet_aton("203.0.113.30"), 80)
    generator = random.Random(1)
    for kind in (0x0800, 0x86DD):
        with net.host.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as raw:
            raw.bind(("zig0", kind))
            for _ in range(GARBAGE):
                cut = whole[: generator.randrange(len(whole) + 1)]
                packet = bytearray(cut + generator.randbytes(generator.randrange(80)))
                for _ in range(generator.randrange(4)):
                    if packet:
                        packet[generator.randrange(len(packet))] = generator.randrange(256)
                if kind == 0x86DD and packet:
                    packet[0] = 0x60 | packet[0] & 15
                raw.sendto(bytes(packet) or b"\0", ("zig0", kind, 0, 0, b"\0" * 6))
    assert curl("-4", "http://plain.example/")["server"] == "plain.example"
    assert node.process.poll() is None
    assert "Traceback" not in node.log()
