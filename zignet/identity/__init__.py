"""Who a node is: a key pair, and nothing else (protocol §1).

PublicKey     a good key: from bytes, or from a name, base58 or hexadecimal; `key.name`, `key.x`
SecretKey     a seed and what follows from it; shows itself to nobody
BadKey        why some bytes or text are not a key
matches       whether an Ed25519 key has this X25519 form, at the cost of a multiplication
address6      the IPv6 address of a key
read_key, write_key, KeyFileError       the file that a node keeps its seed in
read_psk                                a pre-shared key, from a file of its own
export_openssh, import_key              the same identity on another device
"""

from zignet.identity.address import address6
from zignet.identity.files import (
    KeyFileError,
    read_key,
    read_psk,
    read_secret,
    replace_key,
    write_key,
    write_secret,
)
from zignet.identity.keys import BadKey, PublicKey, SecretKey, decode_key, matches
from zignet.identity.transfer import PassphraseNeeded, export_openssh, import_key

__all__ = [
    "BadKey",
    "KeyFileError",
    "PassphraseNeeded",
    "PublicKey",
    "SecretKey",
    "address6",
    "decode_key",
    "export_openssh",
    "import_key",
    "matches",
    "read_key",
    "read_psk",
    "read_secret",
    "replace_key",
    "write_key",
    "write_secret",
]
