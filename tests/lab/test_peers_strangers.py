"""Who is let in, who is not, and who must leave."""

import socket
from ipaddress import IPv6Network

import pytest
import yaml

from tests.lab.peers import eventually
from tests.lab.stranger import Stranger
from zignet.control import Declined
from zignet.identity import SecretKey, address6
from zignet.lab.hosts import PORT, Hosts
from zignet.noise import NO_PSK, HandshakeError
from zignet.wire import Farewell, FarewellReason, Ping, Pong

RANGE6 = IPv6Network("fd5a:6967:6e65::/48")

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def net():
    with Hosts("a", "b") as hosts:
        hosts.start("a", peers=[], inbound={"default_action": "deny"}, listen=[f"udp://[::]:{PORT}"])
        yield hosts
        assert "Traceback" not in hosts["a"].node.log()


@pytest.fixture
def policy(net):
    """Has a read its configuration again, with other peers and another policy."""

    def change(peers=(), **inbound):
        node = net["a"].node
        lines = node.log().count(" reloaded: ")
        config = net.config("a", peers=list(peers), inbound={"default_action": "deny"} | inbound)
        node.reload(yaml.safe_dump(config))
        eventually(lambda: node.log().count(" reloaded: ") > lines)

    return change


@pytest.fixture
def stranger(net):
    with Stranger(net["b"], net["a"]) as made:
        yield made


def dropped(net, reason):
    return net["a"].status()["peers"]["dropped"].get(reason, 0)


def entry(net, stranger):
    """What a says of somebody."""
    with net["a"].client() as client:
        return next((peer for peer in client.peers() if peer["key"] == stranger.secret.public.name), None)


def test_a_stranger_gets_no_answer_at_all(net, policy, stranger):
    policy()
    before = dropped(net, "handshake: not admitted")
    with net["b"].namespace.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as tap:
        tap.bind(("eth0", 0x0003))  # ETH_P_ALL
        for _ in range(3):
            stranger.end.send(stranger.initiation())
        tap.settimeout(1)
        heard = []
        try:
            while True:
                packet, where = tap.recvfrom(2048)
                heard += [packet] if where[2] == 0 and where[1] == 0x0800 else []  # PACKET_HOST
        except TimeoutError:
            pass
    assert heard == []
    assert dropped(net, "handshake: not admitted") == before + 3
    status = net["a"].status()["peers"]
    assert (status["known"], status["pending"], status["handshakes"]) == (0, 0, 0)


def test_who_is_allowed_by_key_comes_in(net, policy, stranger):
    policy(allow=[stranger.secret.public.base58])
    assert stranger.call()
    assert stranger.told(object)
    peer = entry(net, stranger)
    assert (peer["state"], peer["configured"], peer["name"]) == ("connected", False, "")
    assert peer["address"].startswith("100.64.0.")
    assert peer["address6"] == str(address6(RANGE6, stranger.secret.public.x))
    with Stranger(net["b"], net["a"]) as other:
        assert not other.call()


def test_everybody_comes_in_where_that_is_the_default(net, policy):
    policy(default_action="allow")
    addresses = set()
    for _ in range(3):
        with Stranger(net["b"], net["a"]) as one:
            assert one.call()
            one.say(Ping(b"12345678").encode())
            assert one.told(Pong) == Pong(b"12345678")
            addresses.add(entry(net, one)["address"])
    assert len(addresses) == 3


def test_an_unconfirmed_stranger_is_no_peer(net, policy, stranger):
    policy(default_action="allow")
    known = net["a"].status()["peers"]["known"]
    stranger.end.send(stranger.initiation())
    assert stranger.datagram(2)
    status = net["a"].status()["peers"]
    assert (status["known"], status["pending"]) == (known, 1)


@pytest.mark.parametrize("how", ["default", "peer"])
def test_deny_wins(net, policy, stranger, how):
    key = stranger.secret.public.name
    peers = [{"name": "them", "key": key}] if how == "peer" else []
    policy(peers, default_action="allow" if how == "default" else "deny", deny=[key])
    assert not stranger.call()


def test_a_negated_key_is_the_same_key(net, policy):
    """`deny` is of the X25519 form: changing the sign does not help (protocol §1)."""
    secret = SecretKey.generate()
    negated = bytes((*secret.public.ed[:31], secret.public.ed[31] ^ 0x80))
    policy(default_action="allow", deny=[secret.public.name])
    with Stranger(net["b"], net["a"], secret) as one:
        assert not one.call(key=negated)
    policy(default_action="allow")
    with Stranger(net["b"], net["a"], secret) as one:
        assert not one.call(key=SecretKey.generate().public.ed)  # of somebody else
        assert dropped(net, "handshake: a key that is not its own")


def test_who_is_no_longer_admitted_is_told_and_gone(net, policy, stranger):
    policy(allow=[stranger.secret.public.name])
    assert stranger.call()
    assert entry(net, stranger)["state"] == "connected"
    policy()
    assert stranger.told(Farewell) == Farewell(FarewellReason.NOT_ADMITTED)
    assert entry(net, stranger) is None
    stranger.say(Ping(b"12345678").encode())
    assert stranger.told(Pong, seconds=0.3) is None


def test_a_peer_that_is_taken_from_the_configuration_is_gone(net, policy, stranger):
    policy([{"name": "them", "key": stranger.secret.public.name}])
    assert stranger.call()
    assert entry(net, stranger)["name"] == "them"
    policy()
    assert stranger.told(Farewell) == Farewell(FarewellReason.NOT_ADMITTED)
    assert entry(net, stranger) is None


def test_a_peer_that_is_taken_but_still_allowed_stays(net, policy, stranger):
    key = stranger.secret.public.name
    policy([{"name": "them", "key": key}])
    assert stranger.call()
    address = entry(net, stranger)["address"]
    policy(allow=[key])
    stranger.say(Ping(b"12345678").encode())
    assert stranger.told(Pong)
    assert entry(net, stranger)["address"] == address
    assert entry(net, stranger)["name"] == ""


def test_an_address_is_kept_for_who_comes_back(net, policy, stranger):
    policy(default_action="allow")
    assert stranger.call()
    address = entry(net, stranger)["address"]
    policy()
    assert entry(net, stranger) is None
    policy(default_action="allow")
    assert stranger.call()
    assert entry(net, stranger)["address"] == address


def test_a_pre_shared_key_must_be_the_same(net, policy, stranger):
    file = net["a"].directory / "psk"
    file.write_text("07" * 32 + "\n")
    file.chmod(0o600)
    policy([{"name": "them", "key": stranger.secret.public.name, "psk_file": "./psk"}])
    with pytest.raises(HandshakeError):
        stranger.call()
    stranger.psk = bytes([7] * 32)
    assert stranger.call()
    policy([{"name": "them", "key": stranger.secret.public.name}])  # without it
    stranger.psk = NO_PSK
    assert stranger.call()


def test_a_peer_that_is_renamed(net, policy, stranger):
    key = stranger.secret.public.name
    policy([{"name": "old", "key": key}])
    policy([{"name": "new", "key": key}])
    with net["a"].client() as client:
        assert "no endpoint" in client.ping("new")["error"]
    with net["a"].client() as client, pytest.raises(Declined, match="nobody here is called old"):
        client.ping("old")
