from __future__ import annotations

import os
import sys

import pytest

from zignet.control import Place
from zignet.system import State, privileges

LOOK = """
from zignet.config import Config
from zignet.system import privileges
import sys, resource
config = Config.parse(sys.argv[2])
check = {}
print(check.state.name, check.detail, check.advice)
"""


def look(host, call, config="{}", *, through=()):
    path = os.pathsep.join(os.path.abspath(each) for each in sys.path)
    code = LOOK.replace("{}", f"privileges.{call}")
    argv = [*through, sys.executable, "-c", code, "-", config]
    done = host.run(argv, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done
    return done.stdout


def in_mounts(commands):
    return ("unshare", "-m", "sh", "-c", f'{commands} && exec "$@"', "sh")


@pytest.mark.root
def test_capability(host):
    assert look(host, "capability()").startswith("OK CAP_NET_ADMIN")
    said = look(host, "capability()", through=("setpriv", "--bounding-set=-net_admin"))
    assert said.startswith("FAIL CAP_NET_ADMIN is missing run as root")


@pytest.mark.root
def test_driver(host):
    assert look(host, "driver()").startswith("OK")
    said = look(host, "driver()", through=in_mounts("mount -t tmpfs none /dev/net"))
    assert said.startswith("FAIL /dev/net/tun: No such file")
    assert "modprobe tun" in said


@pytest.mark.parametrize(
    ("release", "state"),
    [
        ("6.18.44-fc", State.OK),
        ("6.2-rc1", State.OK),
        ("5.15.0-91-generic", State.WARN),
        ("4.9.0", State.FAIL),
    ],
)
def test_kernel(monkeypatch, release, state):
    monkeypatch.setattr(privileges.platform, "release", lambda: release)
    assert privileges.kernel().state == state


READ_ONLY = in_mounts("mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys")


@pytest.mark.root
def test_route_localnet(host):
    assert look(host, "settings(config)").startswith("OK can be set")
    said = look(host, "settings(config)", through=READ_ONLY)
    assert said.startswith("FAIL /proc/sys is read-only")
    assert "--sysctl net.ipv4.conf.default.route_localnet=1" in said
    assert look(host, "settings(config)", "tun: {listener: tun}", through=READ_ONLY).startswith(
        "OK not needed"
    )
    host.sysctl("net.ipv4.conf.default.route_localnet", 1)
    assert look(host, "settings(config)", through=READ_ONLY).startswith("OK new interfaces have it")


@pytest.mark.root
def test_ipv6(host):
    assert look(host, "ipv6()").startswith("OK is carried")
    host.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    assert look(host, "ipv6()").startswith("OK switched off")


def test_descriptors_that_suffice(monkeypatch, config):
    monkeypatch.setattr(privileges.resource, "getrlimit", lambda _: (1024, 1_048_576))
    assert privileges.descriptors(config).state == State.OK


def test_descriptors_that_do_not_suffice(monkeypatch, config):
    monkeypatch.setattr(privileges.resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(privileges, "_has", lambda capability: False)
    check = privileges.descriptors(config)
    assert check.state == State.WARN
    assert "2,016 flows at once" in check.detail
    assert "LimitNOFILE=" in check.advice


@pytest.mark.root
def test_backlog(host):
    assert host.call(privileges.backlog).state == State.OK
    host.sysctl("net.core.somaxconn", 128)
    check = host.call(privileges.backlog)
    assert (check.state, "128" in check.detail) == (State.WARN, True)


def test_instance(config):
    assert privileges.instance(config).state == State.OK
    place = Place.claim(config.state_dir)
    check = privileges.instance(config)
    assert check.state == State.WARN
    assert f"process {os.getpid()} " in check.detail
    place.close()
    assert privileges.instance(config).state == State.OK
    Place.claim(config.state_dir).close()  # looking took nothing away
