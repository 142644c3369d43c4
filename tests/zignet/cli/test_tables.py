"""Tables: they fit, and nothing from the network reaches the terminal raw."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from zignet.cli import flows, status


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
