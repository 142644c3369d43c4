"""What single values mean."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zignet.config import values


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("300ms", 0.3),
        ("5s", 5.0),
        ("2m", 120.0),
        ("2min", 120.0),
        ("1h", 3600.0),
        ("1d", 86400.0),
        ("90", 90.0),
        ("1.5 s", 1.5),
    ],
)
def test_durations(text: str, seconds: float):
    assert values.duration(0, 1e9)(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "5 weeks", "1e3", "inf", "nan", "11s", "9" * 30, "٣s"])
def test_what_is_no_duration_or_not_in_bounds(text: str):
    with pytest.raises(ValueError, match=r"duration|within"):
        values.duration(0, 10)(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("16384", 16384), ("16k", 16384), ("16 KiB", 16384), ("16KB", 16384), ("1MiB", 1 << 20), ("7B", 7)],
)
def test_sizes(text: str, size: int):
    assert values.size(0, 1 << 30)(text) == size


@pytest.mark.parametrize("text", ["", "k", "1.5k", "-1", "1T", "2M", "9" * 30])
def test_what_is_no_size_or_not_in_bounds(text: str):
    with pytest.raises(ValueError, match=r"size|within"):
        values.size(0, 1 << 20)(text)


@pytest.mark.parametrize(("text", "number"), [("5", 5), ("0x1F", 31), ("1_000", 1000)])
def test_whole_numbers(text: str, number: int):
    assert values.whole(0, 1000)(text) == number


@pytest.mark.parametrize("text", ["", "five", "1.0", "010", "1001", "-1", "9" * 5000])
def test_what_is_no_whole_number(text: str):
    with pytest.raises(ValueError, match=r"whole|within"):
        values.whole(0, 1000)(text)


@pytest.mark.parametrize("word", ["true", "Yes", "ON"])
def test_flags(word: str):
    assert values.flag(word) is True
    with pytest.raises(ValueError, match="neither"):
        values.flag(word + "!")


def test_a_network_with_host_bits_is_named_rightly():
    assert values.network("2001:db8::/32") == ip_network("2001:db8::/32")
    with pytest.raises(ValueError, match=r'did you mean "10\.0\.0\.0/8"'):
        values.network("10.0.0.1/8")


@pytest.mark.parametrize("text", ["100.64.0.0/10", "10.0.0.0/8", "192.168.7.0/24"])
def test_ranges(text: str):
    assert str(values.range4(text)) == text


@pytest.mark.parametrize(
    "text", ["10.0.0.0/7", "10.0.0.0/25", "127.0.0.0/8", "224.0.0.0/8", "0.0.0.0/8", "fd00::/48", "x"]
)
def test_what_is_no_range(text: str):
    with pytest.raises(ValueError, match=r"."):
        values.range4(text)


@pytest.mark.parametrize("text", ["fd00::/8", "fd00::/65", "ff00::/16", "fe80::/64", "::/64", "10.0.0.0/8"])
def test_what_is_no_ipv6_range(text: str):
    with pytest.raises(ValueError, match=r"."):
        values.range6(text)


@pytest.mark.parametrize(
    "text", ["192.0.2.1:1080", "[2001:db8::1]:1080", "proxy.example:1", "localhost:65535"]
)
def test_hosts_with_ports(text: str):
    assert values.host_port(text) == text


@pytest.mark.parametrize(
    "text", ["", "192.0.2.1", ":80", "h:0", "h:65536", "h:x", "::1:80", "[::g]:80", "a b:80", "h:²"]
)
def test_what_is_no_host_with_port(text: str):
    with pytest.raises(ValueError, match=r"."):
        values.host_port(text)


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "a b", "a:b", "sixteen-bytes-xx", "ü" * 8])
def test_what_is_no_interface(text: str):
    with pytest.raises(ValueError, match="name"):
        values.interface(text)


def test_devices():
    assert values.device("auto") is None
    assert values.device("fd:7") == 7
    for text in ("fd:", "fd:x", "7", "fd:-1", ""):
        with pytest.raises(ValueError, match="neither"):
            values.device(text)


@pytest.mark.parametrize("text", ["0", "253", "254", "255", "0x100000000"])
def test_tables_that_can_not_be_ours(text: str):
    with pytest.raises(ValueError, match=r"kernel|within"):
        values.table(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("udp://[::]:51830", ("::", 51830)),
        ("udp://0.0.0.0:0", ("0.0.0.0", 0)),
        ("udp://192.0.2.1:65535", ("192.0.2.1", 65535)),
        ("udp://[2001:DB8:0::1]:1", ("2001:db8::1", 1)),
    ],
)
def test_where_to_listen(text: str, address: tuple[str, int]):
    assert values.udp_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "51830",
        ":51830",
        "[::]:51830",
        "tcp://[::]:51830",
        "udp://[::]",
        "udp://:::51830",
        "udp://::1:51830",
        "udp://[192.0.2.1]:1",
        "udp://host.example:1",
        "udp://*:1",
        "udp://[::]:65536",
        "udp://[::]:x",
        "udp://[::]:²",
        "udp://[fe80::1%eth0]:1",
        "udp://224.0.0.1:1",
    ],
)
def test_where_nobody_listens(text: str):
    with pytest.raises(ValueError, match=r"udp://\[::\]:51830|address"):
        values.udp_address(text)


@pytest.mark.parametrize("text", ["a", "peer_us", "Alice-2", "_x", "7", "a" * 63, "a-" * 27 + "aa1"])
def test_names_of_peers(text: str):
    assert values.peer_name(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "-a", "a-", "a b", "a.b", "ä", "a" * 64, "direct", "Block", "ADMIN", "reject", "a" * 56, "A7" * 28],
)
def test_what_no_peer_is_called(text: str):
    with pytest.raises(ValueError, match="name"):
        values.peer_name(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("off", 0), ("no", 0), ("25", 25), ("25s", 25), ("1m", 60), ("65535", 65535)],
)
def test_keepalives(text: str, seconds: int):
    assert values.keepalive(text) == seconds


@pytest.mark.parametrize("text", ["", "on", "-1", "1.5", "500ms", "65536", "1d"])
def test_what_is_no_keepalive(text: str):
    with pytest.raises(ValueError, match=r"duration|whole|within"):
        values.keepalive(text)


def test_ipv4_addresses():
    assert str(values.address4("100.64.0.9")) == "100.64.0.9"
    for text in ("", "100.64.0", "100.64.0.9/32", "::1", "01.2.3.4"):
        with pytest.raises(ValueError, match="not an IPv4 address"):
            values.address4(text)


READERS = [
    values.udp_address,
    values.peer_name,
    values.keepalive,
    values.address4,
    values.some_text,
    values.flag,
    values.choice("a", "b"),
    values.whole(0, 9),
    values.duration(0, 9),
    values.size(0, 9),
    values.network,
    values.range4,
    values.range6,
    values.host_port,
    values.interface,
    values.device,
    values.table,
]


# Invariant: any text has a value or raises ValueError, nothing else.
@given(
    st.sampled_from(READERS), st.text(max_size=20) | st.from_regex(r"[0-9a-f.:/\[\]x ]{0,20}", fullmatch=True)
)
def test_garbage_has_a_value_or_is_refused(reader, text: str):
    with suppress(ValueError):
        reader(text)


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.1", ("192.0.2.1", 53)),
        ("192.0.2.1:5353", ("192.0.2.1", 5353)),
        ("2001:db8::1", ("2001:db8::1", 53)),
        ("[2001:db8::1]", ("2001:db8::1", 53)),
        ("[2001:db8::1]:54", ("2001:db8::1", 54)),
    ],
)
def test_name_servers(text: str, server: tuple[str, int]):
    assert values.name_server(text) == server


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dns.example",
        "192.0.2.1:0",
        "192.0.2.1:x",
        "192.0.2",
        "[::1",
        "[::1]x",
        "[::1]:",
        "192.0.2.1:99999",
    ],
)
def test_what_is_no_name_server(text: str):
    with pytest.raises(ValueError, match=r"is not an address|does not end in a port"):
        values.name_server(text)
