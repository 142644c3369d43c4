"""The token's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from zignet.admin.token import TOKEN_NAME, admin_token
from zignet.identity import KeyFileError


def test_made_once(tmp_path: Path) -> None:
    token = admin_token(tmp_path / "state")
    assert len(token) >= 43  # 256 bits
    path = tmp_path / "state" / TOKEN_NAME
    assert path.stat().st_mode & 0o777 == 0o600
    assert admin_token(tmp_path / "state") == token
    assert admin_token(tmp_path / "other") != token


@pytest.mark.parametrize("text", ["", "short\n", "ü" * 50])
def test_a_damaged_one_is_not_a_token(tmp_path: Path, text: str) -> None:
    path = tmp_path / TOKEN_NAME
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="delete it"):
        admin_token(tmp_path)


def test_one_that_others_may_read_is_refused(tmp_path: Path) -> None:
    admin_token(tmp_path)
    (tmp_path / TOKEN_NAME).chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        admin_token(tmp_path)
