"""What the tests of real nodes share: waiting, an echo, and transfers whose content is compared."""

import contextlib
import hashlib
import os
import socket
import threading
import time
from pathlib import Path

ECHO, HTTP, SINK, SSH, CLOSED = 7007, 8080, 9000, 2222, 4444  # ports


def eventually(condition, seconds=10.0):
    """Wait for something to be true, and give it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def url(address, port, path=""):
    return f"http://[{address}]:{port}/{path}" if ":" in address else f"http://{address}:{port}/{path}"


def ping(host, address, *options, count=1):
    """How many of `count` pings are answered."""
    done = host.namespace.run(["ping", "-q", "-c", str(count), "-i", "0.05", "-W", "3", *options, address])
    return int(done.stdout.partition(" received")[0].rpartition(" ")[2] or 0)


def checksum_errors(host):
    """What the kernel of a host has found in packets, by protocol (its own count of them, /proc/net)."""
    found = {}
    for name in ("netstat", "snmp"):
        lines = host.namespace.call(Path("/proc/thread-self/net", name).read_text).splitlines()
        for keys, values in zip(lines[::2], lines[1::2], strict=True):
            kind, *names = keys.split()
            found |= {kind + key: value for key, value in zip(names, values.split()[1:], strict=True)}
    lines = host.namespace.call(Path("/proc/thread-self/net/snmp6").read_text).splitlines()
    found |= dict(line.split() for line in lines)
    return {key: int(value) for key, value in found.items() if "Csum" in key}


def digest(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def random_file(path, size):
    """A file of random bytes; its digest."""
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))
    return digest(path)


def udp(host, address, timeout_s=5.0):
    """A UDP socket of a host, connected to the echo at an address."""
    end = host.namespace.socket(family(address), socket.SOCK_DGRAM)
    end.settimeout(timeout_s)
    end.connect((address, ECHO))
    return end


@contextlib.contextmanager
def servers(host):
    """An echo for UDP and TCP on a host."""
    datagrams = host.namespace.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagrams.bind(("::", ECHO))
    listener = host.namespace.socket(socket.AF_INET6)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("::", ECHO))
    listener.listen()

    def echo():
        with contextlib.suppress(OSError):
            while True:
                data, sender = datagrams.recvfrom(65536)
                if sender is None:  # shut down
                    return
                with contextlib.suppress(ConnectionError, TimeoutError):
                    datagrams.sendto(data, sender)

    def serve():
        with contextlib.suppress(OSError):
            while True:
                end, _ = listener.accept()
                threading.Thread(target=echo_stream, args=(end,), daemon=True).start()

    for target in (echo, serve):
        threading.Thread(target=target, daemon=True).start()
    yield
    for end in (datagrams, listener):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


def echo_stream(end):
    with end, contextlib.suppress(OSError):
        while data := end.recv(65536):
            end.sendall(data)


def bytes_round(host, address, size, seconds=45.0):
    """Send so many bytes to the echo and compare what comes back; how many were right."""
    with host.namespace.connect(address, ECHO, timeout_s=seconds) as end:
        sent = os.urandom(size)
        sender = threading.Thread(target=end.sendall, args=(sent,), daemon=True)
        sender.start()
        heard = exactly(end, size)
        sender.join(seconds)
    assert heard == sent
    return len(heard)


class Stream:
    """A TCP connection to the echo that is kept busy, and whose bytes are compared: `moved` counts them."""

    def __init__(self, host, address):
        self.end = host.namespace.connect(address, ECHO, timeout_s=20.0)
        self.moved = 0
        self.error = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            while not self._stopped.is_set():
                block = os.urandom(32768)
                self.end.sendall(block)
                if exactly(self.end, len(block)) != block:
                    raise ValueError("other bytes came back")
                self.moved += len(block)
        except Exception as error:
            self.error = error

    def goes_on(self, seconds=20.0, size=1 << 20):
        """Wait until so many bytes more have gone round."""
        goal = self.moved + size

        def there():
            assert self.error is None, self.error
            return self.moved >= goal

        eventually(there, seconds)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._stopped.set()
        self._thread.join(5)
        self.end.close()


def exactly(end, size):
    data = bytearray()
    while len(data) < size and (more := end.recv(size - len(data))):
        data += more
    return bytes(data)
