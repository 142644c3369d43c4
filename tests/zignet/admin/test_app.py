"""The endpoints over real sockets, answered by the real control service."""

from __future__ import annotations

import http.client
import json
import logging
import math
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.zignet.admin.conftest import FRIEND, GUEST, OWN, STRANGER, TOKEN, Served, api
from zignet.contacts import Store
from zignet.identity import PublicKey
from zignet.policy.judge import Busy, SourceStatus, Step, Verdict
from zignet.policy.rules import Said

BOTH = pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])


@BOTH
def test_whoami(served: Served, tcp: bool) -> None:
    answer = served.ask("/api/whoami", tcp=tcp)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == {
        "key": OWN.name,
        "base58": OWN.base58,
        "hex": OWN.hex,
        "host": f"{OWN.name}.zignet",
        "address": "100.64.0.1",
        "address6": None,
        "version": "0.1.0",
    }
    assert served.ask("/api/whoami", host=f"{OWN.name}.zignet" + (f":{served.port}" if tcp else ""), tcp=tcp)


def test_whoami_of_a_node_without_peers(tmp_path: Path, node: Any) -> None:
    node.shown = node.shown | {"identity": None, "peers": None, "names": None}
    with api(tmp_path, node) as served:
        assert served.ask("/api/whoami").json["key"] is None
        assert served.ask("/metrics").status == 200


@BOTH
def test_headers_of_all_answers(served: Served, tcp: bool) -> None:
    for path in ("/api/whoami", "/nowhere", "/api/identity"):
        headers = served.ask(path, tcp=tcp).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers
        assert "alt-svc" not in headers


def test_identity(served: Served, node: Any) -> None:
    address = node.open_peers[0]["address"]
    for query in (
        f"ip={address}",
        f"pubkey={FRIEND.name}",
        f"pubkey={FRIEND.base58}",
        f"pubkey={FRIEND.hex}",
    ):
        found = served.ask(f"/api/identity?{query}").json
        assert (found["key"], found["name"], found["address"]) == (FRIEND.name, "friend", address)
        assert (found["online"], found["own"]) == (True, False)
    for query, status, says in (
        ("ip=100.64.9.9", 404, "nobody here has the address 100.64.9.9"),
        ("ip=nowhere", 400, "ip is not an IP address"),
        ("pubkey=abc", 400, "pubkey is not a key"),
        ("", 400, "either ip or pubkey"),
        (f"ip=1.2.3.4&pubkey={FRIEND.name}", 400, "either ip or pubkey"),
    ):
        answer = served.ask(f"/api/identity?{query}")
        assert answer.status == status
        assert says in answer.error


def test_peers(served: Served) -> None:
    for query, names in (
        ("", ["friend"]),
        ("?which=connected", ["friend"]),
        ("?which=configured", ["friend", "guest"]),
        ("?which=all", ["friend", "guest", ""]),
        ("?which=all&offset=1&limit=1", ["guest"]),
    ):
        assert [peer["name"] for peer in served.ask(f"/api/peers{query}").json["peers"]] == names
    assert served.ask("/api/peers?which=all&offset=1&limit=1").json["next"] == 2
    assert served.ask("/api/peers?which=all&offset=2&limit=1").json["next"] is None


@pytest.fixture
def with_contacts(tmp_path: Path, node: Any) -> Any:
    (tmp_path / "book").mkdir()
    with api(tmp_path, node, contacts=tmp_path / "book") as running:
        yield running


def change(served: Served, method: str, path: str, document: Any, tcp: bool = False, **headers: str) -> Any:
    body = json.dumps(document).encode()
    return served.ask(path, method, tcp, body, **({"content_type": "application/json"} | headers))


