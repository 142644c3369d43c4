"""What governs names, read out of what systems write."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from zignet.system.names.host import (
    Dnsmasq,
    Host,
    dnsmasq_of,
    local_networks,
    local_networks6,
    manager_plugin,
)

ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
short
"""
ROUTES6 = """\
20010db8000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
"""  # noqa: E501


def test_routes() -> None:
    assert local_networks(ROUTES) == [ip_network("192.0.2.0/24")]
    assert local_networks6(ROUTES6) == [ip_network("2001:db8::/64")]
    assert local_networks("") == local_networks6("") == local_networks6("x\n\n") == []


def test_what_enters_the_tun() -> None:
    host = Host(networks=(ip_network("192.0.2.0/24"), ip_network("0.0.0.0/0")))
    assert host.reaches_tun(ip_address("203.0.113.53"))
    assert not host.reaches_tun(ip_address("192.0.2.1"))
    assert not host.reaches_tun(ip_address("203.0.113.53"), (ip_network("203.0.113.0/24"),))
    for local in ("127.0.0.53", "::1", "fe80::1", "0.0.0.0"):
        assert not host.reaches_tun(ip_address(local))


def test_network_manager() -> None:
    main = "[main]\nplugins=ifupdown,keyfile\ndns = dnsmasq\n[connection]\ndns=none\n"
    assert manager_plugin([main]) == "dnsmasq"
    assert manager_plugin([main, "[main]\ndns=default\n"]) == "default"
    assert manager_plugin(["", "dns=dnsmasq\n#[main]\n"]) == ""


class TestDnsmasq:
    def test_debian(self) -> None:
        arguments = ["dnsmasq", "-x", "/run/dnsmasq/dnsmasq.pid", "-r", "/run/dnsmasq/resolv.conf"]
        arguments += ["-7", "/etc/dnsmasq.d,.dpkg-dist,.dpkg-old,.dpkg-new", "--local-service"]
        assert dnsmasq_of(arguments, {}) == Dnsmasq("/etc/dnsmasq.d", "/run/dnsmasq/resolv.conf")

    def test_from_its_file(self) -> None:
        text = "# conf-dir=/no\nconf-dir=/etc/dnsmasq.d/,*.conf  # y\nresolv-file=/run/r\n"
        files = {"/etc/dnsmasq.conf": text}
        assert dnsmasq_of(["dnsmasq", "-k"], files) == Dnsmasq("/etc/dnsmasq.d/", "/run/r")
        assert dnsmasq_of(["dnsmasq", "-C/other"], files) == Dnsmasq(None, "/etc/resolv.conf")
        assert dnsmasq_of(["dnsmasq", "--conf-file=/etc/dnsmasq.conf"], files).directory == "/etc/dnsmasq.d/"

    def test_directories_that_would_not_read_ours(self) -> None:
        for option in ("/d,*.cfg", "/d,.conf", "/d,zignet.conf"):
            assert dnsmasq_of(["dnsmasq", "-7", option], {}).directory is None
        assert dnsmasq_of(["dnsmasq", "-7", "/d,*.cfg", "-7", "/e,*.conf,*.x"], {}).directory == "/e"
