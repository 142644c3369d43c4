"""Fuzz targets of the key file. `python -m tests.zignet.policy.fuzz --seconds 600` runs them long."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.fuzzing import main
from tests.zignet.identity.fuzz import TEXTS, mutate
from tests.zignet.policy.keys import KEYS
from zignet.identity import BadKey, PublicKey, names
from zignet.policy.keyfile import parse_keys

__all__ = ["TARGETS"]


def alone(text: bytes) -> bytes | str:
    try:
        return names.decode(text.decode("ascii", "replace"))
    except ValueError as error:
        return str(error)


# Invariant: many texts decode as each of them does alone.
def fuzz_many(rng: random.Random) -> None:
    form = rng.choice(["name", "hex", "base58"])
    texts = [getattr(rng.choice(KEYS), form) for _ in range(rng.randint(1, 20))]
    if rng.random() < 0.8:
        texts[rng.randrange(len(texts))] = mutate(rng, rng.choice(TEXTS), TEXTS)
    raw = ["".join(text.split()).encode("utf-8", "replace") for text in texts]
    for text, found in zip(raw, names.decode_many(raw), strict=True):
        assert found == alone(text)


# Invariant: any bytes are a key file; a line counts if its first word is a key, and is told of if it is something else.
def fuzz_files(rng: random.Random) -> None:
    lines = []
    for _ in range(rng.randint(0, 12)):
        line = mutate(rng, rng.choice(TEXTS), TEXTS) if rng.random() < 0.5 else rng.choice(TEXTS)
        line += rng.choice(["", " name", "\t# x", "\r", "\0"])
        lines.append(line.encode("utf-8", "surrogatepass"))
    content = rng.choice([b"\n", b"\r\n"]).join(lines)
    found = parse_keys(content)
    bad = 0
    for number, line in enumerate(content.split(b"\n"), 1):
        words = line.split()
        if not words or words[0].startswith(b"#"):
            continue
        try:
            key = PublicKey.from_text(words[0].decode("ascii", "replace"))
        except BadKey:
            bad += 1
            continue
        assert 0 < found.line_of(key) <= number
    assert found.bad == bad
    assert all(problem.isprintable() for problem in found.problems)
    assert all(name.isprintable() for name in found.names.values())


TARGETS: list[Callable[[random.Random], None]] = [fuzz_many, fuzz_files]


if __name__ == "__main__":
    main(__doc__, TARGETS)
