"""Parameters: what they take, and what is said of what they don't."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.zignet.admin.conftest import FRIEND
from zignet.admin.api import Api
from zignet.admin.endpoint import (
    Address,
    Choice,
    Endpoint,
    Flag,
    Key,
    Number,
    Parameter,
    Text,
    endpoint,
    endpoints_of,
)
from zignet.admin.refused import Refused

ALL = Endpoint(
    "GET",
    "/api/{who}/all",
    "All kinds",
    "all",
    "text/plain",
    (
        Parameter("who", Text(8), "who", required=True),
        Parameter("key", Key(), "a key"),
        Parameter("ip", Address(), "an address", required=True),
        Parameter("limit", Number(1, 100), "how many"),
        Parameter("which", Choice(("one", "two")), "which"),
        Parameter("ended", Flag(), "whether"),
    ),
)


def test_values() -> None:
    query = {
        "ip": ["FD5A::1"],
        "key": [FRIEND.base58],
        "limit": ["007"],
        "which": ["two"],
        "ended": ["false"],
    }
    assert ALL.read(query, {"who": "me"}) == {
        "who": "me",
        "ip": "fd5a::1",
        "key": FRIEND,
        "limit": 7,
        "which": "two",
        "ended": False,
    }
    assert ALL.read({"ip": ["1.2.3.4"]}, {"who": "me"}) == {"who": "me", "ip": "1.2.3.4"}


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({}, "ip is missing: an address"),
        ({"ip": [""]}, "ip is not an IP address"),
        ({"ip": ["1.2.3.4", "1.2.3.4"]}, "ip is given more than once"),
        ({"ip": ["1.2.3.4"], "who": ["me"]}, "unknown parameter who"),
        ({"ip": ["1.2.3.4"], "limmit": ["1"]}, "did you mean limit"),
        ({"ip": ["1.2.3.4"], "\x1b[2J": ["1"]}, "unknown parameter ?[2J"),
        ({"ip": ["1.2.3.4"], "limit": ["0"]}, "limit is not a number from 1 to 100"),
        ({"ip": ["1.2.3.4"], "limit": ["٣"]}, "limit is not a number"),
        ({"ip": ["1.2.3.4"], "limit": ["1" * 4000]}, "limit is not a number"),
        ({"ip": ["1.2.3.4"], "which": ["three"]}, "which is not one of one, two"),
        ({"ip": ["1.2.3.4"], "ended": ["yes"]}, "ended is neither true nor false"),
        ({"ip": ["1.2.3.4"], "key": [FRIEND.name[:-1] + "a"]}, "key is not a key"),
    ],
)
def test_what_is_no_value(query: dict[str, list[str]], says: str) -> None:
    with pytest.raises(Refused) as refused:
        ALL.read(query, {"who": "me"})
    assert refused.value.status == 400
    assert says in refused.value.sentence


@given(st.dictionaries(st.sampled_from(["ip", "key", "limit", "which", "ended", "x"]), st.lists(st.text())))
def test_anything(query: dict[str, list[str]]) -> None:
    """A value, or a refusal in printable words."""
    status = 400
    try:
        ALL.read(query, {"who": "me"})
    except Refused as refused:
        status = refused.status
    assert status == 400


def test_the_endpoints_of_the_seed_are_there() -> None:
    found = {(each.method, each.path) for each in endpoints_of(Api)}
    for path in (
        "/api/identity",
        "/api/whoami",
        "/api/contacts",
        "/api/peers",
        "/api/policy/check",
    ):
        assert ("GET", path) in found
    assert all(each.summary and not each.summary.endswith(".") for each in endpoints_of(Api))


def test_a_class_of_ones_own() -> None:
    class Mine:
        @endpoint("POST", "/x", dict, Parameter("a", Text(), "a"), declined=404)
        async def change(self, a: Any) -> None:
            """Change it.

            More."""

    (described,) = endpoints_of(Mine)
    assert (described.summary, described.handler, described.changes) == ("Change it", "change", True)
