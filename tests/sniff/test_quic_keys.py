import pytest
from hypothesis import given
from hypothesis import strategies as st

from sniff.quic import _VERSIONS
from sniff.quic_keys import InitialKeys, header_mask, initial_keys, open_payload
from tests.sniff.initials import DRAFT29, V1, V2, VERSIONS

CID = bytes.fromhex("8394c8f03e515708")


@pytest.mark.parametrize("version", VERSIONS)
def test_constants(version):
    ours = _VERSIONS[version.number]
    assert (ours.salt, ours.label, ours.initial) == (version.salt, version.label, version.initial)


@pytest.mark.parametrize(
    ("version", "key", "iv", "hp"),
    [
        (  # RFC 9001 A.1
            V1,
            "1f369613dd76d5467730efcbe3b1a22d",
            "fa044b2f42a3fd3b46fb255c",
            "9f50449e04a0e810283a1e9933adedd2",
        ),
        (  # RFC 9369 A.1
            V2,
            "8b1a0bc121284290a29e0971b5cd045d",
            "91f73e2351d8fa91660e909f",
            "45b95e15235d6f45a6b19cbcb0294ba9",
        ),
        (  # draft-ietf-quic-tls-29 A.1
            DRAFT29,
            "175257a31eb09dea9366d8bb79ad80ba",
            "6b26114b9cba2b63a9e8dd4f",
            "9ddd12c994c0698b89374a9c077a3077",
        ),
    ],
)
def test_keys(version, key, iv, hp):
    expected = InitialKeys(bytes.fromhex(key), bytes.fromhex(iv), bytes.fromhex(hp))
    assert initial_keys(CID, version.salt, version.label) == expected


def test_header_mask():
    """RFC 9001 A.2."""
    keys = initial_keys(CID, V1.salt, V1.label)
    assert header_mask(keys, bytes.fromhex("d1b1c98dd7689fb8ec11d242b123dc9b"))[:5] == bytes.fromhex(
        "437b9aec36"
    )


@given(st.binary(max_size=60))
def test_what_was_not_sealed_does_not_open(sealed):
    keys = initial_keys(CID, V1.salt, V1.label)
    assert open_payload(keys, 0, b"header", sealed) is None
