import inspect

import pytest

from nat.tun import errors
from nat.tun.errors import TunError

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, TunError)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_the_way_through_json(kind):
    back = TunError.from_json(kind("what", "why", "do this").to_json())
    assert type(back) is kind
    assert (back.what, back.why, back.advice) == ("what", "why", "do this")


def test_the_text_says_what_why_and_what_to_do():
    assert str(TunError("cannot fly", "no wings", "take a train")) == "cannot fly: no wings; take a train"
    assert str(TunError("cannot fly", "no wings")) == "cannot fly: no wings"


def test_an_unknown_kind_is_still_an_error_of_ours():
    back = TunError.from_json({"kind": "FromTheFuture", "what": "a", "why": "b", "advice": ""})
    assert type(back) is TunError