def test_contacts(with_contacts: Served, tmp_path: Path, node: Any) -> None:
    served = with_contacts
    assert served.ask("/api/contacts").json == {"contacts": [], "next": None}
    new = {"name": "alice", "key": FRIEND.base58, "note": "met in Tokyo", "tags": ["Friends"]}
    found = change(served, "POST", "/api/contacts", new).json
    address = node.open_peers[0]["address"]
    assert found["key"] == FRIEND.name
    assert (found["tags"], found["online"], found["address"]) == (["friends"], True, address)
    link = f"zignet:{GUEST.name}?name=bob"
    assert change(served, "POST", "/api/contacts", {"key": link}).json["name"] == "bob"
    assert [each["name"] for each in served.ask("/api/contacts").json["contacts"]] == ["alice", "bob"]
    page = served.ask("/api/contacts?limit=1&offset=0").json
    assert ([each["name"] for each in page["contacts"]], page["next"]) == (["alice"], 1)
    found = change(served, "PATCH", "/api/contacts/alice", {"name": "Carol", "tags": []}).json
    assert (found["name"], found["note"], found["tags"]) == ("Carol", "met in Tokyo", [])
    assert served.ask(f"/api/contacts/{GUEST.name}", "DELETE").json["name"] == "bob"
    store = Store(tmp_path / "book")  # the same file that the command line has
    assert [each.name for each in store] == ["Carol"]
    store.close()


def test_contacts_that_can_not_be(with_contacts: Served) -> None:
    served = with_contacts
    alice = {"name": "alice", "key": FRIEND.name}
    assert change(served, "POST", "/api/contacts", alice).status == 200
    for method, path, document, status, says in (
        ("POST", "/api/contacts", alice, 409, "alice"),
        ("POST", "/api/contacts", {"name": "al", "key": FRIEND.name}, 409, "known already"),
        ("POST", "/api/contacts", {"name": "bob"}, 400, "key is missing"),
        ("POST", "/api/contacts", {"name": "bob", "key": "x"}, 400, "x"),
        ("POST", "/api/contacts", {"name": "not a name", "key": GUEST.name}, 400, "name"),
        ("POST", "/api/contacts", {"nmae": "bob", "key": GUEST.name}, 400, "did you mean name"),
        ("POST", "/api/contacts", {"name": 7, "key": GUEST.name}, 400, "name is not"),
        ("POST", "/api/contacts", {"name": "b", "key": GUEST.name, "tags": "x"}, 400, "tags is not"),
        ("POST", "/api/contacts", [], 400, "not an object"),
        ("PATCH", "/api/contacts/nobody", {}, 404, "nobody"),
        ("PATCH", "/api/contacts/alice", {"name": "-"}, 409, "-"),
        ("DELETE", "/api/contacts/nobody", {}, 404, "nobody"),
    ):
        answer = change(served, method, path, document)
        assert (answer.status, says in answer.error) == (status, True), answer.body
    assert change(served, "POST", "/api/contacts", alice, content_type="text/plain").status == 415
    assert served.ask("/api/contacts", "POST", body=b"{", content_type="application/json").status == 400
    assert (
        served.ask("/api/contacts", "POST", body=b"[" * 9999, content_type="application/json").status == 400
    )
    assert change(served, "POST", "/api/contacts", alice, tcp=True).status == 401


def test_a_node_without_contacts(served: Served) -> None:
    assert served.ask("/api/contacts").status == 404


def test_all_pages_of_flows(served: Served, node: Any, make_flow: Any) -> None:
    node.open_flows = [make_flow(number) for number in range(2500, 0, -1)]
    seen: list[int] = []
    path = "/api/flows"
    while True:
        page = served.ask(path).json
        assert len(page["flows"]) <= 1000
        seen += [flow["id"] for flow in page["flows"]]
        if page["next"] is None:
            break
        path = f"/api/flows?before={page['next']}"
    assert seen == list(range(2500, 0, -1))
    assert [flow["id"] for flow in served.ask("/api/flows?ended=true&before=2&limit=5").json["flows"]] == [
        1,
        0,
    ]


