import pytest

from sniff import speaks_first


@pytest.mark.parametrize("port", [21, 22, 23, 25, 110, 119, 143, 587, 873, 3306, 5900, 5910])
def test_servers_that_greet(port):
    assert speaks_first(port)


@pytest.mark.parametrize(
    "port", [0, 53, 80, 443, 465, 853, 993, 995, 1080, 5432, 5911, 6379, 8080, 8443, 65535]
)
def test_clients_that_speak_first(port):
    assert not speaks_first(port)
