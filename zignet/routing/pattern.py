r"""A regular expression to a program for an automaton: the language, and what of it is refused.

The language is that of `re.search` with IGNORECASE and ASCII, as far as it goes:
`. [ab] [^a-z] \d \w \s \D \W \S \. ^ $ \A \Z \b \B ( ) (?: ) (?P<n> ) | * + ? {m} {m,} {m,n}` and their lazy
forms, which match the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum
from string import ascii_lowercase, ascii_uppercase, digits

__all__ = ["WORD", "Check", "Instruction", "Op", "RegexError", "compile_pattern"]

MAX_PATTERN = 512  # characters
MAX_PROGRAM = 512  # instructions: each character of a name costs at most this much
MAX_STEPS = 8192  # of the compiler: repeats of nothing make no instructions, and must end too
MAX_DEPTH = 32  # of groups


class RegexError(ValueError):
    """The expression can't be used."""


class Op(IntEnum):
    """An instruction, and what its two numbers are."""

    CHARS = 0  # (mask, next): a character of the mask, then next
    SPLIT = 1  # (next, next): either
    CHECK = 2  # (what, next): the place between two characters
    MATCH = 3  # (0, 0)


class Check(IntEnum):
    """What must hold at a place between two characters."""

    START = 0
    END = 1
    WORD_EDGE = 2
    NO_WORD_EDGE = 3


Instruction = tuple[Op, int, int]
_Piece = Callable[[int], int]  # where to go on -> where to begin; adds instructions to the program


def _mask(characters: Iterable[str]) -> int:
    """A set of ASCII characters as 128 bits."""
    mask = 0
    for character in characters:
        mask |= 1 << ord(character)
    return mask


_ALL = (1 << 128) - 1
_UPPER, _LOWER = _mask(ascii_uppercase), _mask(ascii_lowercase)
_CASE = ord("a") - ord("A")
_DIGIT = _mask(digits)
WORD = _mask(ascii_lowercase + ascii_uppercase + digits + "_")
_SPACE = _mask(" \t\n\r\f\v")
_ANY = _ALL & ~_mask("\n")
_CLASSES = {
    "d": _DIGIT,
    "w": WORD,
    "s": _SPACE,
    "D": _ALL & ~_DIGIT,
    "W": _ALL & ~WORD,
    "S": _ALL & ~_SPACE,
}
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}
_CHECKS = {"A": Check.START, "Z": Check.END, "b": Check.WORD_EDGE, "B": Check.NO_WORD_EDGE}


def _both_cases(mask: int) -> int:
    return mask | (mask & _UPPER) << _CASE | (mask & _LOWER) >> _CASE


