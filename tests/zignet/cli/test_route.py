"""What `route explain` understands as a destination."""

from __future__ import annotations

import pytest

from zignet.cli.destination import Destination, names_in, parse
from zignet.cli.errors import ExitCode, Fault


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("video.example", Destination("video.example", None, 443, "tcp", "https")),
        ("Video.Example.", Destination("video.example", None, 443, "tcp", "https")),
        ("video.example:8443", Destination("video.example", None, 8443, "tcp")),
        ("video.example:80", Destination("video.example", None, 80, "tcp", "http")),
        ("https://video.example:8443", Destination("video.example", None, 8443, "tcp", "https")),
        (
            "https://video.example/watch?v=1#x",
            Destination("video.example", None, 443, "tcp", "https", "/watch?v=1"),
        ),
        ("http://video.example", Destination("video.example", None, 80, "tcp", "http")),
        ("wss://video.example", Destination("video.example", None, 443, "tcp", "https")),
        ("HTTP://user:secret@video.example:8080/", Destination("video.example", None, 8080, "tcp", "http")),
        ("ssh://video.example", Destination("video.example", None, 22, "tcp")),
        ("udp://video.example:443", Destination("video.example", None, 443, "udp")),
        ("udp://[2001:db8::1]:53", Destination(None, "2001:db8::1", 53, "udp")),
        ("tcp://192.0.2.1:443", Destination(None, "192.0.2.1", 443, "tcp")),
        ("quic://video.example", Destination("video.example", None, 443, "udp")),
        ("dns://192.0.2.53", Destination(None, "192.0.2.53", 53, "udp")),
        ("foo://video.example:99/", Destination("video.example", None, 99, "tcp")),
        ("192.0.2.1", Destination(None, "192.0.2.1", 443, "tcp", "https")),
        ("192.0.2.1:80", Destination(None, "192.0.2.1", 80, "tcp", "http")),
        ("2001:DB8::1", Destination(None, "2001:db8::1", 443, "tcp", "https")),
        ("[2001:db8::1]", Destination(None, "2001:db8::1", 443, "tcp", "https")),
        ("[2001:db8::1]:8080", Destination(None, "2001:db8::1", 8080, "tcp")),
        ("https://[2001:db8::1]/", Destination(None, "2001:db8::1", 443, "tcp", "https")),
        ("bücher.example", Destination("xn--bcher-kva.example", None, 443, "tcp", "https")),
    ],
)
def test_destinations(text: str, expected: Destination) -> None:
    assert parse(text, udp=False) == expected


def test_udp() -> None:
    assert parse("video.example", udp=True) == Destination("video.example", None, 443, "udp")
    assert parse("192.0.2.1:53", udp=True) == Destination(None, "192.0.2.1", 53, "udp")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://",
        ":443",
        "video.example:http",
        "video.example:0",
        "video.example:70000",
        "foo://video.example",
        "udp://video.example",
        "[2001:db8::1",
        "a b.example",
        "https:///path",
    ],
)
def test_nonsense(text: str) -> None:
    with pytest.raises(Fault) as caught:
        parse(text, udp=False)
    assert caught.value.code == ExitCode.USAGE


def test_names_in_rules() -> None:
    lines = [
        ("*.video.example -> tokyo", "a:1"),
        ("DOMAIN,one.example,direct", "a:2"),
        ("IP-CIDR,192.0.2.0/24,direct", "a:3"),
        ("nonsense", "a:4"),
        ("MATCH,direct", "a:5"),
    ]
    assert names_in(lines) == ["video.example", "one.example"]
    assert names_in(lines, most=1) == ["video.example"]
