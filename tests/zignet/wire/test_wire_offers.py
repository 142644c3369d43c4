"""What is offered to a peer: there and back, and whatever else comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zignet.wire import MOST_OFFERS, BadFrame, Offer, Offers, offers_frame, parse_control, parse_offers

OFFER = st.builds(
    Offer,
    st.sampled_from((6, 17)),
    st.integers(1, 65_535),
    st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", fullmatch=True),
)


@given(st.lists(OFFER, max_size=MOST_OFFERS), st.integers(0, 20))
def test_there_and_back(offers, padding):
    frame = offers_frame(offers) + bytes(padding)
    control = parse_control(frame)
    assert isinstance(control, Offers)
    assert control.encode() == frame
    assert list(parse_offers(control.body)) == offers


@given(st.binary(max_size=200))
def test_any_body_is_offers_or_bad(body):
    try:
        offers = parse_offers(body)
    except BadFrame:
        return
    assert len(offers) <= MOST_OFFERS
    assert parse_control(offers_frame(offers)).body == body.rstrip(b"\0") or not offers


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("06", "cut off"),
        ("060050", "cut off"),
        ("06005004 776562", "cut off"),
        ("06005000", "nothing"),
        ("01005003 776562", "nothing"),
        ("06000003 776562", "nothing"),
        ("06005003 574542", "nothing"),  # upper case
        ("06005003 2d6162", "nothing"),
        ("06005003 776562 00 01", "padding"),
        ("06005001 61" * (MOST_OFFERS + 1), "too many"),
    ],
)
def test_what_is_none(body, why):
    with pytest.raises(BadFrame, match=why):
        parse_offers(bytes.fromhex(body))
