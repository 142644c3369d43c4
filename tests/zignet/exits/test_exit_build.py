"""Exits from a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from zignet.config import Config, ExitConfig
from zignet.exits import Block, Direct, ExitSetupError, Http, Socks5, build_exits


def config(*exits: ExitConfig) -> Config:
    return Config(exits={exit_.name: exit_ for exit_ in exits})


def test_two_are_always_there() -> None:
    assert build_exits(Config()) == {"direct": Direct(), "block": Block()}


def test_each_type(tmp_path: Path) -> None:
    password = tmp_path / "pw"
    password.write_text("secret word\r\nand a comment\n")
    built = build_exits(
        config(
            ExitConfig("tokyo", "socks5", "192.0.2.10:1080", udp=False),
            ExitConfig("six", "socks5", "[2001:db8::1]:1080", interface="eth1"),
            ExitConfig("office", "http", "192.0.2.11:3128", "me", password),
            ExitConfig("wan2", "direct", interface="eth1"),
            ExitConfig("nothing", "block"),
        )
    )
    assert list(built) == ["direct", "block", "tokyo", "six", "office", "wan2", "nothing"]
    assert built["tokyo"] == Socks5("tokyo", bytes((192, 0, 2, 10)), 1080, carries_udp=False)
    assert built["six"] == Socks5("six", bytes.fromhex("20010db8" + "00" * 11 + "01"), 1080, device="eth1")
    assert built["office"] == Http("office", bytes((192, 0, 2, 11)), 3128, "me", "secret word")
    assert built["wan2"] == Direct("wan2", "eth1")
    assert built["nothing"] == Block("nothing")


def test_a_host_name_is_resolved() -> None:
    built = build_exits(config(ExitConfig("here", "socks5", "localhost:1080")))
    exit_ = built["here"]
    assert isinstance(exit_, Socks5)
    assert exit_.address in (bytes((127, 0, 0, 1)), bytes(15) + b"\x01")


def test_a_name_that_does_not_resolve_names_the_exit() -> None:
    with pytest.raises(
        ExitSetupError, match=r"exit tokyo: the proxy's host nowhere\.invalid can't be resolved"
    ):
        build_exits(config(ExitConfig("tokyo", "socks5", "nowhere.invalid:1080")))


@pytest.mark.parametrize("address", [None, "192.0.2.10", "192.0.2.10:", ":1080", "192.0.2.10:70000"])
def test_a_bad_address(address: str | None) -> None:
    with pytest.raises(ExitSetupError, match=r"exit tokyo: .* is not host:port"):
        build_exits(config(ExitConfig("tokyo", "socks5", address)))


@pytest.mark.parametrize(
    ("content", "says"), [(None, "can't read"), (b"x" * 2000, "longer than"), (b"\xff\xfe", "not UTF-8")]
)
def test_a_bad_password_file(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "pw"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ExitSetupError, match=f"exit tokyo: .*{says}"):
        build_exits(config(ExitConfig("tokyo", "socks5", "192.0.2.10:1080", "me", path)))


def test_credentials_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "pw"
    path.write_text("p" * 300)
    with pytest.raises(ExitSetupError, match=r"exit tokyo: .*255 bytes"):
        build_exits(config(ExitConfig("tokyo", "socks5", "192.0.2.10:1080", "me", path)))
