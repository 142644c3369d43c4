"""Traffic between nodes that are set up differently: without offload, with another cipher, with other sizes."""

import socket
import struct

import pytest

from tests.lab.peers import bytes_round, checksum_errors, ping, servers, udp
from zignet.lab.hosts import PORT, Hosts

pytestmark = [pytest.mark.root, pytest.mark.packet_path]

LARGE = {"mtu": 8900, "peer_mtu": 8900}
SETTINGS = {
    "offload-there": ({}, {"tun": {"offload": "off"}}),
    "offload-here": ({"tun": {"offload": "off"}, "cipher": "chacha20"}, {}),
    "offload-nowhere": ({"tun": {"offload": "off"}}, {"tun": {"offload": "off", "listener": "tun"}}),
    "ipv4-only": ({"listen": [f"udp://0.0.0.0:{PORT}"]}, {"listen": [f"udp://192.0.2.2:{PORT}"]}),
    "other-range": (
        {"tun": {"range": "10.77.0.0/16", "range6": "fd11:2233:4455::/48"}},
        {"cipher": "chacha20"},
    ),
    "jumbo": ({"tun": LARGE}, {"tun": LARGE}),
    "jumbo-inside-only": ({"tun": LARGE}, {"tun": LARGE}),
    "passive": ({"tun": {"peer_mtu": 1280}, "listen": ["udp://[::]:0"]}, {"peers": "no endpoint"}),
}


@pytest.fixture(scope="module")
def net():
    with Hosts("a", "b") as hosts, servers(hosts["a"]), servers(hosts["b"]):
        yield hosts


@pytest.fixture(params=SETTINGS)
def pair(request, net):
    """Both nodes with these settings."""
    net.set_mtu(9000 if request.param == "jumbo" else 1500)
    for host, settings in zip(net, SETTINGS[request.param], strict=True):
        config = net.config(host.name) | settings
        if config["peers"] == "no endpoint":
            config["peers"] = [{"name": "a", "key": net["a"].key}]
        net.start(host.name, config)
    net.checksum_errors = [checksum_errors(host) for host in net]
    net.mtu_wanted = 8972 if request.param == "jumbo" else 1472
    yield net
    for host in net:
        assert host.node.stop() == 0
        assert "Traceback" not in host.node.log()


def test_it_carries_everything(pair):
    a, b = pair
    for near, far in ((a, b), (b, a)):  # a calls
        for version in (4, 6):
            inside = near.inner(far, version)
            assert near.reaches(inside)
            with udp(near, inside) as end:
                send_train(end)
                assert sorted(end.recv(65536) for _ in range(20)) == [
                    bytes((number,)) * 900 for number in range(20)
                ]
                for size in (1, 1201, 1453, 3000, 20_000):
                    end.send(bytes(size))
                    assert len(end.recv(65536)) == size
            assert bytes_round(near, inside, 2 << 20) == 2 << 20
            assert ping(near, inside, "-s", "9000") == 1
    assert [checksum_errors(host) for host in pair] == pair.checksum_errors
    assert a.peer(b)["path_mtu"] == b.peer(a)["path_mtu"] == pair.mtu_wanted
    for host in pair:
        assert host.status()["peers"]["dropped"] == {}


def send_train(end):
    """Twenty datagrams by one call, of another byte each."""
    train = b"".join(bytes((number,)) * 900 for number in range(20))
    end.sendmsg([train], [(socket.IPPROTO_UDP, 103, struct.pack("H", 900))])  # UDP_SEGMENT
