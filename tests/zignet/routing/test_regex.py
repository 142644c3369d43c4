"""The linear-time matcher: against `re`, and against the patterns that put `re` to sleep."""

from __future__ import annotations

import re
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zignet.routing.regex import MAX_STATES, Regex, RegexError

SLEEPERS = [
    r"^(a+)+$",
    r"^(a|a)*$",
    r"^(a|aa)+$",
    r"(a*)*b",
    r"^(([a-z])+.)+[A-Z]([a-z])+$",
    r".*a.*a.*a.*a.*a.*a.*c$",
    r"(.*)(.*)(.*)(.*)(.*)[^a]",
    r"(a|b)*a(a|b){30}c",
    r"(x+x+)+y",
]


@st.composite
def patterns(draw: st.DrawFn, depth: int = 3) -> str:
    """Expressions that both sides know."""
    leaf = st.sampled_from(
        [
            *"ab.-",
            r"\.",
            r"\d",
            r"\w",
            r"\W",
            "[ab]",
            "[^a]",
            "[a-c-]",
            r"[\d.]",
            "^",
            "$",
            r"\b",
            r"\B",
            "B",
            "[^A-C]",
        ]
    )
    if depth == 0:
        return draw(leaf)
    inner = patterns(depth=depth - 1)
    kind = draw(st.sampled_from(["leaf", "chain", "either", "repeat", "group"]))
    if kind == "chain":
        return "".join(draw(st.lists(inner, max_size=3)))
    if kind == "either":
        return "(?:" + "|".join(draw(st.lists(inner, min_size=1, max_size=3))) + ")"
    if kind == "repeat":
        count = draw(st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{,2}", "{1,}", "*?", "??", "{0,1}?"]))
        return f"(?:{draw(inner)}){count}"
    if kind == "group":
        return f"({draw(inner)})"
    return draw(leaf)


@given(patterns(), st.lists(st.text(alphabet="abc1.-_", min_size=1, max_size=12), min_size=1, max_size=6))
def test_finds_what_re_finds(pattern: str, names: list[str]):
    ours, theirs = Regex(pattern), re.compile(pattern, re.IGNORECASE | re.ASCII)
    for name in names:
        assert ours.search(name) == (theirs.search(name) is not None), name


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        (r"^ads?\d*\.", "ad7.example", True),
        (r"^ads?\d*\.", "bad7.example", False),
        (r"^([a-z0-9-]+\.)*tracker\.(com|net)$", "a.b.tracker.net", True),
        (r"^([a-z0-9-]+\.)*tracker\.(com|net)$", "a.b.tracker.netx", False),
        (r"(?i)EXAMPLE", "www.example.org", True),
        (r"a{,b", "a{,b", True),
        (r"a{x}", "a{x}", True),
        (r"[]a]", "]", True),
        (r"[a\-z]", "-", True),
        (r"(?P<first>a)b", "ab", True),
        (r"\Aa\Z", "a", True),
        (r"", "anything", True),
        (r"a|", "b", True),
        (r"é?", "a", None),
        (r"a", "é", False),
    ],
)
def test_single_cases(pattern: str, name: str, found: bool | None):
    if found is None:
        with pytest.raises(RegexError, match="ASCII"):
            Regex(pattern)
    else:
        assert Regex(pattern).search(name) is found


@pytest.mark.parametrize("pattern", SLEEPERS)
def test_no_name_can_put_it_to_sleep(pattern: str):
    """`re` would need years for some of these; a bound of seconds can't fail for a busy machine."""
    expression = Regex(pattern)
    begin = time.process_time()
    for tail in ("", "!", "b", "c"):
        expression.search("a" * 252 + tail)
        expression.search(("ab" * 126)[:252] + tail)
    assert time.process_time() - begin < 10


@given(st.lists(st.text(alphabet="ab", min_size=1, max_size=60), max_size=30))
def test_what_it_remembers_is_bounded(names: list[str]):
    expression, slow = Regex("(a|b)*a(a|b){9}b"), re.compile("a[ab]{9}b")
    for name in names:
        assert expression.search(name) == (slow.search(name) is not None)
        assert len(expression._states) <= MAX_STATES


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "not closed"),
        ("a)", "unbalanced"),
        ("*a", "nothing to repeat"),
        ("^*", "nothing to repeat"),
        ("a**", "repeat of a repeat"),
        ("a++", "possessive"),
        ("[a", "ends too early"),
        ("[z-a]", "backwards"),
        (r"[\d-z]", "for an end"),
        ("a{3,1}", "most is less"),
        ("a\\", "ends too early"),
        (r"(a)\1", "back-references"),
        (r"\q", "unknown escape"),
        ("(?=a)", "not supported"),
        ("(?<!a)b", "not supported"),
        ("(?>a)", "not supported"),
        ("(?P<1>a)", "identifier"),
        ("a{1000}", "too large"),
        ("((a{50}){50}){50}", "too large"),
        ("(((){500}){500}){500}", "too large"),
        ("a{99999999999999999999}", "too large"),
        ("a" * 513, "longer than"),
        ("(" * 100 + ")" * 100, "deep"),
    ],
)
def test_what_is_refused(pattern: str, message: str):
    with pytest.raises(RegexError, match=message):
        Regex(pattern)


# Invariant: any text compiles or raises RegexError, and what compiles answers.
@given(st.text(max_size=60) | st.text(alphabet="ab()[]{}*+?|^$\\.,-1:<>P=!", max_size=40))
def test_garbage_compiles_or_is_refused(pattern: str):
    with suppress(RegexError):
        assert Regex(pattern).search("a.b-1") in (True, False)
