"""The stub resolver against real name servers on loopback, good and bad ones."""

import time

import pytest

from nat.exit import Reason, Refusal
from tests.nat.world import packed
from zignet.dns import exchange as exchange_module
from zignet.dns import query as query_module
from zignet.dns import resolver as resolver_module

V4, V6 = packed("203.0.113.10"), packed("2001:db8:4::10")


def ask(loop, resolver, name):
    answers = []
    resolver.resolve(name, answers.append)
    loop.until(lambda: answers)
    loop.settle()
    (answer,) = answers
    return answer


def test_both_families_are_found(loop, server, resolver_with):
    assert set(ask(loop, resolver_with(server), "www.video.example")) == {V4, V6}
    assert sorted(kind for _, kind, _ in server.asked) == ["A", "AAAA"]


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("v4.example", {"203.0.113.20", "203.0.113.21"}),
        ("v6.example", {"2001:db8:4::20"}),
        ("alias.example", {"203.0.113.20", "203.0.113.21"}),
        ("192.0.2.7", {"192.0.2.7"}),
        ("2001:db8::7", {"2001:db8::7"}),
        ("some.localhost", {"127.0.0.1", "::1"}),
    ],
)
def test_names(loop, server, resolver_with, name, addresses):
    assert set(ask(loop, resolver_with(server), name)) == set(map(packed, addresses))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.example", "does not exist"),
        ("text.example", "has no address"),
        ("loop.example", "has no address"),
        ("peer.zignet", "not a name of the internet"),
        ("a" * 64 + ".example", "64 characters"),
        ("a..example", "0 characters"),
    ],
)
def test_no_address(loop, server, resolver_with, name, message):
    answer = ask(loop, resolver_with(server), name)
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.HOST_UNREACHABLE
    assert message in answer.message


def test_names_of_ours_are_not_told_to_anybody(loop, server, resolver_with):
    ask(loop, resolver_with(server), "peer.zignet")
    assert server.asked == []


def test_the_hosts_file_comes_first_and_is_read_again(loop, server, resolver_with, tmp_path):
    resolver = resolver_with(
        server, hosts="192.0.2.9 WWW.video.example x\nnonsense\n2001:db8::9 www.video.example # v6\n"
    )
    assert set(ask(loop, resolver, "www.video.example")) == {packed("192.0.2.9"), packed("2001:db8::9")}
    (tmp_path / "hosts").write_text("# nothing any more\n")
    loop.until(
        lambda: ask(loop, resolver, "www.video.example") != [packed("192.0.2.9"), packed("2001:db8::9")]
    )
    loop.until(lambda: set(ask(loop, resolver, "www.video.example")) == {V4, V6})


def test_an_answer_is_kept_as_long_as_its_ttl_and_no_longer(loop, server, resolver_with):
    resolver = resolver_with(server)
    ask(loop, resolver, "www.video.example")
    ask(loop, resolver, "www.video.example")
    assert len(server.asked) == 2
    later = loop.now + 61
    loop.now, now = later, loop.now
    assert resolver._known("www.video.example") is None
    loop.now = now
    server.ttl = 0
    ask(loop, resolver, "v4.example")
    ask(loop, resolver, "v4.example")
    assert [name for name, _, _ in server.asked].count("v4.example") == 4


def test_a_long_ttl_is_capped(loop, server, resolver_with):
    server.ttl = 1 << 30
    resolver = resolver_with(server)
    ask(loop, resolver, "www.video.example")
    until, _ = resolver._kept["www.video.example"]
    assert until <= loop.now + resolver_module.LONGEST_S


def test_a_negative_answer_is_kept_by_its_soa(loop, server, resolver_with):
    resolver = resolver_with(server)
    ask(loop, resolver, "nowhere.example")
    ask(loop, resolver, "nowhere.example")
    assert len(server.asked) == 2
    until, _ = resolver._kept["nowhere.example"]
    assert until <= loop.now + 5


def test_what_is_kept_is_bounded(loop, server, resolver_with, monkeypatch):
    monkeypatch.setattr(resolver_module, "MOST_KEPT", 3)
    resolver = resolver_with(server)
    for name in ("v4.example", "v6.example", "alias.example", "www.video.example"):
        ask(loop, resolver, name)
    assert list(resolver._kept) == ["v6.example", "alias.example", "www.video.example"]
    assert resolver.flush() == 3


def test_many_wait_for_one_query(loop, server, resolver_with):
    resolver = resolver_with(server)
    answers = []
    waiters = [resolver.resolve("www.video.example", answers.append) for _ in range(50)]
    waiters[7].cancel()
    loop.until(lambda: len(answers) == 49)
    assert len(server.asked) == 2


def test_a_waiter_may_cancel_the_others(loop, server, resolver_with):
    resolver = resolver_with(server)
    answers, waiters = [], []

    def done(answer):
        answers.append(answer)
        for waiter in waiters:
            waiter.cancel()

    waiters += [resolver.resolve("v4.example", done) for _ in range(3)]
    loop.until(lambda: answers)
    loop.settle()
    assert len(answers) == 1


