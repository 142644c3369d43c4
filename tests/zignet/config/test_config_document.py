"""YAML to a tree with lines; what is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zignet.config import ConfigError
from zignet.config.document import Items, Scalar, Table, compose


def test_every_value_has_its_line():
    root, problems = compose('a: 1\nb:\n  - x\n  - "off"\nc: {d: off,\n    e: }\n', "f")
    assert root == Table(
        1,
        {
            "a": (1, Scalar(1, "1", True)),
            "b": (2, Items(3, [Scalar(3, "x", True), Scalar(4, "off", False)])),
            "c": (5, Table(5, {"d": (5, Scalar(5, "off", True)), "e": (6, Scalar(6, "", True))})),
        },
    )
    assert problems == []


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_an_empty_document(text: str):
    root, problems = compose(text, "f")
    assert root is None or (isinstance(root, Scalar) and root.is_null)
    assert problems == []


def test_a_key_given_twice():
    _, problems = compose("a: 1\nb: 2\na: 3\n", "f")
    assert [str(problem) for problem in problems] == ["f:3: a: given twice; the first is in line 1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1,\nb: 2\n", "not YAML: "),
        ("a: 1\n b: 2\n", "f:2: not YAML: "),
        ("a: 'x\n", "not YAML: "),
        ("a: &x 1\nb: *x\n", "f:1: anchors and aliases"),
        ("a: *x\n", "f:1: anchors and aliases"),
        ("a: !!python/object/apply:os.system [id]\n", "f:1: tags"),
        ("a: ! x\n", "f:1: tags"),
        ("a: 1\n---\nb: 2\n", "f:2: a second document"),
        ("? [a]\n: 1\n", "a key must be a word"),
        ("[" * 30 + "]" * 30, "nested too deeply"),
        ("a: \x07\n", "not YAML: "),
        ("a: \ud800\n", "not YAML: "),
    ],
)
def test_what_is_refused(text: str, message: str):
    with pytest.raises(ConfigError) as caught:
        compose(text, "f")
    assert message in str(caught.value)


def test_a_bomb_does_not_go_off():
    layers = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(ConfigError, match="anchors"):
        compose("l0: &l0 [lol]\n" + "\n".join(layers), "f")


# Invariant: any text composes or raises ConfigError, nothing else.
@given(st.text(max_size=80) | st.text(alphabet="ab:-[]{},\n '\"#&*!|>?%@", max_size=60))
def test_garbage_composes_or_is_refused(text: str):
    with suppress(ConfigError):
        compose(text, "f")
