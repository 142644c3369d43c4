"""Three nodes that all talk to each other at once."""

import itertools
import os
import signal
import subprocess
import time
from contextlib import ExitStack

import pytest

from tests.lab.peers import Stream, servers
from zignet.lab.hosts import Hosts

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def net():
    with Hosts("a", "b", "c") as hosts, ExitStack() as stack:
        hosts.start_all()
        for host in hosts:
            stack.enter_context(servers(host))
        yield hosts
        assert not any("Traceback" in host.node.log() for host in hosts)


def test_all_call_each_other_at_once(net):
    """Initiations that cross each other, six of them."""
    begun = [
        near.namespace.popen(
            ["ping", "-q", "-c3", "-i0.1", near.inner(far)], stdout=subprocess.PIPE, text=True
        )
        for near, far in itertools.permutations(net, 2)
    ]
    said = [ping.communicate(timeout=10)[0] for ping in begun]
    assert all(" 0% packet loss" in text for text in said), said
    for near, far in itertools.permutations(net, 2):
        assert near.peer(far)["path"] == far.endpoint()


@pytest.fixture(scope="module")
def streams(net):
    """One from each to each, IPv4 and IPv6; every byte is compared."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(Stream(near, near.inner(far, 4 if number % 2 else 6)))
            for number, (near, far) in enumerate(itertools.permutations(net, 2))
        ]


def go_on(streams):
    for stream in streams:
        stream.goes_on()


def test_streams_between_all(streams):
    go_on(streams)


def test_a_node_that_is_held_up(net, streams):
    """Stopped by a signal for a while, as under a debugger; what came meanwhile is not too much for it."""
    process = net["a"].node.process
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(1)
    os.kill(process.pid, signal.SIGCONT)
    go_on(streams)


def test_a_cable_that_is_pulled(net, streams):
    net["a"].namespace.link("eth0", state="down")
    time.sleep(1)
    net["a"].namespace.link("eth0", state="up")
    go_on(streams)
