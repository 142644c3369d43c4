"""The token that changes by TCP need: 256 random bits in a file of mode 0600."""

from __future__ import annotations

import secrets
from pathlib import Path

from zignet.identity import KeyFileError, write_secret
from zignet.identity.files import read_secret

__all__ = ["TOKEN_NAME", "admin_token"]

TOKEN_NAME = "admin-token"  # noqa: S105
BYTES = 32
GROUP_AND_OTHERS = 0o077


def admin_token(state_dir: Path) -> str:
    """The token of a state directory, made where there is none. Raises `KeyFileError`."""
    path = state_dir / TOKEN_NAME
    try:
        token = read_secret(path, GROUP_AND_OTHERS).strip()
    except FileNotFoundError:
        token = secrets.token_urlsafe(BYTES)
        write_secret(path, f"{token}\n")
    if len(token) < BYTES or not token.isascii():
        raise KeyFileError(f"{path} holds no token: delete it, and the next start makes a new one")
    return token
