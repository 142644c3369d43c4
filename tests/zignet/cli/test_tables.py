"""Tables: they fit, and nothing from the network reaches the terminal raw."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from zignet.cli import flows, peers, status


def render(thing: object, width: int = 100) -> str:
    output = io.StringIO()
    Console(file=output, width=width).print(thing)
    return output.getvalue()


@pytest.mark.parametrize("width", [80, 100, 200])
def test_flows_fit(make_flow: Any, width: int) -> None:
    long = make_flow(
        3,
        name="a-very-long-name-of-a-machine.in-a-very-long-domain.video.example",
        rule="DOMAIN-SUFFIX,a-very-long-domain.video.example,office",
        protocol="udp",
        known_by="quic",
        ech=True,
        state="established",
    )
    text = render(flows.table([long, make_flow(2)], width), width)
    lines = text.splitlines()
    assert all(len(line) <= width for line in lines)
    assert len([line for line in lines if "tokyo" in line]) == 2  # one line for each
    assert "56.8M" in text
    assert "12s" in text


def test_what_a_flow_says(make_flow: Any) -> None:
    text = render(flows.table([make_flow(1)], 100))
    row = next(line for line in text.splitlines() if "video" in line)
    for part in (
        "www.video.example:443",
        "sni",
        "*.video.example",
        "tokyo",
        "1.2K",
        "56.8M",
        "12s",
        "established",
    ):
        assert part in row
    assert "1 flow" in text


def test_without_a_name_the_address(make_flow: Any) -> None:
    text = render(flows.table([make_flow(1, name=None, known_by="address", protocol="udp")], 100))
    assert "203.0.113.5:443/udp" in text


def test_errors_stand_below(make_flow: Any) -> None:
    ended = [
        make_flow(number, state="failed", error="it did [not] answer", ended_s=1.0) for number in range(3)
    ]
    text = render(flows.table([*ended, make_flow(4)], 100))
    assert "4 flows" in text
    assert "3 × it did [not] answer" in text


def test_rows_are_limited(make_flow: Any) -> None:
    text = render(flows.table([make_flow(number) for number in range(50)], 100, rows=10))
    assert text.count("www.video.example") == 10
    assert "50 flows, the newest 10" in text


def test_no_flows() -> None:
    assert "0 flows" in render(flows.table([], 100))


def test_names_are_strangers(make_flow: Any) -> None:
    """Neither control characters nor markup of a name take effect."""
    text = render(
        flows.table([make_flow(1, name="\x1b[2J\x07[red]x[/]", rule="[bold]\r\n", exit="\x9b31m")], 100)
    )
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\r" not in text
    assert "\x9b" not in text
    assert "[red]x" in text


def test_status(node: Any) -> None:
    output = io.StringIO()
    status.show(Console(file=output, width=100), node.status())
    text = output.getvalue()
    assert all(len(line) <= 100 for line in text.splitlines())
    for part in ("0.1.0", "compiled", "zig0", "100.64.0.1", "4 rules", "1h02m", "tokyo", "192.0.2.10:1080"):
        assert part in text
    assert "host unreachable (1m01s ago)" in text
    assert "3 malformed" in text


def test_status_shows_a_failed_reload(node: Any) -> None:
    answer = node.status()
    answer = {**answer, "config": {**answer["config"], "last_reload_error": "line 3: [oops]"}}
    output = io.StringIO()
    status.show(Console(file=output, width=100), answer)
    assert "line 3: [oops]" in output.getvalue()


def show_status(answer: Any, width: int = 100) -> str:
    output = io.StringIO()
    status.show(Console(file=output, width=width), answer)
    return output.getvalue()


def test_flows_that_exits_carry(node: Any, make_peer: Any) -> None:
    assert "straight to peers" not in show_status(node.status())
    counted = {**node.status()["flows"], "past_nat": 5}
    shown = row_of(show_status({**node.status(), "flows": counted}, 200), "flows")
    assert "5 of them straight to peers" in shown
    some = [make_peer(1, exit_flows=31), make_peer(2, guest_flows=42), make_peer(3)]
    for width in (80, 100, 200):
        text = render(peers.table(some, width), width)
        assert all(len(line) <= width for line in text.splitlines())
        assert "flows: 31 by their exits, 42 of theirs by ours" in " ".join(text.split())
    heading, first, second, *_ = (line for line in text.splitlines() if line.strip(" ─"))
    assert "by it" in heading
    assert " 31 " in first
    assert " 42 " in f"{second} "
    assert "by it" not in render(peers.table([make_peer(1)], 200), 200)


def row_of(text: str, label: str) -> str:
    """The row with this label, its folded lines joined."""
    lines = text.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(label))
    indent = len(lines[at]) - len(lines[at][len(label) :].lstrip())
    parts = [lines[at][indent:]]
    for line in lines[at + 1 :]:
        if line[:indent].strip() or not line.strip():
            break
        parts.append(line[indent:])
    return "".join(part.rstrip() for part in parts)


@pytest.mark.parametrize("width", [80, 100, 200])
def test_status_says_who_the_node_is_and_how_its_peers_are(node: Any, width: int) -> None:
    answer = node.status()
    text = show_status(answer, width)
    assert all(len(line) <= width for line in text.splitlines())
    identity = row_of(text, "identity").replace(" ", "")
    assert identity == f"{answer['identity']['key']}udp://[::]:51830AES-256-GCM"
    folded = row_of(text, "peers").replace(" ", "")
    assert folded == "3peers,2connected,1notconfirmed,14handshakes"
    assert row_of(text, "of peers, dropped").replace(" ", "") == "5handshake:wrongmac1,2nosuchsession"


def test_status_says_that_the_node_is_under_load(node: Any) -> None:
    answer = node.status()
    answer = {**answer, "peers": {**answer["peers"], "under_load": True, "dropped": {}}}
    text = show_status(answer)
    assert "under load" in row_of(text, "peers")
    assert "of peers, dropped" not in text


def test_status_of_a_node_without_peers(node: Any) -> None:
    text = show_status({**node.status(), "identity": None, "peers": None})
    assert "identity" not in text
    assert "peers" not in text
    assert "zig0" in text


def test_status_says_how_names_are_answered(node: Any) -> None:
    text = show_status(node.status(), 200)
    assert "80 fake, 3 zone, 40 forwarded" in row_of(text, "names")
    assert "192.0.2.53:53; 1 of 44 queries open" in row_of(text, "name servers")
    assert "12 of 65533 given" in row_of(text, "fake addresses")
    assert "2 from another host" in row_of(text, "of names, dropped")


def test_status_of_a_node_without_names(node: Any) -> None:
    text = show_status({**node.status(), "names": None})
    assert "name servers" not in text


def columns(table: Any) -> list[str]:
    return [str(column.header) for column in table.columns]


EVERY = ["peer", "key", "address", "path", "handshake", "received", "sent", "rtt", "loss"]
LONG = "a-very-long-name-of-a-peer-in-some-far-office-building-eu-west"
LONG_PATH = "[2001:db8:1234:5678:9abc:def0:1234:5678]:51830"


@pytest.mark.parametrize("width", [80, 90, 100, 120, 160, 200])
def test_peers_fit(make_peer: Any, width: int) -> None:
    """One line each, and whatever is shown but names and paths is shown whole."""
    listed = [
        make_peer(2),
        make_peer(3, name=LONG, path=LONG_PATH, rtt_s=12.345, loss=1.0, handshake_age_s=7380.0),
        make_peer(1, state="connecting", received=999_999, address="100.127.255.254"),
    ]
    table = peers.table(listed, width)
    lines = render(table, width).splitlines()
    assert all(len(line) <= width for line in lines)
    assert len(lines) == 2 + len(listed) + 1
    assert "203.0.113.9:51830" in lines[3]
    assert "peer2" in lines[3]
    for part in ("100.127.255.254", "100.64.0.3", "2h03m ago", "12345 ms"):
        assert any(part in line for line in lines), part
    assert columns(table) == [one for one in EVERY if one in columns(table)]


def test_columns_that_a_narrow_screen_has_no_room_for(make_peer: Any) -> None:
    usual = [make_peer(number) for number in range(3)]
    assert columns(peers.table(usual, 100)) == EVERY
    assert columns(peers.table(usual, 80)) == [one for one in EVERY if one != "key"]
    long = [make_peer(1, name=LONG, path=LONG_PATH)]
    assert columns(peers.table(long, 120)) == EVERY
    assert columns(peers.table(long, 60)) == ["peer", "address", "path", "handshake", "rtt"]
    text = render(peers.table(long, 200), 200)
    assert LONG in text
    assert LONG_PATH in text


def test_what_a_peer_says(make_peer: Any) -> None:
    text = render(peers.table([make_peer(2)], 120), 120)
    row = next(line for line in text.splitlines() if "peer2" in line)
    key = make_peer(2)["key"]
    for part in (
        f"{key[:8]}…",
        "100.64.0.2",
        "203.0.113.9:51830",
        "1m05s ago",
        "56.8M",
        "1.2K",
        "12.3 ms",
        "1.5 %",
    ):
        assert part in row
    assert "1 peer, 1 connected" in text


def test_a_peer_that_is_not_there(make_peer: Any) -> None:
    """Its last path is not the path in use."""
    there_not = make_peer(2, state="idle", handshake_age_s=None, rtt_s=None, loss=None, received=0, sent=0)
    text = render(peers.table([there_not], 100))
    assert "203.0.113.9" not in text
    row = next(line for line in text.splitlines() if "peer2" in line)
    assert row.count("–") == 3
    assert "1 peer, 0 connected" in text


def test_peers_that_came_by_themselves_are_known_by_their_key(make_peer: Any) -> None:
    stranger = make_peer(5, name="", configured=False)
    for width in (80, 120):
        assert f"{stranger['key'][:8]}…" in render(peers.table([stranger], width), width)


def test_the_connected_ones_come_first(make_peer: Any) -> None:
    order = [
        make_peer(1, name="a", state="idle"),
        make_peer(2, name="z", state="connected"),
        make_peer(3, name="b", state="connecting"),
        make_peer(4, name="y", state="connected"),
    ]
    lines = render(peers.table(order, 100)).splitlines()[2:-1]
    assert [line.split()[0] for line in lines] == ["y", "z", "b", "a"]


def test_many_peers(make_peer: Any) -> None:
    many = [make_peer(number, state="idle" if number % 2 else "connected") for number in range(1000)]
    lines = render(peers.table(many, 100, 100)).splitlines()
    assert len(lines) == 2 + 100 + 1
    assert lines[-1].strip() == "1000 peers, 500 connected; the first 100, --all for every one"
    assert len(render(peers.table(many, 100)).splitlines()) == 2 + 1000 + 1


def test_no_peers() -> None:
    assert "0 peers, 0 connected" in render(peers.table([], 80), 80)


def test_peers_are_strangers(make_peer: Any) -> None:
    """What comes from elsewhere steers no terminal: neither by control characters nor by markup."""
    nasty = "\x1b]0;x\x07[red]x[/]\r\n\x9b31m\u202e"
    one = make_peer(1, name=nasty, path=nasty, key=nasty, address=nasty)
    text = render(peers.table([one], 200), 200)
    for letter in "\x1b\x07\r\x9b\u202e":
        assert letter not in text
    assert "[red]x" in text
    assert len(text.splitlines()) == 4


def test_status_says_how_the_control_process_is(node: Any) -> None:
    text = " ".join(show_status(node.status(), 160).split())
    assert "running for 1m05s, process 4322 of nobody, 62.9MB" in text
    assert "2 times, 1m05s ago because it was killed by signal 9" in text
    assert "file /etc/zignet/members.txt: 12 asked, 7 matched, 1 failed" in text
    assert "file /etc/zignet/members.txt: no such file (5.0s ago)" in text
    assert "line 7 is no key" in text
    assert "control process" not in show_status({**node.status(), "control": None})


def test_peers_say_why_a_stranger_is_there(make_peer: Any) -> None:
    """Where there is room, and where there is one."""
    why = "Policy 1 (file members.txt) admits this key: line 3 of members.txt"
    some = [make_peer(1, configured=False, name="", admitted=why), make_peer(2)]
    text = render(peers.table(some, 240), 240)
    assert f"{why[:47]}…" in text
    assert "The configuration names" not in text
    assert "admitted" not in render(peers.table(some, 90), 90)
    assert "admitted" not in render(peers.table(some[1:], 240), 240)
