import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sniff.hostname import authority_name, host_name
from tests.sniff.hellos import names

GOOD = {
    b"example.com": "example.com",
    b"WWW.Example.COM": "www.example.com",
    b"example.com.": "example.com",
    b"localhost": "localhost",
    b"_sip._tcp.example.org": "_sip._tcp.example.org",
    b"r3---sn-4g5e6nsz.videos.example": "r3---sn-4g5e6nsz.videos.example",
    b"xn--bcher-kva.example": "xn--bcher-kva.example",
    b"1.2.3.4.example": "1.2.3.4.example",
    b"0xffg": "0xffg",
    b"a" * 63 + b".example": "a" * 63 + ".example",
    b".".join([b"a" * 49] * 5) + b".": ".".join(["a" * 49] * 5),
    b".".join([b"a"] * 127): ".".join(["a"] * 127),  # 253 bytes
}
BAD = [
    b"",
    b".",
    b"..",
    b"a..b",
    b".example",
    b"example..",
    b"exa mple.com",
    b"example.com\0",
    b"\0",
    b"exa\nmple",
    b"user@example.com",
    b"example.com/",
    b"*.example.com",
    "bücher.example".encode(),
    b"b\xfccher.example",
    b"192.0.2.1",
    b"192.0.2.1.",
    b"127.1",
    b"2130706433",
    b"0x7f000001",
    b"127.0.0.0x1",
    b"0x",
    b"1.2.3",
    b"::1",
    b"[::1]",
    b"2001:db8::1",
    b"fe80::1%eth0",
    b"a" * 64,
    b"example." + b"a" * 64,
    b".".join([b"a"] * 127) + b"b.",
    b"a." * 126 + b"aa",
]


@pytest.mark.parametrize(("raw", "name"), GOOD.items())
def test_names(raw, name):
    assert host_name(raw) == name
    assert host_name(bytearray(raw)) == name


@pytest.mark.parametrize("raw", BAD)
def test_what_is_no_name(raw):
    assert host_name(raw) == ""


@pytest.mark.parametrize(
    ("authority", "name"),
    [
        (b"example.com:443", "example.com"),
        (b"Example.com.:8080", "example.com"),
        (b"example.com:", "example.com"),
        (b"example.com:http", ""),
        (b"example.com:80:80", ""),
        (b"192.0.2.1:80", ""),
        (b"[2001:db8::1]:80", ""),
        (b"[2001:db8::1]", ""),
        (b"2001:db8::1", ""),
        (b":80", ""),
        (b"", ""),
    ],
)
def test_authorities(authority, name):
    assert authority_name(authority) == name
    assert authority_name(bytearray(authority)) == name


PLAUSIBLE = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


@given(st.binary(max_size=300) | st.text("aZ0-._x:[]", max_size=300).map(str.encode))
def test_never_anything_but_a_name(raw):
    name = host_name(raw)
    if not name:
        return
    assert PLAUSIBLE.fullmatch(name)
    assert raw.lower().removesuffix(b".") == name.encode()
    with pytest.raises(ValueError, match="does not appear"):
        ipaddress.ip_address(name)


@given(st.ip_addresses())
def test_no_address_is_a_name(address):
    assert host_name(str(address).encode()) == ""
    assert authority_name(f"[{address}]:443".encode()) == ""


@given(names)
def test_every_name_is_one(name):
    assert host_name(name.upper().encode() + b".") == name
