"""Regular expressions that match in time linear in the name.

A name comes from whoever made the flow, and a backtracking matcher can be sent to sleep for hours by one
(`(a+)+$` and its cousins; even `.*a.*b.*c.*d` costs the fourth power of the length). So DOMAIN-REGEX is
matched by an automaton: Thompson's construction, its sets of states remembered as they are met ("regular
expression search algorithm", CACM 11:6, 1968). What needs backtracking by its nature (look-around,
back-references, possessive and atomic groups) is refused when the rule is read.

    text ──`pattern`──► program: CHARS | SPLIT | CHECK | MATCH ──Regex──► a graph of _State, grown on demand
"""

from __future__ import annotations

from enum import IntEnum

from zignet.routing.pattern import WORD, Check, Op, RegexError, compile_pattern

__all__ = ["Regex", "RegexError"]

MAX_STATES = 64  # remembered per expression; a name that needs more costs more, and no memory


class _Edge(IntEnum):
    """What lies on one side of a place between two characters."""

    NONE = 0  # the end of the name
    WORD = 1
    OTHER = 2


class _State(dict[str, "_State"]):
    """A set of places in the program. As a dict: the state after each character, filled in as they come."""

    __slots__ = ("_accepts", "before", "owner", "places")

    def __init__(self, owner: Regex, places: frozenset[int], before: _Edge) -> None:
        self.owner = owner
        self.places = places
        self.before = before  # what the last character was, for ^ and \b
        self._accepts: bool | None = None

    def __missing__(self, character: str) -> _State:
        state = self.owner._step(self, character)
        self[character] = state
        return state

    @property
    def accepts(self) -> bool:
        """Whether the expression is found if the name ends here."""
        if self._accepts is None:
            self._accepts = self.owner._reach(self, _Edge.NONE) is None
        return self._accepts


class Regex:
    """A compiled expression. Raises `RegexError`, whose text says what is not supported and why."""

    __slots__ = ("_begin", "_found", "_program", "_start", "_states", "pattern")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self._program, self._begin = compile_pattern(pattern)
        self._start = _State(self, frozenset((self._begin,)), _Edge.NONE)
        self._found = _State(self, frozenset(), _Edge.NONE)  # a match lies behind: nothing can undo it
        self._states: dict[tuple[frozenset[int], _Edge], _State] = {}

    def search(self, name: str) -> bool:
        """Whether the expression is found in `name`: lower-case ASCII, in time linear in its length."""
        if not name.isascii():
            return False
        state, found = self._start, self._found
        for character in name:
            state = state[character]
            if state is found:
                return True
        return state.accepts

    def __repr__(self) -> str:
        return f"Regex({self.pattern!r})"

    def _forget(self) -> None:
        """Starts anew. States point at each other: they are emptied, not left to the cycle collector."""
        for state in self._states.values():
            state.clear()
        self._states = {}
        self._start.clear()

    def _step(self, state: _State, character: str) -> _State:
        """The state after one more character; the search may also begin anew there."""
        kind = _Edge.WORD if WORD >> ord(character) & 1 else _Edge.OTHER
        reached = self._reach(state, kind)
        if reached is None:
            return self._found
        bit = 1 << ord(character)
        places = frozenset(onward for mask, onward in reached if mask & bit) | {self._begin}
        key = (places, kind)
        after = self._states.get(key)
        if after is None:
            if len(self._states) >= MAX_STATES:
                self._forget()
            after = self._states[key] = _State(self, places, kind)
        return after

    def _reach(self, state: _State, ahead: _Edge) -> list[tuple[int, int]] | None:
        """What can be read next as (mask, onward), given what lies ahead; None if the match is complete."""
        reached: list[tuple[int, int]] = []
        seen: set[int] = set()
        pending = list(state.places)
        while pending:
            place = pending.pop()
            if place in seen:
                continue
            seen.add(place)
            op, first, second = self._program[place]
            if op == Op.CHARS:
                reached.append((first, second))
            elif op == Op.SPLIT:
                pending += (first, second)
            elif op == Op.MATCH:
                return None
            elif _holds(first, state.before, ahead):
                pending.append(second)
        return reached


def _holds(check: int, before: _Edge, ahead: _Edge) -> bool:
    if check == Check.START:
        return before == _Edge.NONE
    if check == Check.END:
        return ahead == _Edge.NONE
    at_edge = (before == _Edge.WORD) != (ahead == _Edge.WORD)
    return at_edge == (check == Check.WORD_EDGE)