def test_routes(served: Served, node: Any) -> None:
    page = served.ask("/api/routes?limit=1").json
    assert ([rule["exit"] for rule in page["rules"]], page["next"]) == (["tokyo"], 1)
    page = served.ask("/api/routes?offset=1").json
    assert ([rule["exit"] for rule in page["rules"]], page["next"]) == (["direct"], None)
    found = served.ask(
        "/api/routes/explain?name=www.video.example&address=203.0.113.5&port=8443&proto=udp"
    ).json
    assert found["exit"] == "tokyo"
    question = {"name": "www.video.example", "address": "203.0.113.5", "port": 8443, "protocol": "udp"}
    assert node.questions == [question]
    assert served.ask("/api/routes/explain").status == 400


def test_exits_dns_status(served: Served, node: Any) -> None:
    assert [each["name"] for each in served.ask("/api/exits").json["exits"]] == ["tokyo"]
    assert served.ask("/api/dns").json == node.dns.shown
    assert served.ask("/api/dns/why?name=www.video.example").json["source"] == "fake"
    assert node.dns.asked == [("www.video.example", "A")]
    assert served.ask("/api/status").json == node.shown


def test_no_names_are_answered_here(served: Served, node: Any) -> None:
    node.dns = None
    for method, path in (("GET", "/api/dns"), ("GET", "/api/dns/why?name=a"), ("POST", "/api/dns/flush")):
        answer = served.ask(path, method)
        assert answer.status == 404
        assert "answers no names" in answer.error


def test_changes_by_the_unix_socket(served: Served, node: Any) -> None:
    assert served.ask("/api/dns/flush", "POST").json == {"flushed": 12}
    assert node.dns.flushed == 1
    assert served.ask("/api/reload", "POST").json == {"reloaded": True}
    node.reload_error = "line 3: no"
    answer = served.ask("/api/reload", "POST")
    assert (answer.status, answer.error) == (409, "line 3: no")
    assert served.ask(f"/api/peers/{FRIEND.name}/ping", "POST").json["rtt_s"] > 0
    answer = served.ask("/api/peers/nobody/ping", "POST")
    assert (answer.status, answer.error) == (404, "nobody here is called nobody")


def test_changes_by_tcp(served: Served, node: Any) -> None:
    for method, path in (("POST", "/api/dns/flush"), ("POST", "/api/reload"), ("POST", "/api/peers/a/ping")):
        for wrong in ({}, {"authorization": "Bearer x"}, {"authorization": f"Basic {TOKEN}"}):
            answer = served.ask(path, method, tcp=True, **wrong)
            assert answer.status == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert "admin-token" in answer.error
    assert (node.dns.flushed, node.pinged) == (0, [])
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert served.ask("/api/dns/flush", "POST", tcp=True, **bearer).json == {"flushed": 12}
    assert served.ask("/api/reload", "POST", tcp=True, **bearer, origin=f"http://{served.host}").status == 200
    assert served.ask("/api/reload", "POST", tcp=True, **bearer, origin="http://evil.example").status == 403


def test_a_body_that_nobody_wants_is_read_and_left(served: Served) -> None:
    assert served.ask("/api/reload", "POST", body=b"{}" * 100).status == 200
    assert served.ask("/api/reload", "POST", body=b"x" * (65 << 10)).status == 413


class Sample:
    """A judge."""

    busy = False

    async def decide(self, key: PublicKey) -> Verdict:
        if self.busy:
            raise Busy("too many keys are being decided on")
        step = Step(1, "file a.txt", Said.MATCH, "line 3")
        return Verdict(True, "Policy 1 (file a.txt) admits this key: line 3.", math.inf, False, (step,))

    def status(self) -> list[SourceStatus]:
        return [
            SourceStatus("file a.txt", asked=4, last_error="gone", last_error_age_s=1.5, notes=("line 7",))
        ]


