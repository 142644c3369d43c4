"""What `zignet doctor` says of names."""

from __future__ import annotations

import pytest

from zignet.system import State
from zignet.system.names import Mode
from zignet.system.resolution import check

from .conftest import Host

pytestmark = pytest.mark.root


def test_what_would_be(host: Host) -> None:
    before = host.snapshot()
    found = host.call(check, host.wanted(), host.state_dir, False)
    assert (found.state, found.detail[:12]) == (State.OK, "resolvconf: ")
    assert host.call(check, host.wanted(captures=True), host.state_dir, False).detail.startswith("hijack: ")
    assert host.snapshot() == before
    assert not host.state_dir.exists()


def test_what_can_not_be(host: Host) -> None:
    found = host.call(check, host.wanted(Mode.DNSMASQ), host.state_dir, False)
    assert found.state == State.FAIL
    assert "`dns.mode: dnsmasq` can't be: dnsmasq does not run here" in found.detail
    only = host.wanted().servers[:1]
    found = host.call(check, host.wanted(servers=only), host.state_dir, False)
    assert (found.state, "must ask 127.0.0.1:53530" in found.detail) == (State.WARN, True)
    assert host.call(check, host.wanted(Mode.OFF), host.state_dir, False).state == State.OK


def test_what_was_left(host: Host) -> None:
    host.integrate()
    assert "dns restore" in host.call(check, host.wanted(), host.state_dir, False).advice
    running = host.call(check, host.wanted(), host.state_dir, True)
    assert (running.state, running.detail[:12]) == (State.OK, "resolvconf: ")
    host.resolv_conf.write_text("nameserver 203.0.113.7\n")
    found = host.call(check, host.wanted(), host.state_dir, True)
    assert (found.state, "somebody else" in found.detail) == (State.WARN, True)
