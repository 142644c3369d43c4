"""Lines kept compactly are the lines that were put in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zignet.routing import Line, Lines, read_lines

TRIPLES = st.lists(
    st.tuples(st.text(max_size=20), st.sampled_from(["a.yaml", "b.txt", "ü:c"]), st.integers(1, 9999)),
    max_size=12,
)


@given(TRIPLES)
def test_a_sequence_like_any_other(triples: list[tuple[str, str, int]]):
    plain = [Line(text, f"{file}:{number}") for text, file, number in triples]
    lines = Lines(triples)
    assert list(lines) == plain
    assert len(lines) == len(plain)
    assert [lines[at] for at in range(-len(plain), len(plain))] == plain + plain
    assert list(lines[1:]) == plain[1:]
    assert list(lines[::-2]) == plain[::-2]
    assert lines == Lines(triples)
    assert hash(lines) == hash(Lines(triples))


@given(TRIPLES, TRIPLES)
def test_equal_only_if_the_lines_are(one: list, other: list):
    assert (Lines(one) == Lines(other)) == (one == other)


def test_what_is_a_rule_in_a_file():
    text = ["# comment\n", "\n", "  DOMAIN,a,e  \n", "// Surge's\n", "MATCH,Tokyo #1 # the rest\n"]
    assert list(read_lines(text, "f")) == [("DOMAIN,a,e", "f", 3), ("MATCH,Tokyo #1", "f", 5)]
