"""Names as they are compared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zignet.routing import ascii_name


@pytest.mark.parametrize(
    ("written", "compared"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("_dmarc.example", "_dmarc.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("localhost", "localhost"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
    ],
)
def test_one_form(written: str, compared: str):
    assert ascii_name(written) == compared


@pytest.mark.parametrize(
    "text", ["", ".", "a..b", "a b", "a/b", "*.a", "faß.de", "a" * 64, "a." * 127 + "a", "ü" * 70]
)
def test_what_is_no_name(text: str):
    with pytest.raises(ValueError, match=r"."):
        ascii_name(text)


@given(st.text(max_size=30))
def test_what_comes_out_stays_as_it_is(text: str):
    try:
        name = ascii_name(text)
    except ValueError:
        return
    assert name.isascii()
    assert name == name.lower()
    assert ascii_name(name) == name
