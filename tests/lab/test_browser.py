"""Chromium on a laptop whose exits are peers: it asks the system's resolver, and knows nothing of ZigNet.

The certificates are taken for good by their keys (`--ignore-certificate-errors-spki-list`), all else is as installed.
"""

import json

import pytest

from tests.lab.peers import eventually
from zignet.lab.browser import NoPage, chromium
from zignet.lab.namespace import start_module
from zignet.lab.regions import FACTS, TARGETS, Regions

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(chromium() is None, reason="Chromium is not installed (Debian: apt install chromium)"),
]

VIDEO = "www.video.example"
PUBLIC = "https://www.plain.example/"  # a documentation address, which Chromium takes for a public one
BLOCKED = "LocalNetworkAccessPermissionDenied"


@pytest.fixture(scope="module")
def net():
    with Regions() as regions:
        regions.up()
        yield regions
        for name in ("laptop", "peer_us", "peer_jp"):
            assert "Traceback" not in regions[name].node.log()


@pytest.fixture(scope="module")
def browser(net):
    with net.browser() as started:
        yield started


def fetched(browser, url):
    """What a script of the page reads there."""
    return browser.run(f"fetch({json.dumps(url)}).then(answer => answer.json())")


def reason(browser, url):
    """Why a script of the page may not."""
    browser.call("Network.enable")
    browser.events.clear()
    with pytest.raises(RuntimeError, match="Failed to fetch"):
        fetched(browser, url)
    failed = browser.wait("Network.loadingFailed")
    return failed.get("corsErrorStatus", {}).get("corsError") or failed["errorText"]


@pytest.mark.parametrize(("name", "region"), TARGETS)
def test_each_site_shows_the_edition_of_its_exit(net, browser, name, region):
    text = browser.open(f"https://{name}/")
    assert text.startswith(f"edition {region}")
    exits = {"us": "peer_us", "jp": "peer_jp", "here": "laptop"}
    assert browser.run(FACTS)["client"] == net[exits[region]].address


def test_http3_through_a_peer(net):
    """QUIC: datagrams to a fake address, and on after the node was started again."""
    with net.browser(f"--origin-to-force-quic-on={VIDEO}:443") as browser:
        browser.open(f"https://{VIDEO}/")
        seen = browser.run(FACTS)
        assert (seen["server"], seen["protocol"]) == ("edition us", "h3")
        assert seen["client"] == net["peer_us"].address
        node = net["laptop"].node
        node.kill()
        node.start()
        assert browser.reload().startswith("edition us")
        assert browser.run(FACTS)["protocol"] == "h3"


def test_a_site_that_refuses(browser):
    """What Chromium is told is what the exit was told."""
    with pytest.raises(NoPage, match="ERR_CONNECTION_REFUSED"):
        browser.open(f"https://{VIDEO}:4444/")
    with pytest.raises(NoPage, match="ERR_CONNECTION_REFUSED"):
        browser.reload()


def test_a_public_page_may_fetch_from_fake_addresses(net, browser):
    browser.open(PUBLIC)
    for name, region in TARGETS[:2]:
        assert fetched(browser, f"https://{name}/")["server"] == f"edition {region}"
    for kind in ("A", "AAAA"):
        address = net.address(VIDEO, kind)
        assert address.startswith(("198.19.", "2001:2::"))
        url = f"https://[{address}]/" if ":" in address else f"https://{address}/"
        assert fetched(browser, url)["server"] == "edition us"


def test_a_public_page_may_not_fetch_from_addresses_of_peers(net, browser):
    """The reason why fake addresses are not of the ZigNet range. A person may still open such a page."""
    peer = net["peer_us"]
    name = "peer_us.zignet"
    files = [str(file) for file in net.authority.issue(name)]
    plan = net.directory / "own-site.json"
    plan.write_text(json.dumps({"sites": {name: [peer.address]}, "files": {name: files}}))
    start_module(peer.namespace, "zignet.lab.servers", str(plan))
    laptop = net["laptop"]
    with net.browser() as browser:  # it trusts the new certificate too
        browser.open(PUBLIC)
        for host in (name, laptop.inner(peer), f"[{laptop.inner(peer, 6)}]"):
            assert reason(browser, f"https://{host}/") == BLOCKED
        browser.open(f"https://{name}/")
        assert browser.run(FACTS)["name"] == name


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_browser_that_knew_the_address_from_before_a_restart(net, how):
    with net.browser() as browser:
        browser.open(f"https://{VIDEO}/")
        before = net.address(VIDEO)
        node = net["laptop"].node
        getattr(node, how)()
        node.start()
        # Nobody has asked the new node for the name yet: the address alone says what is meant.
        done = net.curl(VIDEO, "--resolve", f"{VIDEO}:443:{before}")
        assert json.loads(done.stdout)["server"] == "edition us", done.stderr
        net.wait_for_names()
        # It looks at a changed resolv.conf a moment later, and after a stop there are two changes.
        eventually(lambda: browser.reload().startswith("edition us"), 30)
        assert net.address(VIDEO) == before
