"""Lists of who may: names of peers, keys, and files of keys."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zignet.config import values
from zignet.config.document import Node
from zignet.config.reader import Reading, many
from zignet.identity import BadKey, PublicKey
from zignet.routing import did_you_mean

if TYPE_CHECKING:
    from zignet.config.model import PeerConfig

__all__ = ["FILE", "Members", "check_members", "key_files", "members_of", "read_members"]

FILE = "file:"


def read_members(node: Node, key: str, reading: Reading) -> Any:
    """Names and keys as they are; a path behind `file:` starts at the configuration's folder."""
    found = many(values.some_text)(node, key, reading)
    if not isinstance(found, tuple):
        return found
    for text in found:
        if text.endswith(":"):
            reading.complain(node.line, key, f'nothing stands behind "{text}"')
    return tuple(
        f"{FILE}{reading.folder / Path(text.removeprefix(FILE)).expanduser()}"
        if text.startswith(FILE)
        else text
        for text in found
    )


def check_members(allow: Iterable[str], names: Iterable[str], line: int, key: str, reading: Reading) -> None:
    """Complain about what is neither the name of a peer, nor a key, nor a file, which may come later."""
    known = {name.lower() for name in names}
    for text in allow:
        if not text.startswith(FILE) and text.lower() not in known:
            try:
                PublicKey.from_text(text)
            except BadKey:
                hint = did_you_mean(text, known)
                reading.complain(
                    line, key, f'"{text}" is neither the name of a peer, nor a key, nor file:PATH{hint}'
                )


@dataclass(frozen=True, slots=True)
class Members:
    """Some keys, and those in some files."""

    keys: frozenset[PublicKey]
    files: tuple[Container[PublicKey], ...] = ()

    def __contains__(self, key: object) -> bool:
        return key in self.keys or any(key in file for file in self.files)


def members_of(
    allow: Iterable[str] | None,
    peers: Iterable[PeerConfig],
    files: Mapping[Path, Container[PublicKey]],
) -> Members | None:
    """Whom a list means, which was found good; None: everybody."""
    if allow is None:
        return None
    texts = list(allow)
    named = {peer.name.lower(): peer.key for peer in peers} if texts else {}
    return Members(
        frozenset(
            named.get(text.lower()) or PublicKey.from_text(text)
            for text in texts
            if not text.startswith(FILE)
        ),
        tuple(files[path] for path in key_files(texts)),
    )


def key_files(allow: Iterable[str] | None) -> list[Path]:
    """The files that are named."""
    return [Path(text.removeprefix(FILE)) for text in allow or () if text.startswith(FILE)]
