"""What each mechanism would write and call."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from zignet.system.names import Server, Wanted, direct, dnsmasq, macos, networkmanager, resolved
from zignet.system.names.host import Dnsmasq, Host
from zignet.system.names.plan import File

WANTED = Wanted(
    "zig0",
    3,
    (Server(ip_address("127.0.0.1"), 53530), Server(ip_address("100.64.0.1"))),
    ("video.example", "zignet"),
)
ALL = replace(WANTED, domains=(".",))
RESOLVED = Host(resolved=True, programs=frozenset({"resolvectl"}))
MANAGER = Host(content=b"nameserver 192.0.2.1\n", manager=True, programs=frozenset({"nmcli"}))


def body(file: object) -> list[str]:
    assert isinstance(file, File)
    return [line for line in file.content.decode().splitlines() if not line.startswith("#")]


def test_resolved() -> None:
    plan = resolved.plan(RESOLVED, WANTED)
    assert plan.steps == (
        ("resolvectl", "dns", "zig0", "100.64.0.1"),
        ("resolvectl", "default-route", "zig0", "no"),
        ("resolvectl", "dnssec", "zig0", "no"),
        ("resolvectl", "dnsovertls", "zig0", "no"),
        ("resolvectl", "llmnr", "zig0", "no"),
        ("resolvectl", "mdns", "zig0", "no"),
        ("resolvectl", "domain", "zig0", "~video.example", "~zignet"),
        ("resolvectl", "flush-caches"),
    )
    assert plan.upstream_file == "/run/systemd/resolve/resolv.conf"
    steps = resolved.plan(RESOLVED, replace(ALL, servers=WANTED.servers[:1])).steps
    assert steps[0] == ("resolvectl", "dns", "zig0", "127.0.0.1:53530")
    assert ("resolvectl", "default-route", "zig0", "yes") in steps
    assert ("resolvectl", "domain", "zig0", "~.") in steps
    assert resolved.undo(RESOLVED, "zig0")[0] == ("resolvectl", "revert", "zig0")
    assert resolved.undo(Host(), "zig0") == ()


def test_dnsmasq() -> None:
    host = Host(dnsmasq=Dnsmasq("/etc/dnsmasq.d/", "/run/r"), programs=frozenset({"service"}))
    plan = dnsmasq.plan(host, WANTED)
    file, *commands = plan.steps
    assert isinstance(file, File)
    assert file.path == "/etc/dnsmasq.d/zignet.conf"
    assert body(file) == [
        "server=/video.example/127.0.0.1#53530",
        "server=/zignet/127.0.0.1#53530",
        "rebind-domain-ok=/video.example/",
        "rebind-domain-ok=/zignet/",
    ]
    assert commands == [("service", "dnsmasq", "restart")]
    assert plan.upstream_file == "/run/r"
    systemd = replace(host, programs=frozenset({"service", "systemctl"}))
    assert dnsmasq.plan(systemd, WANTED).steps[1] == ("systemctl", "restart", "dnsmasq.service")
    assert dnsmasq.undo(Host()) == ()


def test_network_manager_with_dnsmasq() -> None:
    host = replace(MANAGER, content=b"nameserver 127.0.1.1\n", manager_plugin="dnsmasq")
    file, command = networkmanager.plan(host, WANTED).steps
    assert isinstance(file, File)
    assert file.path == "/etc/NetworkManager/dnsmasq.d/zignet.conf"
    assert file.content == dnsmasq.content(WANTED)
    assert command == ("nmcli", "general", "reload", "dns-full")


def test_network_manager_leaves_resolv_conf_first() -> None:
    """Else it would write over ours."""
    for host, wanted in (
        (MANAGER, WANTED),
        (MANAGER, ALL),
        (replace(MANAGER, manager_plugin="dnsmasq"), ALL),
    ):
        drop_in, command, resolv = networkmanager.plan(host, wanted).steps
        assert isinstance(drop_in, File)
        assert isinstance(resolv, File)
        assert drop_in.path == "/etc/NetworkManager/conf.d/zignet.conf"
        assert body(drop_in) == ["[main]", "rc-manager=unmanaged"]
        assert command == ("nmcli", "general", "reload", "conf")
        assert resolv.path == "/etc/resolv.conf"
        assert body(resolv) == ["nameserver 100.64.0.1"]


def test_macos() -> None:
    files = macos.files(WANTED)
    assert [file.path for file in files] == ["/etc/resolver/video.example", "/etc/resolver/zignet"]
    assert body(files[1]) == ["nameserver 127.0.0.1", "port 53530"]
    assert macos.plan(Host(system="darwin"), WANTED).steps == files


def test_resolv_conf_and_nothing() -> None:
    (file,) = direct.resolv_conf(Host(content=b"nameserver 192.0.2.1\nsearch a\n"), WANTED).steps
    assert body(file) == ["nameserver 100.64.0.1", "search a"]
    assert direct.off(Host(), WANTED).steps == ()
