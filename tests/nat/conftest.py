"""Fixtures of the engine's tests."""

import os

import pytest
from hypothesis import settings

from tests.nat import world

# How long one example takes says nothing on a shared machine.
_before = settings.get_profile(settings.get_current_profile_name())
settings.register_profile("patient", parent=_before, deadline=None)
settings.load_profile("patient")


@pytest.fixture
def loop():
    made = world.LabLoop()
    yield made
    made.dispose()


@pytest.fixture(params=["127.0.0.1", "::1"], ids=["v4", "v6"])
def origin(request):
    made = world.Origin(request.param)
    yield made
    made.close()


@pytest.fixture
def server():
    made = world.Origin()
    yield made
    made.close()


@pytest.fixture
def no_leak():
    """The test leaves as many descriptors open as it found."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    left = {fd for fd in set(os.listdir("/proc/self/fd")) - before if os.path.exists(f"/proc/self/fd/{fd}")}
    assert not left, {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in left}