def test_nobody_waits_nobody_asks(loop, server, resolver_with):
    server.silent.add("*")
    resolver = resolver_with(server)
    for waiter in [resolver.resolve("v4.example", print) for _ in range(2)]:
        waiter.cancel()
    assert len(resolver.exchange) == 0
    server.silent.clear()
    assert len(ask(loop, resolver, "v4.example")) == 2


def test_a_late_family_is_not_waited_for_long(loop, server, resolver_with):
    server.silent.add("AAAA")
    resolver = resolver_with(server)
    assert ask(loop, resolver, "www.video.example") == [V4]
    assert len(resolver.exchange) == 1  # it is still asked for, for the next one
    assert ask(loop, resolver, "www.video.example") == [V4]


def test_a_silent_server_is_asked_beside_the_next(loop, server, second, resolver_with):
    server.silent.add("*")
    resolver = resolver_with(server, second)
    assert set(ask(loop, resolver, "www.video.example")) == {V4, V6}
    assert len(server.asked) == 2
    ask(loop, resolver, "v4.example")
    assert len(server.asked) == 2, "it comes last for a while"


def test_a_failing_server_is_passed_over(loop, server, second, resolver_with):
    server.failing = True
    assert set(ask(loop, resolver_with(server, second), "www.video.example")) == {V4, V6}


def test_all_fail(loop, server, second, resolver_with):
    server.failing = second.failing = True
    answer = ask(loop, resolver_with(server, second), "www.video.example")
    assert isinstance(answer, Refusal)
    assert "code 2" in answer.message


def test_no_server_is_there(loop, server, resolver_with, monkeypatch):
    resolver = resolver_with(server)
    server._selector.unregister(server._ends[1])
    server._ends[1].close()  # its UDP port is closed: ICMP says so
    answer = ask(loop, resolver, "www.video.example")
    assert isinstance(answer, Refusal)
    assert "no name server answers" in answer.message
    assert ask(loop, resolver_with(), "www.video.example").reason is Reason.HOST_UNREACHABLE


def test_a_silent_server_ends_as_well(loop, server, resolver_with, monkeypatch):
    monkeypatch.setattr(query_module, "PATIENCE_S", (0.05, 0.05))
    server.silent.add("*")
    answer = ask(loop, resolver_with(server), "www.video.example")
    assert "no name server answers" in answer.message
    assert len(server.asked) == 4


def test_a_truncated_answer_is_asked_for_by_tcp(loop, server, resolver_with):
    server.truncating = True
    assert set(ask(loop, resolver_with(server), "www.video.example")) == {V4, V6}
    assert sorted(way for _, _, way in server.asked) == ["tcp", "tcp", "udp", "udp"]


def test_forged_answers_do_not_count(loop, server, resolver_with):
    server.forging = 20
    assert set(ask(loop, resolver_with(server), "www.video.example")) == {V4, V6}


def test_who_guesses_ends_the_try(loop, server, second, resolver_with):
    server.forging = 200
    assert set(ask(loop, resolver_with(server, second), "www.video.example")) == {V4, V6}
    assert len(second.asked) == 2


def test_ids_and_ports_are_not_to_be_guessed(loop, server, exchange_with):
    exchange = exchange_with(server)
    from zignet.dns.wire import make_query

    answers = []
    for _ in range(64):
        exchange.ask(make_query("v4.example", 1, 7), answers.append)
    loop.until(lambda: len(answers) == 64)
    assert {answer[:2] for answer in answers} == {b"\0\7"}  # under the asker's own id
    assert len({query[:2] for query in server.raw}) > 56


def test_queries_at_once_are_bounded(loop, server, exchange_with, monkeypatch):
    from zignet.dns.wire import make_query

    monkeypatch.setattr(exchange_module, "MOST_OUTSTANDING", 5)
    server.silent.add("*")
    exchange = exchange_with(server)
    answers = []
    for _ in range(8):
        exchange.ask(make_query("v4.example", 1), answers.append)
    assert answers == [None] * 3
    assert (len(exchange), exchange.refused) == (5, 3)


def test_a_message_without_a_question_is_not_sent_on(loop, server, exchange_with):
    answers = []
    exchange = exchange_with(server)
    for message in (
        b"",
        b"\0" * 12,
        b"\0" * 5 + b"\2" + b"\0" * 30,
        b"\0" * 5 + b"\1" + b"\0" * 6 + b"\x3fabc",
    ):
        assert exchange.ask(message, answers.append) is None
    assert answers == [None] * 4


def test_time_is_only_what_the_loop_says(loop, server, resolver_with):
    resolver = resolver_with(server)
    started = time.monotonic()
    ask(loop, resolver, "v4.example")
    assert resolver._kept["v4.example"][0] >= started
