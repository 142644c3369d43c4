"""The peers of a configuration: tables in it, and files of lines. Made for 100,000 of them.

A peers file has one peer a line, `name key [endpoint]`, and comments behind `#`. To look at a key costs 30 µs of
libsodium's time, which does not hold the interpreter's lock: long files are read by as many threads as
there are processors.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address, ip_address
from itertools import takewhile
from pathlib import Path

from zignet.config import values
from zignet.config.document import Items, Node, Scalar, Table
from zignet.config.files import read_text
from zignet.config.model import Config, PeerConfig, TunConfig
from zignet.config.problem import Problem
from zignet.config.reader import Reading, one, path, read_fields
from zignet.identity import BadKey, PublicKey, decode_key

__all__ = ["MAX_PEER_BYTES", "Roll", "in_own_range", "read_line"]

MAX_PEER_BYTES = 64 << 20  # of a peers file
_MOST_BAD_LINES = 20  # told of; a file that is all wrong is wrong for one reason
_PIECE = 128 << 10  # characters that a thread reads at a time, some 1,500 lines
_MOST_THREADS = 8
_EXPECTED = 'expected a peer, such as {name: peer_us, key: ...}, or "file: ./peers.txt"'


class Roll:
    """The peers as they are read, and where each stands, for messages and against doubles."""

    def __init__(self) -> None:
        self._peers: list[PeerConfig] = []
        self._files: list[str] = []
        self._places = array("Q")  # index into _files << 32 | line
        self._names: dict[str, int] = {}  # lower case -> index
        self._keys: dict[PublicKey, int] = {}

    def read(self, node: Node, key: str, reading: Reading) -> tuple[PeerConfig, ...]:
        """The reader of `peers`."""
        if isinstance(node, Items):
            for at, item in enumerate(node.items):
                self._entry(item, f"{key}[{at}]", reading)
        elif not (isinstance(node, Scalar) and node.is_null):
            reading.complain(node.line, key, f"expected a list: {_EXPECTED}")
        return tuple(self._peers)

    def _entry(self, item: Node, key: str, reading: Reading) -> None:
        if not isinstance(item, Table):
            reading.complain(item.line, key, _EXPECTED)
        elif "file" in item.entries:
            for word, (line, _) in item.entries.items():
                if word != "file":
                    reading.complain(
                        line, f"{key}.{word}", "a file of peers stands alone: - file: ./peers.txt"
                    )
            self._read_file(item.entries["file"][1], f"{key}.file", reading)
        else:
            readers = {"name": one(values.peer_name), "key": one(PublicKey.from_text)}
            found = read_fields(PeerConfig, item, key, reading, readers)
            for word in ("name", "key"):
                if word not in item.entries:
                    reading.complain(item.line, f"{key}.{word}", "missing; every peer has a name and a key")
            if "name" in found and "key" in found:
                self._add(PeerConfig(**found), reading.file, item.line, key, reading)

    def _read_file(self, node: Node, key: str, reading: Reading) -> None:
        file = path(node, key, reading)
        if not isinstance(file, Path):
            return
        try:
            text = read_text(file, MAX_PEER_BYTES)
        except ValueError as error:
            reading.complain(node.line, key, str(error))
            return
        name = str(file)
        bad = 0
        for number, found in enumerate(_read_lines(text), 1):
            if isinstance(found, PeerConfig):
                self._add(found, name, number, "", reading)
            elif found is not None:
                reading.problems.append(Problem(name, number, "", found))
                bad += 1
                if bad == _MOST_BAD_LINES:
                    return

    def _add(self, peer: PeerConfig, file: str, line: int, key: str, reading: Reading) -> None:
        """Take a peer in, unless its name or key has been seen."""
        folded = peer.name.lower()
        index = len(self._peers)
        named = self._names.setdefault(peer.name if folded == peer.name else folded, index)
        keyed = self._keys.setdefault(peer.key, index)
        if named != index:
            message = f'the name "{peer.name}" is given twice; the first is in {self._place(named)}'
            reading.problems.append(Problem(file, line, key and f"{key}.name", message))
        if keyed != index:
            other = self._peers[keyed]
            same = "the same key as" if other.key.odd == peer.key.odd else "the negation of the key of"
            message = f'{same} "{other.name}" in {self._place(keyed)}; both would be one peer'
            reading.problems.append(Problem(file, line, key and f"{key}.key", message))
        if named == keyed == index:
            if not self._files or self._files[-1] != file:
                self._files.append(file)
            self._places.append((len(self._files) - 1) << 32 | line)
            self._peers.append(peer)

    def check(self, config: Config, reading: Reading) -> None:
        """What must fit with the rest of the configuration."""
        exits = {name.lower() for name in config.exits}
        addresses: dict[IPv4Address, int] = {}
        for index, peer in enumerate(self._peers):
            if exits and peer.name.lower() in exits:
                self._complain(index, "name", f'"{peer.name}" is the name of an exit', reading)
            if peer.endpoint is not None and in_own_range(peer.endpoint, config.tun):
                self._complain(
                    index,
                    "endpoint",
                    f"{peer.endpoint} lies in ZigNet's own range (tun.range, tun.range6), "
                    "and a peer's endpoint is its address outside of it",
                    reading,
                )
            if peer.address is not None:
                wrong = _wrong_address(peer.address, config.tun)
                first = addresses.setdefault(peer.address, index)
                if not wrong and first != index:
                    wrong = f'{peer.address} is "{self._peers[first].name}" in {self._place(first)} already'
                if wrong:
                    self._complain(index, "address", wrong, reading)

    def _complain(self, index: int, word: str, message: str, reading: Reading) -> None:
        place = self._places[index]
        file = self._files[place >> 32]
        key = f"peers.{self._peers[index].name}.{word}"
        reading.problems.append(Problem(file, place & 0xFFFFFFFF, key, message))

    def _place(self, index: int) -> str:
        place = self._places[index]
        return f"{self._files[place >> 32]}:{place & 0xFFFFFFFF}"


# files


def read_line(line: str) -> tuple[str, bytes, str | None] | None:
    """Name, key and endpoint on one line of a peers file, or None if there is nothing on it. Raises `ValueError`.

    Whether the bytes of the key are a good one is asked for many together.
    """
    words = line.split()
    if "#" in line:
        words = list(takewhile(lambda word: not word.startswith("#"), words))
    if not words:
        return None
    if not 2 <= len(words) <= 3:
        raise ValueError(f"expected a name, a key and perhaps an endpoint, not {len(words)} words")
    name = values.peer_name(words[0])
    key = decode_key(words[1])
    return name, key, values.host_port(words[2]) if len(words) == 3 else None


Found = PeerConfig | str | None  # a peer, what is wrong with the line, or an empty line


def _read_lines(text: str) -> Iterator[Found]:
    """What each line holds, in their order."""
    read = partial(_read_piece, text)
    if len(text) <= _PIECE:
        yield from read((0, len(text)))
        return
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS)) as pool:
        for found in pool.map(read, _pieces(text)):
            yield from found


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    """Where some whole lines begin and end."""
    begin = 0
    while begin < len(text):
        end = text.find("\n", begin + _PIECE) + 1 or len(text)
        yield begin, end
        begin = end


def _read_piece(text: str, piece: tuple[int, int]) -> list[Found]:
    lines: list[tuple[str, bytes, str | None] | str | None] = []
    for line in text[slice(*piece)].removesuffix("\n").split("\n"):
        try:
            lines.append(read_line(line))
        except ValueError as error:
            lines.append(str(error))
    keys = iter(PublicKey.from_many([line[1] for line in lines if isinstance(line, tuple)]))
    return [_peer(line, next(keys)) if isinstance(line, tuple) else line for line in lines]


def _peer(line: tuple[str, bytes, str | None], key: PublicKey | BadKey) -> Found:
    name, _, endpoint = line
    return str(key) if isinstance(key, BadKey) else PeerConfig(name, key, endpoint)


# addresses


def in_own_range(endpoint: str, tun: TunConfig) -> bool:
    """Whether host:port is an address within ZigNet's own ranges."""
    host = endpoint.rpartition(":")[0]
    if not host.endswith(("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "]")):
        return False  # a name
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return False  # a name, too
    return address in (tun.range if address.version == 4 else tun.range6)


def _wrong_address(address: IPv4Address, tun: TunConfig) -> str:
    if address not in tun.range:
        return f"{address} is not in tun.range, {tun.range}"
    if address in tun.aliases:
        return f"{address} is one of the NAT's aliases ({tun.aliases}), not for peers"
    if address in (tun.address, tun.range.network_address):
        return f"{address} is this host's own; peers have those from {tun.address + 1} on"
    return ""
