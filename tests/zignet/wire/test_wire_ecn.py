"""ECN through the tunnel."""

from __future__ import annotations

import pytest

from zignet.wire import BadFrame, combine, outside
from zignet.wire.ecn import DROP, TABLE

# RFC 6040 figure 4, by its own names, rows and columns as printed there
COLUMNS = ("Not-ECT", "ECT(0)", "ECT(1)", "CE")
FIGURE = {
    "Not-ECT": ("Not-ECT", "Not-ECT", "Not-ECT", "drop"),
    "ECT(0)": ("ECT(0)", "ECT(0)", "ECT(1)", "CE"),
    "ECT(1)": ("ECT(1)", "ECT(1)", "ECT(1)", "CE"),
    "CE": ("CE", "CE", "CE", "CE"),
}
BITS = {"Not-ECT": 0b00, "ECT(0)": 0b10, "ECT(1)": 0b01, "CE": 0b11, "drop": None}  # RFC 3168 §5


@pytest.mark.parametrize("inner", FIGURE)
@pytest.mark.parametrize("outer", COLUMNS)
def test_figure_4(inner, outer):
    wanted = BITS[FIGURE[inner][COLUMNS.index(outer)]]
    assert combine(BITS[inner], BITS[outer]) == wanted
    assert TABLE[BITS[inner] << 2 | BITS[outer]] == (DROP if wanted is None else wanted)
    for dscp in (1, 46, 63):
        got = combine(dscp << 2 | BITS[inner], 0b101010_00 | BITS[outer])
        assert got == (None if wanted is None else dscp << 2 | wanted)


@pytest.mark.parametrize("protocol", [1, 4, 6, 17])
def test_a_packets_field_is_shown_outside(protocol):
    for ecn in range(4):
        assert outside(bytes((protocol, 0, 0xB8 | ecn, 64))) == ecn


@pytest.mark.parametrize("frame", [b"\0\3\0\0", b"\x2c\0\3\3", b"\0\3\3\3"])
def test_control_frames_and_fragments_show_none(frame):
    assert outside(frame) == 0


def test_no_frame():
    with pytest.raises(BadFrame):
        outside(b"\6\0\3")
