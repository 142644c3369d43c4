"""The lab itself: what it makes works, and nothing of it is left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography import x509

from zignet.lab.certificates import Authority
from zignet.lab.internet import HOST, OFFICE, OFFICE6, TOKYO, TOKYO6
from zignet.lab.namespace import Namespace, join, sweep

pytestmark = pytest.mark.root

RUN_DIR = Path("/run/netns")
LONG_RUN = """
from zignet.lab.namespace import Namespace
inside = Namespace("long")
print(inside.name, flush=True)
inside.run(["sleep", "60"], 90)
"""


def test_a_namespace_is_its_own(tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.99 special.example\n")
    outside = os.stat("/proc/thread-self/ns/net").st_ino
    with Namespace("one", hosts) as one, Namespace("two") as two:
        join(one, "eth0", two, "eth0")
        one.address("eth0", "192.0.2.1/24")
        two.address("eth0", "192.0.2.2/24")
        assert two.run(["ping", "-c1", "-W2", "192.0.2.1"]).returncode == 0
        assert one.run(["getent", "hosts", "special.example"]).stdout.split() == [
            "192.0.2.99",
            "special.example",
        ]
        assert two.run(["getent", "hosts", "special.example"]).returncode != 0
        assert sorted(one.run(["ls", "/sys/class/net"]).stdout.split()) == ["eth0", "lo"]
        assert os.stat("/proc/thread-self/ns/net").st_ino == outside
        assert (RUN_DIR / one.name).exists()
        assert one.run(["cat"], input="from here\n").stdout == "from here\n"
    assert not (RUN_DIR / one.name).exists()


def test_close_stops_what_runs_inside():
    with Namespace("busy") as busy:
        child = busy.popen(["sleep", "60"])
        daemon = busy.run(["sh", "-c", "setsid sleep 61 >/dev/null 2>&1 & echo $!"]).stdout
    assert child.poll() is not None
    deadline = time.monotonic() + 3
    while Path("/proc", daemon.strip(), "exe").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_only_the_namespaces_own_variables_are_set():
    with Namespace("one") as one, pytest.raises(ValueError, match=r"kernel\.pid_max"):
        one.sysctl("kernel.pid_max", 1000)


def test_a_killed_run_is_swept_by_the_next():
    run = subprocess.Popen([sys.executable, "-c", LONG_RUN], stdout=subprocess.PIPE, text=True)
    name = run.stdout.readline().strip()
    time.sleep(0.2)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert (RUN_DIR / name).exists()
    with Namespace("living") as living:
        assert name in sweep()
        assert (RUN_DIR / living.name).exists()
    assert not (RUN_DIR / name).exists()


def test_a_terminated_run_leaves_nothing(tmp_path):
    run = subprocess.Popen([sys.executable, "-c", LONG_RUN], stdout=subprocess.PIPE, text=True)
    name = run.stdout.readline().strip()
    run.send_signal(signal.SIGINT)
    run.wait()
    assert not (RUN_DIR / name).exists()


def test_certificates_name_their_site(tmp_path):
    authority = Authority(tmp_path)
    certificate_file, key_file = authority.issue("video.example")
    certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["video.example", "*.video.example"]
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.file.read_bytes()))
    assert key_file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("proxy", "seen"),
    [
        ([], [HOST]),
        (["-x", f"socks5://{TOKYO}:1080"], [TOKYO, TOKYO6]),
        (["-x", f"socks5h://{TOKYO}:1080"], [TOKYO, TOKYO6]),
        (["-x", f"socks5://{TOKYO}:1081", "--proxy-user", "me:pa:ss word"], [TOKYO]),
        (["-x", f"http://{OFFICE}:3128"], [OFFICE, OFFICE6]),
        (["-p", "-x", f"http://{OFFICE}:3129", "--proxy-user", "me:pa:ss word"], [OFFICE, OFFICE6]),
    ],
)
@pytest.mark.parametrize("url", ["https://video.example/", "https://news.example/"])
def test_the_little_internet_without_an_engine(net, curl, proxy, seen, url):
    page = curl("-4", *proxy, url)
    assert page["client"] in seen  # a proxy that is given the name may choose IPv6
    assert page["name"] == url.split("/")[2]


@pytest.mark.parametrize(
    "proxy", [["-x", f"socks5://{TOKYO}:1081", "--proxy-user", "me:x"], ["-p", "-x", f"http://{OFFICE}:3129"]]
)
def test_the_closed_proxies_are_closed(net, proxy):
    assert net.host.run(["curl", "-sS4", *proxy, "http://video.example/"]).returncode != 0


def test_the_demo(net):
    """The whole of `scripts/demo` but its set-up."""
    done = subprocess.run(
        [sys.executable, "-m", "zignet.lab.demo"], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b" not in done.stdout  # no colours where there is no terminal
    assert "Nothing left behind" in done.stdout
