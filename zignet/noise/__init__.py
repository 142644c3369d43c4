"""The handshake: Noise IKpsk2 in two suites, macs and cookies, rates, timestamps (protocol.md §3).

Five nouns carry the package:

- *static*: the long-lived secret of this node, made ready (`Static`).
- *initiator*, *responder*: one handshake, seen from either side. `Initiator.begin` makes the message,
  `Responder.open` reads it and `answer`s, `Initiator.finish` takes the answer. A message that is not a good one
  raises `HandshakeError`, and costs no state.
- *keys*: what both sides have at the end (`Keys`); `aead` makes a cipher of one.
- *macs*: `MacMaker` puts mac1 and mac2 on a message and keeps the peer's cookie, `MacChecker` looks at those that
  come and gives cookies. Look at mac1 before anything else.
- *stamp*: the timestamp that keeps an old initiation from being played again (`Stamps`).

Nothing here reads a socket, a clock or a file: bytes and `now` in, values out.

**Secrets in memory.** The static and the ephemeral secrets and the ciphers in use are in OpenSSL's memory, which
overwrites them when it releases them. A session's keys are bytearrays beside them (`zignet.peers.ready` says why),
overwritten when the session ends. What passes through Python cannot be overwritten, because its bytes
are immutable: Diffie-Hellman results, chaining keys, the transport keys between `Split` and `Keys`. They are
let go of as soon as they have been used, which in CPython frees them at once, but their memory keeps its content
until it is used again. `Keys` holds bytearrays, and `Keys.erase` overwrites them. No secret is in a `repr`, an
exception or a log.
"""

from zignet.noise.cookie import COOKIE_LIFE_S, MacChecker, MacMaker
from zignet.noise.errors import HandshakeError
from zignet.noise.handshake import NO_PSK, Static
from zignet.noise.limit import RateLimiter
from zignet.noise.message import (
    AES_IN_HARDWARE,
    COOKIE_SIZE,
    INITIATION_SIZE,
    RESPONSE_SIZE,
    InitiationPayload,
    Initiator,
    Keys,
    MessageType,
    Responder,
    ResponsePayload,
)
from zignet.noise.stamp import Stamps
from zignet.noise.suite import Aead, Suite, aead, nonce

__all__ = [
    "AES_IN_HARDWARE",
    "COOKIE_LIFE_S",
    "COOKIE_SIZE",
    "INITIATION_SIZE",
    "NO_PSK",
    "RESPONSE_SIZE",
    "Aead",
    "HandshakeError",
    "InitiationPayload",
    "Initiator",
    "Keys",
    "MacChecker",
    "MacMaker",
    "MessageType",
    "RateLimiter",
    "Responder",
    "ResponsePayload",
    "Stamps",
    "Static",
    "Suite",
    "aead",
    "nonce",
]
