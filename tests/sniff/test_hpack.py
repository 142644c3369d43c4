import hpack
import pytest
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.table import HeaderTable
from hypothesis import given
from hypothesis import strategies as st

from sniff import hpack as ours
from sniff.hpack import HpackError, decode_fields, decode_huffman


def test_static_table():
    assert ours._STATIC == HeaderTable.STATIC_TABLE


def test_huffman_code():
    expected = {
        1 << length | code: symbol
        for symbol, (code, length) in enumerate(zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True))
        if symbol < 256
    }
    assert expected == ours._CODES


@pytest.mark.parametrize(
    ("coded", "text"),
    [
        ("f1e3c2e5f23a6ba0ab90f4ff", b"www.example.com"),  # RFC 7541 C.4.1
        ("a8eb10649cbf", b"no-cache"),  # C.4.2
        ("25a849e95bb8e8b4bf", b"custom-value"),  # C.4.3
        ("", b""),
    ],
)
def test_huffman_examples(coded, text):
    assert decode_huffman(bytes.fromhex(coded)) == text


@pytest.mark.parametrize(
    "coded",
    [
        "ff",  # eight bits of padding
        "f1e3c2e5f23a6ba0ab90f4fe",  # padding that is not all 1
        "ffffffff",  # the end-of-string symbol
        "fffffffc",
    ],
)
def test_huffman_errors(coded):
    with pytest.raises(HpackError):
        decode_huffman(bytes.fromhex(coded))


@given(st.binary(max_size=80))
def test_huffman_against_the_oracle(text):
    from hpack.huffman import HuffmanEncoder

    coded = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(text)
    assert decode_huffman(coded) == text


@given(st.binary(max_size=40))
def test_huffman_of_anything_against_the_oracle(coded):
    from hpack.huffman_table import decode_huffman as oracle

    try:
        expected = oracle(coded)
    except hpack.HPACKDecodingError:
        with pytest.raises(HpackError):
            decode_huffman(coded)
    else:
        assert decode_huffman(coded) == expected


def test_example_without_huffman():
    """RFC 7541 C.3.1."""
    block = bytes.fromhex("828684410f7777772e6578616d706c652e636f6d")
    assert list(decode_fields(block)) == [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"www.example.com"),
    ]


fields = st.lists(
    st.tuples(
        st.sampled_from([b":authority", b":path", b"host", b"cookie", b"x"])
        | st.binary(min_size=1, max_size=30),
        st.binary(max_size=60) | st.sampled_from([b"x" * 500, b"y" * 3000, b"z" * 5000]),
    ),
    max_size=20,
)


@given(fields, st.booleans(), st.none() | st.integers(0, 4096))
def test_what_the_oracle_writes(written, huffman, table_size):
    """With repeats, entries larger than the table, evictions, and a change of the table's size."""
    encoder = hpack.Encoder()
    if table_size is not None:
        encoder.header_table_size = table_size
    block = encoder.encode(written + written, huffman=huffman)
    assert list(decode_fields(block)) == written + written


@given(st.binary(max_size=120))
def test_anything_against_the_oracle(block):
    """Where both accept they agree; the oracle is laxer about where a size may change, we about nothing."""
    decoder = hpack.Decoder(max_header_list_size=1 << 30)
    try:
        expected = [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]
    except hpack.HPACKError:
        expected = None
    try:
        found = list(decode_fields(block))
    except HpackError:
        return
    assert found == expected


def test_the_largest_table():
    assert list(decode_fields(bytes.fromhex("203fe11f82"))) == [(b":method", b"GET")]


@pytest.mark.parametrize(
    "block",
    [
        "80",  # index 0
        "be",  # the dynamic table is empty
        "ff80808080808001",  # an integer without an end in sight
        "ffffffff7f",
        "41",  # no value
        "4105616263",  # value cut off
        "40",  # no name
        "418f00",  # Huffman string cut off
        "3fe21f",  # table size 4097
        "8220",  # a table size after a field
        "7f",  # an index cut off
    ],
)
def test_errors(block):
    with pytest.raises(HpackError):
        list(decode_fields(bytes.fromhex(block)))
