"""One little internet for all end-to-end tests, and engines in its host."""

import pytest

from zignet.lab.internet import OFFICE, TOKYO, Internet
from zignet.lab.running import Running

EXITS = f"""\
exits:
  tokyo: {{type: socks5, address: "{TOKYO}:1080"}}
  locked: {{type: socks5, address: "{TOKYO}:1081", username: me, password_file: ./secret}}
  office: {{type: http, address: "{OFFICE}:3128"}}
  locked_office: {{type: http, address: "{OFFICE}:3129", username: me, password_file: ./secret}}
  wrong: {{type: socks5, address: "{TOKYO}:1081", username: me, password_file: ./guess}}
  down: {{type: socks5, address: "{TOKYO}:9"}}
"""


@pytest.fixture(scope="session")
def net():
    with Internet() as internet:
        internet.proxy(internet.tokyo, 1080)
        internet.proxy(internet.tokyo, 1081, "me:pa:ss word")
        internet.proxy(internet.office, 3128)
        internet.proxy(internet.office, 3129, "me:pa:ss word")
        yield internet


@pytest.fixture(scope="session")
def directories(net):
    """A new directory for each engine, with the password files that `EXITS` names."""
    made = []

    def new():
        directory = net.directory / f"node-{len(made)}"
        directory.mkdir()
        (directory / "secret").write_text("pa:ss word\n")
        (directory / "guess").write_text("nothing\n")
        for file in ("secret", "guess"):
            (directory / file).chmod(0o600)
        made.append(directory)
        return directory

    return new


@pytest.fixture
def engine(net, directories):
    """Starts engines in the host, one after the other; the test's end stops the last."""
    started = []

    def start(routes, more="", exits=EXITS):
        for running in started:
            running.__exit__()
        running = Running(net.host, directories(), f"{exits}{more}routes:\n{_lines(routes)}")
        started.append(running)
        return running.start()

    yield start
    for running in started:
        running.__exit__()


def _lines(routes):
    return "".join(f"  - '{route}'\n" for route in routes)


@pytest.fixture(scope="session")
def config():
    """The text of a configuration with `EXITS`."""
    return lambda routes, more="": f"{EXITS}{more}routes:\n{_lines(routes)}"


@pytest.fixture(scope="module")
def curl(net):
    """Runs curl in the host: the page as a value. Fails with what curl said."""
    import json

    def run(*arguments):
        command = ["curl", "-sS", "--max-time", "8", "--cacert", net.authority.file, *arguments]
        done = net.host.run(command)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
