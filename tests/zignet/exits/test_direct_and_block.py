"""The two exits that need no proxy."""

from __future__ import annotations

from nat.exit import Dial, Exit, Reason, Refusal, Target, UdpDirect
from zignet.exits import BUILT_IN, Block, Direct

TARGET = Target(bytes((203, 0, 113, 5)), 443, "www.video.example")


def test_direct_dials_the_address() -> None:
    exit_: Exit = Direct()
    assert exit_.name == "direct"
    assert exit_.tcp(TARGET) == Dial(TARGET.address, 443)
    assert exit_.udp() == UdpDirect()


def test_direct_through_an_interface() -> None:
    exit_ = Direct("wan2", "eth1")
    assert exit_.tcp(TARGET) == Dial(TARGET.address, 443, None, "eth1")
    assert exit_.udp() == UdpDirect("eth1")


def test_block_refuses_both() -> None:
    exit_: Exit = Block()
    for plan in (exit_.tcp(TARGET), exit_.udp()):
        assert isinstance(plan, Refusal)
        assert plan.reason == Reason.PROHIBITED


def test_built_in() -> None:
    assert {name: exit_.name for name, exit_ in BUILT_IN.items()} == {"direct": "direct", "block": "block"}
