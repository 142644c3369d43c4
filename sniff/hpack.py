"""HPACK, the decoding half (RFC 7541): just enough to read the first header block of a connection.

The dynamic table starts empty and holds at most the 4,096 bytes of the default setting, because the server
has not yet been able to allow more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

__all__ = ["HpackError", "decode_fields", "decode_huffman"]

_Field = tuple[bytes, bytes]

_TABLE_SIZE = 4096  # bytes, SETTINGS_HEADER_TABLE_SIZE's initial value (RFC 9113 §6.5.2)
_ENTRY_OVERHEAD = 32  # bytes, RFC 7541 §4.1
_MAX_INTEGER = 1 << 24  # larger ones can't be right where a block has at most 16 KiB

# RFC 7541 appendix A. A name alone has an empty value.
_STATIC: tuple[_Field, ...] = tuple(
    (name.encode(), value.encode())
    for name, _, value in (
        line.strip().partition(" ")
        for line in """\
        :authority
        :method GET
        :method POST
        :path /
        :path /index.html
        :scheme http
        :scheme https
        :status 200
        :status 204
        :status 206
        :status 304
        :status 400
        :status 404
        :status 500
        accept-charset
        accept-encoding gzip, deflate
        accept-language
        accept-ranges
        accept
        access-control-allow-origin
        age
        allow
        authorization
        cache-control
        content-disposition
        content-encoding
        content-language
        content-length
        content-location
        content-range
        content-type
        cookie
        date
        etag
        expect
        expires
        from
        host
        if-match
        if-modified-since
        if-none-match
        if-range
        if-unmodified-since
        last-modified
        link
        location
        max-forwards
        proxy-authenticate
        proxy-authorization
        range
        referer
        refresh
        retry-after
        server
        set-cookie
        strict-transport-security
        transfer-encoding
        user-agent
        vary
        via
        www-authenticate""".splitlines()
    )
)

# RFC 7541 appendix B. The code is canonical: codes of one length count upwards in the order of the symbols,
# and each length goes on where the shorter one stopped. So the lengths say it all.
_SYMBOLS_BY_LENGTH: dict[int, bytes] = {
    5: b"012aceiost",
    6: b" %-./3456789=A_bdfghlmnpru",
    7: b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz",
    8: b"&*,;XZ",
    10: b'!"()?',
    11: b"'+|",
    12: b"#>",
    13: b"\x00$@[]~",
    14: b"^}",
    15: b"<`{",
    19: b"\\\xc3\xd0",
    20: b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2",
    21: b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6",
    22: bytes.fromhex("8184858688929a9ca0a3a4a9aaadb2b5b9babbbdbec4c6e4e8e9"),
    23: bytes.fromhex("0187898a8b8c8d8f93959697989b9d9ea5a6a8aeafb4b6b7bcbfc5e7ef"),
    24: b"\t\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed",
    25: b"\xc7\xcf\xea\xeb",
    26: bytes.fromhex("c0c1c8c9cacdd2d5dadbeef0f2f3ff"),
    27: bytes.fromhex("cbccd3d4d6dddedff1f4f5f6f7f8fafbfcfdfe"),
    28: bytes.fromhex("020304050607080b0c0e0f1011121314151718191a1b1c1d1e1f7fdcf9"),
    30: b"\n\r\x16",  # and the end-of-string symbol, which must not occur
}
_LONGEST_CODE = 30


def _codes() -> dict[int, int]:
    """Symbol by code, each code with a 1 bit put before it so that its length is part of the key."""
    codes: dict[int, int] = {}
    code = 1
    for length in range(1, _LONGEST_CODE + 1):
        code <<= 1
        for symbol in _SYMBOLS_BY_LENGTH.get(length, b""):
            codes[code] = symbol
            code += 1
    return codes


_CODES = _codes()


class HpackError(ValueError):
    """The header block is not valid HPACK."""


def decode_fields(block: bytes) -> Iterator[_Field]:
    """The fields of the connection's first header block, one by one as (name, value).

    Raises `HpackError` on reaching what is malformed. Time and memory are linear in the block's size.
    """
    table: deque[_Field] = deque()  # the dynamic table, newest first
    room = capacity = _TABLE_SIZE
    fields_seen = False
    at = 0
    while at < len(block):
        first = block[at]
        if first & 0x80:  # indexed field, §6.1
            index, at = _integer(block, at, 7)
            fields_seen = True
            yield _entry(index, table)
            continue
        if first & 0xE0 == 0x20:  # change of the dynamic table's size, §6.3
            size, at = _integer(block, at, 5)
            if size > _TABLE_SIZE or fields_seen:
                raise HpackError("a table size that is too large or comes too late")
            room += size - capacity
            capacity = size
            continue
        indexed = first & 0x40  # literal with incremental indexing, §6.2.1, or without, §6.2.2 and §6.2.3
        index, at = _integer(block, at, 6 if indexed else 4)
        if index:
            name = _entry(index, table)[0]
        else:
            name, at = _string(block, at)
        value, at = _string(block, at)
        fields_seen = True
        if indexed:
            table.appendleft((name, value))
            room -= _ENTRY_OVERHEAD + len(name) + len(value)
            while room < 0:  # §4.4; an entry larger than the table empties it and is not kept
                old_name, old_value = table.pop()
                room += _ENTRY_OVERHEAD + len(old_name) + len(old_value)
        yield name, value


def decode_huffman(data: bytes) -> bytes:
    """A string in HPACK's Huffman code, RFC 7541 §5.2. Raises `HpackError`."""
    codes = _CODES
    out = bytearray()
    code = 1
    for byte in data:
        for shift in (7, 6, 5, 4, 3, 2, 1, 0):
            code = code << 1 | byte >> shift & 1
            symbol = codes.get(code)
            if symbol is not None:
                out.append(symbol)
                code = 1
        if code >> _LONGEST_CODE:
            raise HpackError("the end-of-string symbol inside a string")
    if code >= 1 << 8 or code & (code + 1):  # at most seven bits, all of them 1
        raise HpackError("a Huffman string with wrong padding")
    return bytes(out)


def _entry(index: int, table: deque[_Field]) -> _Field:
    """The field at an index of the static and dynamic tables, RFC 7541 §2.3.3."""
    if 0 < index <= len(_STATIC):
        return _STATIC[index - 1]
    index -= len(_STATIC) + 1
    if not 0 <= index < len(table):
        raise HpackError("an index beyond the tables")
    return table[index]


def _integer(block: bytes, at: int, prefix: int) -> tuple[int, int]:
    """An integer whose first `prefix` bits are in `block[at]`, and the offset behind it (RFC 7541 §5.1)."""
    mask = (1 << prefix) - 1
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    shift = 0
    while at < len(block):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        shift += 7
        if value > _MAX_INTEGER or shift > 28:
            break
        if byte < 0x80:
            return value, at
    raise HpackError("an integer that is cut off or too large")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    """A string literal and the offset behind it, RFC 7541 §5.2."""
    if at >= len(block):
        raise HpackError("a string that is cut off")
    huffman = block[at] & 0x80
    length, at = _integer(block, at, 7)
    stop = at + length
    if stop > len(block):
        raise HpackError("a string that is cut off")
    raw = block[at:stop]
    return (decode_huffman(raw) if huffman else raw), stop
