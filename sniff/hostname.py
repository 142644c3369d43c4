"""What counts as a name, and how it is written."""

from __future__ import annotations

__all__ = ["authority_name", "host_name"]

# Letters, digits, hyphen (RFC 952, RFC 1123 §2.1), and the underscore that real names carry all the same.
_NAME_BYTES = b"abcdefghijklmnopqrstuvwxyz0123456789-_."
_DIGITS = b"0123456789"
_MAX_NAME = 253  # RFC 1035 §2.3.4, in text form without the last dot
_MAX_LABEL = 63


def host_name(raw: bytes | bytearray) -> str:
    """The DNS name in `raw`, lower case and without its trailing dot; "" when it is not a plausible one.

    IP literals are not names; nor is anything whose last label is a number, which programs take for an IPv4
    address in one of its odd spellings ("127.1", "0x7f000001"). Raw UTF-8 is not a name either: the A-label
    form is what travels in DNS (RFC 5890).
    """
    name = bytes(raw).lower()
    if name.endswith(b"."):
        name = name[:-1]
    if not name or len(name) > _MAX_NAME or name.translate(None, _NAME_BYTES):
        return ""
    if name.startswith(b".") or b".." in name:
        return ""
    if len(name) > _MAX_LABEL and max(map(len, name.split(b"."))) > _MAX_LABEL:
        return ""
    last = name[name.rfind(b".") + 1 :]
    if not last or last.isdigit() or (last.startswith(b"0x") and _is_hex(last[2:])):
        return ""
    return name.decode("ascii")


def authority_name(authority: bytes | bytearray) -> str:
    """The name in `host[:port]` (RFC 3986 §3.2); "" where it is an IP literal or broken.

    Userinfo must have been taken off before: only an absolute-form target may have it.
    """
    colon = authority.rfind(b":")
    if colon < 0:
        return host_name(authority)
    if authority[colon + 1 :].translate(None, _DIGITS):
        return ""
    return host_name(authority[:colon])


def _is_hex(digits: bytes) -> bool:
    return not digits.translate(None, b"0123456789abcdef")
