"""A hostile peer at an exit with a real engine. `python -m tests.zignet.peers.fuzz_exits --seconds 600` runs it long.

Frames are vectors and flows, mutated, with good seals: forged numbers, meanings, addresses in names, halves of packets,
pieces, bundles. What the exit may dial is loopback only, where nobody listens.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from unittest import mock

from nat.packet import Packet
from tests.fuzzing import main
from tests.nat.world import packed
from tests.zignet.peers.exits import ExitLab
from tests.zignet.peers.fuzz import flow, together
from tests.zignet.peers.pair import ONE4, PEER, Came, tcp, udp
from tests.zignet.wire.fuzz import EXITS, FRAMES, mutate
from zignet.noise import Suite
from zignet.peers import guest
from zignet.wire import BadFrame, Flag, Protocol, seal, split, strip, to_exit

FAKE = (ONE4, bytes((198, 19, 0, 7)))
MEANINGS = ["", "", "www.example", "127.0.0.1", "::1", "10.0.0.1", "a.example"]
KEY = bytes(range(32))


def frames(rng: random.Random) -> list[bytes]:
    """Some frames of exit flows, most of them good in part."""
    made: list[bytes] = []
    for inside in (
        flow(rng) if rng.random() < 0.5 else [strip(tcp(FAKE, flags=rng.choice((2, 2, 16, 4, 18, 1))))]
    ):
        if (
            inside[1] & Flag.EXIT or inside[0] == Protocol.WHOLE
        ):  # the wrong way round, or no exit flow at all
            made.append(inside)
            continue
        number = rng.choice((1, 7, 7, 0xFFFFFF, rng.randrange(1, 1 << 24)))
        try:
            made.append(to_exit(inside, number, rng.choice(MEANINGS), back=rng.random() < 0.1))
        except BadFrame:
            made.append(to_exit(inside, number))
    made.append(rng.choice(EXITS))
    if rng.random() < 0.5:
        made.append(together(rng, made))
    if rng.random() < 0.3:
        made += split(rng.choice(EXITS), rng.randrange(3), 30)
    return [mutate(rng, one, EXITS + FRAMES) if rng.random() < 0.4 else one for one in made]


# Invariant: nothing is raised, no more is kept than may be, and what the exit's kernel is given is for its listener
# (TCP that the NAT knows), never what the peer has said; a good flow that follows is answered.
def fuzz_exit(rng: random.Random) -> None:
    allowed = {packed("127.0.0.1"), packed("::1")}
    with (
        mock.patch("zignet.exits.guests.may_dial", lambda address, **how: address in allowed),
        mock.patch.object(guest, "MOST_NUMBERS", 8),
    ):
        lab = ExitLab()
        try:
            lab.names.answers["www.example"] = [packed("127.0.0.1")]
            counter = 0
            for frame in frames(rng) + frames(rng):
                if not frame:
                    continue
                datagram = seal(Suite.AES, KEY, 7, counter, frame)
                counter += 1
                lab.exit.wire.coming.append(Came(datagram, 0, PEER, 0))
                if rng.random() < 0.5:
                    lab.exit.receiver.on_event(1)
                if rng.random() < 0.2:
                    lab.world.loop.turn()
                    lab.exit.wire.sent.clear()
            lab.exit.receiver.on_event(1)
            lab.world.loop.turn()
            for written in lab.world.written():
                view = Packet(bytearray(written.raw))
                assert view.parse(0, len(written.raw)) == 0
                if view.protocol in (6, 17) and view.target()[-4:-3] not in (b"\x7f", b"\x00"):
                    assert view.source()[:1] in (b"\x0a", b"\xfd"), (
                        written.raw
                    )  # to this host itself, from the peer
            link = lab.links[1]
            assert link.guest is None or len(link.guest.meanings) <= 8
            assert lab.exit.gateway.dropped["internal error"] == 0
            lab.exit.wire.sent.clear()
            lab.links[0].tunnel.sending.sealing.counter = counter
            lab.give(udp(FAKE, b"good", ports=(5000, 9)))
            assert lab.until(
                lambda: lab.turn() or any(flow.target_port == 9 for flow in lab.world.engine.flows())
            )
        finally:
            lab.close()


TARGETS: list[Callable[[random.Random], None]] = [fuzz_exit]


if __name__ == "__main__":
    main(__doc__, TARGETS)