def test_policy(tmp_path: Path, node: Any) -> None:
    judge = Sample()
    with api(tmp_path, node, judge=lambda: judge) as served:
        found = served.ask(f"/api/policy/check?pubkey={STRANGER.base58}&proto=tcp&port=22").json
        assert found == {
            "key": STRANGER.name,
            "allowed": True,
            "reason": "Policy 1 (file a.txt) admits this key: line 3.",
            "valid_s": None,
            "provisional": False,
            "steps": [{"policy": 1, "source": "file a.txt", "said": "match", "reason": "line 3"}],
            "service": {"proto": "tcp", "port": 22, "allowed": False, "reason": "Because."},
        }
        found = served.ask(f"/api/policy/check?pubkey={FRIEND.name}").json
        assert (found["allowed"], found["steps"]) == (True, [])
        assert "peers" in found["reason"]
        assert served.ask("/api/policy/check").status == 400
        assert served.ask(f"/api/policy/check?pubkey={STRANGER.hex}&port=22").status == 400
        judge.busy = True
        answer = served.ask(f"/api/policy/check?pubkey={STRANGER.name}")
        assert (answer.status, answer.error) == (503, "no decision now: too many keys are being decided on")
        (source,) = served.ask("/api/policy").json["sources"]
        assert (source["label"], source["asked"], source["last_error"]) == ("file a.txt", 4, "gone")
        decided = served.app.ctx.api.decided
        served.app.ctx.test_loop.call_soon_threadsafe(decided, GUEST, Verdict(False, "No.", 12.3456, False))
        deadline = time.monotonic() + 20
        while not (decisions := served.ask("/api/policy").json["decisions"]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert (decisions[0]["key"], decisions[0]["reason"], decisions[0]["valid_s"]) == (
            GUEST.name,
            "No.",
            12.346,
        )


def test_no_policies(served: Served, node: Any) -> None:
    assert served.ask("/api/policy").json == {"sources": [], "decisions": []}
    assert served.ask(f"/api/policy/check?pubkey={FRIEND.name}").json["allowed"] is True
    assert served.ask(f"/api/policy/check?pubkey={STRANGER.name}").status == 503  # no judge yet


def test_health_and_metrics(served: Served, node: Any) -> None:
    assert served.ask("/healthz").json == {"state": "running"}
    answer = served.ask("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    lines = answer.body.decode().splitlines()
    for line in (
        'zignet_info{mode="global",state="running",version="0.1.0"} 1.0',
        'zignet_flows{protocol="tcp"} 2.0',
        'zignet_exit_bytes_total{direction="down",exit="tokyo"} 5e+06',
        'zignet_dropped_datagrams_total{reason="handshake: wrong mac1"} 5.0',
        "zignet_peers_connected 2.0",
        'zignet_dns_queries_total{outcome="fake"} 80.0',
    ):
        assert line in lines
    assert f"zignet_control_restarts_total {float(node.shown['control']['restarts'])}" in lines
    for name in ("zignet_resident_memory_bytes ", "zignet_control_process_resident_memory_bytes "):
        assert any(line.startswith(name) for line in lines)


@BOTH
def test_head_has_no_body(served: Served, tcp: bool) -> None:
    for path in ("/api/whoami", "/metrics", "/openapi.json", "/nowhere"):
        answer = served.ask(path, "HEAD", tcp=tcp)
        assert answer.body == b""
        assert int(answer.headers["content-length"]) > 20


def test_nothing_is_here(served: Served) -> None:
    for path in ("/", "/api", "/api/whoami/", "/api/../etc/passwd", "/api/peers//ping", "/%2e%2e"):
        answer = served.ask(path)
        assert answer.status == 404
        assert "/openapi.json" in answer.error


def test_methods(served: Served) -> None:
    for method, path, allowed in (
        ("POST", "/api/whoami", "GET, HEAD"),
        ("DELETE", "/api/contacts", "GET, HEAD, POST"),
        ("GET", "/api/reload", "POST"),
        ("TRACE", "/api/contacts/alice", "PATCH, DELETE"),
        ("PUT", "/openapi.json", "GET, HEAD"),
    ):
        answer = served.ask(path, method)
        assert answer.status == 405
        assert answer.headers["allow"] == allowed
        assert allowed in answer.error


def test_unknown_parameters(served: Served) -> None:
    answer = served.ask("/api/identity?pubky=x")
    assert (answer.status, answer.error) == (400, "unknown parameter pubky: did you mean pubkey?")
    assert served.ask("/api/whoami?x=1").status == 400


def test_a_fault_of_our_own_is_told_without_a_traceback(
    served: Served, node: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> None:
        raise RuntimeError("the secret is 42")

    monkeypatch.setattr(served.app.ctx.api, "_status", broken)
    with caplog.at_level(logging.ERROR):
        answer = served.ask("/api/status")
    assert answer.status == 500
    assert "42" not in answer.error
    assert "the secret is 42" in caplog.text  # the log is for whoever repairs it


def test_the_packet_process_is_away(tmp_path: Path, node: Any) -> None:
    hold = threading.Event()

    with api(tmp_path, node) as served:
        served.ask("/api/whoami")
        client = served.app.ctx.api._node
        served.app.ctx.test_loop.call_soon_threadsafe(lambda: (client.close(), hold.set()))
        assert hold.wait(10)
        for path in ("/api/status", "/api/peers", "/healthz", "/metrics", "/api/flows"):
            deadline = time.monotonic() + 20
            while (answer := served.ask(path)).status == 200:  # it was kept for a moment
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert answer.status == 503
            assert answer.headers["retry-after"] == "1"
            assert "packet process" in answer.error
        assert served.ask("/api/whoami").status == 200  # that is known already
        assert served.ask("/openapi.json").status == 200


def test_a_connection_carries_many_requests(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    for _ in range(50):
        connection.request("GET", "/api/whoami")
        answer = connection.getresponse()
        assert json.loads(answer.read())["key"] == OWN.name
    connection.request("GET", "/nowhere")
    assert connection.getresponse().read()
    connection.close()


def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    one = b"GET /api/%s HTTP/1.1\r\nHost: admin.zignet\r\n\r\n"
    with served.connect() as end:
        end.sendall(
            one % b"whoami"
            + one % b"exits"
            + one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") % b"dns"
        )
        heard = b""
        while more := end.recv(65536):
            heard += more
    assert heard.count(b"HTTP/1.1 200") == 3
    assert heard.index(b'"base58"') < heard.index(b'"exits"') < heard.index(b'"mechanism"')


def test_a_slow_ping_holds_up_nobody(served: Served, node: Any) -> None:
    node.pings = [None] * 40 + node.pings  # 2 s
    with served.connect() as end:
        end.sendall(b"POST /api/peers/a/ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert served.ask("/api/status").status == 200
        end.settimeout(0.1)
        with pytest.raises(TimeoutError):
            end.recv(1)
        end.settimeout(20)
        assert b" 200 " in end.recv(65536)


def test_who_connects_from_another_address_is_not_this_host(served: Served) -> None:
    """As a peer does, whose packets reach our address: hung up on, and not a byte is read."""
    with socket.socket() as end:
        end.settimeout(20)
        end.bind(("127.0.0.2", 0))
        end.connect(("127.0.0.1", served.port))
        try:
            end.sendall(f"GET /api/whoami HTTP/1.1\r\nHost: {served.host}\r\n\r\n".encode())
            assert end.recv(65536) == b""
        except ConnectionError:
            pass
    assert served.ask("/api/whoami", tcp=True).status == 200


def test_a_socket_that_is_no_unix_and_no_tcp_socket_of_ours(served: Served) -> None:
    """Nothing else listens than what was handed over."""
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", served.port), 5)
