"""A node made by hand, without a TUN, that says what it is told to: for what an honest one never says."""

import os
import socket
import time

from zignet.identity import SecretKey
from zignet.lab.hosts import PORT
from zignet.noise import (
    AES_IN_HARDWARE,
    NO_PSK,
    InitiationPayload,
    Initiator,
    MacMaker,
    MessageType,
    Static,
    Suite,
)
from zignet.wire import Keepalive, parse_control, seal, unseal

SOON_S = 1.0


class Stranger:
    """One end on a host, for talking to the node of another."""

    def __init__(self, host, target, secret=None, psk=NO_PSK):
        self.secret = secret or SecretKey.generate()
        self.psk = psk
        self.target = target.secret.public.x
        self.macs = MacMaker(self.target)
        self.device = os.urandom(8)
        self.end = host.namespace.socket(kind=socket.SOCK_DGRAM)
        self.end.connect((target.address, PORT))
        self.handshake = None
        self.counter = 0

    def initiation(self, suite=Suite.AES, key=None, stamp=None, index=77):
        """A whole initiation."""
        payload = InitiationPayload(
            key or self.secret.public.ed, stamp or time.time_ns() // 1000, self.device, AES_IN_HARDWARE
        )
        self.handshake = Initiator.begin(Static(self.secret.x), self.target, self.psk, suite, index, payload)
        return self.macs.add(self.handshake.message, 0.0)

    def call(self, tries=3, **how):
        """Make a session. Whether there was an answer."""
        for _ in range(tries):
            time.sleep(0.03)  # initiations of one key in less than 20 ms are not answered
            self.end.send(self.initiation(**how))
            response = self.datagram(MessageType.RESPONSE)
            if response is not None:
                break
        else:
            return False
        self.handshake.finish(response)
        self.counter = 0
        self.say(Keepalive().encode())
        return True

    def sealed(self, frame):
        """A data message."""
        keys = self.handshake.keys
        message = seal(
            self.handshake.suite, bytes(keys.send), self.handshake.remote_index, self.counter, frame
        )
        self.counter += 1
        return message

    def say(self, frame):
        """Send a frame."""
        self.end.send(self.sealed(frame))

    def datagram(self, kind, seconds=SOON_S):
        """The next message of this type, or None."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.end.settimeout(left)
            try:
                heard = self.end.recv(65536)
            except TimeoutError:
                return None
            except ConnectionRefusedError:  # nobody listens there
                continue
            if heard[0] == kind:
                return heard
        return None

    def frame(self, seconds=SOON_S):
        """The next frame that it is told, or None."""
        heard = self.datagram(MessageType.DATA, seconds)
        if heard is None:
            return None
        return unseal(self.handshake.suite, bytes(self.handshake.keys.receive), heard)

    def told(self, kind, seconds=SOON_S):
        """The next control frame of this kind, or None."""
        while (frame := self.frame(seconds)) is not None:
            if frame[0] == 0 and isinstance(found := parse_control(frame), kind):
                return found
        return None

    def close(self):
        self.end.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()
