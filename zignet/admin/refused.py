"""Why a request is not answered."""

from __future__ import annotations

__all__ = ["Refused"]


class Refused(Exception):
    """A request gets an error instead of its answer: the HTTP status (RFC 9110 §15), and a sentence for people."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
