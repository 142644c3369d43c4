"""What was led here stays led here: others' changes are seen, and repaired, but not without end."""

from __future__ import annotations

import logging
from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from nat.loop import Timer
from zignet.dns import lead as module
from zignet.dns.lead import LOOK_S, MOST_REPAIRS, REPAIRS_S, Lead
from zignet.system.names import Applied, Mode, NamesError, Restored, Server, Wanted

WANTED = Wanted("zig0", 5, (Server(ip_address("100.64.0.1")),), ("zignet",), Mode.AUTO)
FOREIGN = ("/etc/resolv.conf was changed by somebody else since",)


class HandLoop:
    """A loop whose time passes when the test says so."""

    def __init__(self):
        self.now = 1000.0
        self.timers = []
        self.mailbox = []

    def call_later(self, delay_s, callback):
        self.timers.append(Timer(self.now + delay_s, callback))
        return self.timers[-1]

    def from_thread(self, callback):
        self.mailbox.append(callback)

    @property
    def pending(self):
        return [timer for timer in self.timers if timer.callback is not None]


class System:
    """What `integrate` and `drift` would find."""

    def __init__(self, monkeypatch, tmp_path):
        self.loop = HandLoop()
        self.applied = Applied(Mode.RESOLVCONF, "nobody else governs names here")
        self.drift = ()
        self.written = []
        self.told = []
        monkeypatch.setattr(module, "integrate", self.integrate)
        monkeypatch.setattr(module, "drift", lambda state_dir: self.drift)
        monkeypatch.setattr(module, "restore", lambda state_dir: Restored())
        self.lead = Lead(self.loop, tmp_path, self.told.append)

    def integrate(self, wanted, state_dir):
        self.written.append(wanted)
        if isinstance(self.applied, Exception):
            raise self.applied
        self.drift = ()
        return self.applied

    def settle(self):
        if self.lead._thread is not None:
            self.lead._thread.join(30.0)
        while self.loop.mailbox:
            self.loop.mailbox.pop()()

    def want(self, wanted=WANTED):
        self.lead.want(wanted)
        self.settle()

    def run(self, seconds):
        """Time passes; what was begun by it is finished."""
        end = self.loop.now + seconds
        while due := [timer for timer in self.loop.pending if timer.when <= end]:
            timer = min(due, key=lambda each: each.when)
            self.loop.now, callback = timer.when, timer.callback
            timer.cancel()
            callback()
            self.settle()
        self.loop.now = end


@pytest.fixture
def system(monkeypatch, tmp_path):
    return System(monkeypatch, tmp_path)


def test_what_nobody_changes_is_written_once(system):
    system.want()
    system.run(3600.0)
    assert system.written == [WANTED]
    assert len(system.loop.pending) == 1


def test_what_somebody_changes_is_written_again_and_said_once(system, caplog):
    system.want()
    system.drift = FOREIGN
    system.applied = Applied(Mode.RESOLVCONF, "as before", upstreams=("192.0.2.99",))
    with caplog.at_level(logging.WARNING):
        system.run(LOOK_S)
        system.run(600.0)
    assert system.written == [WANTED] * 2
    assert system.told[-1].upstreams == ("192.0.2.99",)  # what is there now is asked from now on
    assert [record.message for record in caplog.records] == [f"names: {FOREIGN[0]}; they are led here again"]


def test_somebody_who_insists_has_his_way(system, caplog):
    system.want()
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            system.drift = FOREIGN
            system.run(LOOK_S)
    assert len(system.written) == 1 + MOST_REPAIRS
    assert [record.levelname for record in caplog.records] == ["WARNING"] * MOST_REPAIRS + ["ERROR"]
    assert system.loop.pending == []
    # Until the person has done something about it.
    system.want(Wanted("zig0", 5, WANTED.servers, ("zignet", "video.example"), Mode.AUTO))
    system.drift = FOREIGN
    system.run(LOOK_S)
    assert len(system.written) == 3 + MOST_REPAIRS


def test_a_change_now_and_then_is_always_repaired(system):
    system.want()
    for _ in range(20):
        system.drift = FOREIGN
        system.run(REPAIRS_S / MOST_REPAIRS + LOOK_S)
    assert len(system.written) == 21


@pytest.mark.parametrize("applied", [Applied(Mode.OFF, "as configured"), NamesError("resolved is not there")])
def test_nothing_led_here_is_nothing_to_look_after(system, applied):
    system.applied = applied
    system.want()
    system.drift = FOREIGN
    system.run(3600.0)
    assert len(system.written) == 1
    assert system.loop.pending == []


def test_a_repair_that_does_not_work_is_the_last(system):
    system.want()
    system.drift = FOREIGN
    system.applied = NamesError("/etc is read-only")
    system.run(3600.0)
    assert len(system.written) == 2
    assert system.lead.applied.mechanism is Mode.OFF


def test_a_stop_ends_it(system):
    system.want()
    system.lead.close()
    system.drift = FOREIGN
    system.run(3600.0)
    assert len(system.written) == 1


def test_a_change_while_other_domains_are_led_here(system):
    """The thread is at it: it is not begun twice."""
    system.want()
    system.drift = FOREIGN
    system.lead._thread = SimpleNamespace(join=lambda *_: None)
    system.run(LOOK_S)
    assert len(system.written) == 1
