"""A contact as a link: `zignet:KEY?name=alice`. A name in it is a proposal; the key is all that counts.

The form is a URI without authority (RFC 3986 §3). Scheme and key are the same in upper case, as in QR codes.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, quote

from zignet.config.values import peer_name
from zignet.contacts.contact import ContactError
from zignet.identity import BadKey, PublicKey

__all__ = ["SCHEME", "format_link", "parse_link"]

SCHEME = "zignet:"
_MOST = 1_024  # characters


def format_link(key: PublicKey, name: str = "") -> str:
    """The link of a key."""
    return f"{SCHEME}{key.name}" + (f"?name={quote(name)}" if name else "")


def parse_link(text: str) -> tuple[PublicKey, str]:
    """Key and name, "" where there is none. Parameters that are not known are left alone. Raises `ContactError`."""
    text = text.strip()
    if not text.lower().startswith(SCHEME):
        raise ContactError('A contact\'s link begins with "zignet:".')
    if len(text) > _MOST:
        raise ContactError(f"The link is longer than {_MOST} characters.")
    path, _, query = text[len(SCHEME) :].partition("#")[0].partition("?")
    try:
        key = PublicKey.from_text(path.strip("/"))
    except BadKey as error:
        raise ContactError(f"There is no key in the link: {error}.") from None
    names = [value for word, value in parse_qsl(query, max_num_fields=32) if word.lower() == "name"]
    if not names:
        return key, ""
    try:
        return key, peer_name(names[0])
    except ValueError as error:
        raise ContactError(f"The name in the link can't be used: {error}.") from None