class _Parser:
    """Recursive descent over the pattern, straight to instructions.

    Each method returns a piece: a function that, told where to go on, adds the piece's instructions and
    says where it begins. So nothing is patched afterwards, and a repeat calls its piece again.
    """

    def __init__(self, pattern: str) -> None:
        if len(pattern) > MAX_PATTERN:
            raise RegexError(f"longer than {MAX_PATTERN} characters")
        if not pattern.isascii():
            raise RegexError("names are compared in ASCII (xn--…); this could never match")
        self._pattern = pattern.removeprefix("(?i)")
        self._at = 0
        self._depth = 0
        self._steps = 0
        self.program: list[Instruction] = []

    def parse(self) -> int:
        """Fills `program`; returns the index of its first instruction."""
        piece = self._alternatives()
        if self._at < len(self._pattern):
            raise RegexError(f"unbalanced ) at character {self._at + 1}")
        return piece(self._add(Op.MATCH, 0, 0))

    def _add(self, op: Op, first: int, second: int) -> int:
        if len(self.program) >= MAX_PROGRAM:
            raise RegexError(f"too large: more than {MAX_PROGRAM} states once its repeats are written out")
        self.program.append((op, first, second))
        return len(self.program) - 1

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _take(self, text: str) -> bool:
        if self._pattern.startswith(text, self._at):
            self._at += len(text)
            return True
        return False

    def _next(self) -> str:
        character = self._peek()
        if not character:
            raise RegexError("it ends too early")
        self._at += 1
        return character

    # pieces

    def _characters(self, mask: int) -> _Piece:
        return lambda onward: self._add(Op.CHARS, mask, onward)

    def _check(self, what: Check) -> _Piece:
        return lambda onward: self._add(Op.CHECK, what, onward)

    def _alternatives(self) -> _Piece:
        branches = [self._sequence()]
        while self._take("|"):
            branches.append(self._sequence())
        if len(branches) == 1:
            return branches[0]

        def either(onward: int) -> int:
            begin = branches[-1](onward)
            for branch in reversed(branches[:-1]):
                begin = self._add(Op.SPLIT, branch(onward), begin)
            return begin

        return either

    def _sequence(self) -> _Piece:
        pieces: list[_Piece] = []
        while self._peek() not in ("", "|", ")"):
            pieces.append(self._repeated())

        def chain(onward: int) -> int:
            self._steps += 1
            if self._steps > MAX_STEPS:
                raise RegexError("too large: its repeats multiply")
            for piece in reversed(pieces):
                onward = piece(onward)
            return onward

        return chain

    def _repeated(self) -> _Piece:
        begin = self._at
        atom = self._atom()
        bounds = self._quantifier()
        if bounds is None:
            return atom
        if self._pattern[begin] in "^$":
            raise RegexError(f"nothing to repeat at character {begin + 1}")
        self._take("?")  # lazy: other groups, the same names
        if self._take("+"):
            raise RegexError("possessive repeats are not supported: matching never goes back here")
        if self._quantifier() is not None:
            raise RegexError(f"a repeat of a repeat at character {self._at}")
        return self._repeat(atom, *bounds)

    def _quantifier(self) -> tuple[int, int | None] | None:
        """(least, most) if one stands here; most is None where there is no bound."""
        for text, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(text):
                return bounds
        end = self._pattern.find("}", self._at)
        if self._peek() != "{" or end < 0:
            return None
        low, comma, high = self._pattern[self._at + 1 : end].partition(",")
        if not (low or high) or not all(part == "" or part.isdigit() for part in (low, high)):
            return None  # an ordinary brace, as in `re`
        if not comma and not low:
            return None
        self._at = end + 1
        least = int(low or 0) if len(low) < 6 else MAX_STEPS
        most = (None if not high else int(high) if len(high) < 6 else MAX_STEPS) if comma else least
        if most is not None and most < least:
            raise RegexError("a repeat whose most is less than its least")
        return least, most

    def _repeat(self, atom: _Piece, least: int, most: int | None) -> _Piece:
        def repeat(onward: int) -> int:
            if most is None:
                loop = self._add(Op.SPLIT, onward, onward)
                self.program[loop] = (Op.SPLIT, atom(loop), onward)
                begin = loop
            else:
                begin = onward
                for _ in range(most - least):
                    begin = self._add(Op.SPLIT, atom(begin), onward)
            for _ in range(least):
                begin = atom(begin)
            return begin

        return repeat

    def _atom(self) -> _Piece:
        character = self._next()
        if character == "(":
            return self._group()
        if character == "[":
            return self._characters(self._set())
        if character == ".":
            return self._characters(_ANY)
        if character == "^":
            return self._check(Check.START)
        if character == "$":
            return self._check(Check.END)
        if character == "\\":
            return self._escape()
        if character in "*+?":
            raise RegexError(f"nothing to repeat at character {self._at}")
        return self._characters(_both_cases(_mask(character)))

    def _group(self) -> _Piece:
        opened = self._at
        if self._take("?") and not (self._take(":") or self._take("i:") or self._group_name()):
            raise RegexError(
                f"the group at character {opened} is of a kind (look-around, flags, atomic, reference) "
                "that is not supported"
            )
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise RegexError(f"groups more than {MAX_DEPTH} deep")
        piece = self._alternatives()
        self._depth -= 1
        if not self._take(")"):
            raise RegexError(f"the group at character {opened} is not closed")
        return piece

    def _group_name(self) -> bool:
        if not self._take("P<"):
            return False
        end = self._pattern.find(">", self._at)
        if end < 0 or not self._pattern[self._at : end].isidentifier():
            raise RegexError("a group's name must be an identifier")
        self._at = end + 1
        return True

    def _escape(self) -> _Piece:
        character = self._peek()
        if character in _CHECKS:
            self._at += 1
            return self._check(_CHECKS[character])
        if character.isdigit():
            raise RegexError(
                "back-references are not supported: they need a matcher that can be made to hang"
            )
        return self._characters(_both_cases(self._escaped()))

    def _escaped(self) -> int:
        """What follows a backslash, in a set or outside, as a mask."""
        character = self._next()
        if character in _CLASSES:
            return _CLASSES[character]
        if character in _CONTROLS:
            return _mask(_CONTROLS[character])
        if character.isalnum():
            raise RegexError(f"unknown escape \\{character}")
        return _mask(character)

    def _set(self) -> int:
        """`[...]` after its bracket."""
        inverted = self._take("^")
        mask, first = 0, True
        while first or self._peek() != "]":
            first = False
            low = self._member()
            if self._peek() == "-" and self._pattern[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                mask |= self._range(low, self._member())
            else:
                mask |= low
        self._at += 1
        mask = _both_cases(mask)
        return _ALL & ~mask if inverted else mask

    def _member(self) -> int:
        character = self._next()
        return self._escaped() if character == "\\" else _mask(character)

    def _range(self, low: int, high: int) -> int:
        if low & (low - 1) or high & (high - 1):
            raise RegexError("a range in [ ] has a class such as \\d for an end")
        if high < low:
            raise RegexError("a range in [ ] runs backwards")
        return (high << 1) - low  # every bit from low to high


def compile_pattern(pattern: str) -> tuple[list[Instruction], int]:
    """The program of a pattern, and where in it to begin. Raises `RegexError`."""
    parser = _Parser(pattern)
    begin = parser.parse()
    return parser.program, begin
