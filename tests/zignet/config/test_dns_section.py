"""The `dns` section."""

from ipaddress import ip_network

import pytest

from zignet.config import Config, ConfigError, DnsConfig, DnsServer, parse_config


def dns(text):
    return parse_config(f"dns: {text}\n").dns


def test_no_section_no_names():
    assert Config.default().dns is None
    assert parse_config("").dns is None


@pytest.mark.parametrize("text", ["{}", "", "~"])
def test_an_empty_section_is_all_defaults(text):
    assert dns(text) == DnsConfig()
    assert dns(text).listen == (DnsServer("127.0.0.1", 53530),)


def test_all_of_it():
    read = dns(
        '{listen: ["127.0.0.1:5300", "[::1]:5300"], upstreams: [192.0.2.1, "2001:db8::1"], others: refuse, '
        'fake: ["*.Anime.example", plain.example], real: [+.ntp.example], '
        'fake_range: 198.18.0.0/16, fake_range6: "2001:2:1::/64"}'
    )
    assert read.listen == (DnsServer("127.0.0.1", 5300), DnsServer("::1", 5300))
    assert read.upstreams == (DnsServer("192.0.2.1", 53), DnsServer("2001:db8::1", 53))
    assert (read.others, read.fake, read.real) == (
        "refuse",
        ("*.anime.example", "plain.example"),
        ("*.ntp.example",),
    )
    assert (read.fake_range, read.fake_range6) == (ip_network("198.18.0.0/16"), ip_network("2001:2:1::/64"))
    shown = parse_config("dns: {upstreams: [192.0.2.1]}").to_json()["dns"]
    assert (shown["upstreams"], shown["fake_range"]) == (["192.0.2.1:53"], "198.19.0.0/16")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{listen: [localhost]}", "is not an address"),
        ('{listen: ["127.0.0.1:0"]}', "port from 1"),
        ('{upstreams: ["[::1]x"]}', "port from 1"),
        ("{others: maybe}", "is not one of forward, refuse"),
        ('{fake: ["a*.example"]}', "stands only at the very front"),
        ("{fake_range: 198.19.0.0/30}", "/8 to /28"),
        ("{fake_range: 127.0.0.0/16}", "a meaning of its own"),
        ('{fake_range6: "2001:2::/112"}', "/16 to /96"),
        ("{fake_range: 100.64.0.0/16}", "overlaps tun.range"),
        ('{fake_range6: "fd5a:6967:6e65:1::/64"}', "overlaps tun.range6"),
        ("{fakes: []}", 'did you mean "fake"'),
    ],
)
def test_mistakes(text, message):
    with pytest.raises(ConfigError) as error:
        dns(text)
    assert message in str(error.value)
