"""The lock and the socket in the state directory."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from zignet.control.place import AlreadyRunning, Place, socket_address


def test_modes(tmp_path: Path) -> None:
    state_dir = tmp_path / "deep" / "state"
    before = os.umask(0)
    try:
        place = Place.claim(state_dir)
    finally:
        os.umask(before)
    assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE((state_dir / "zignet.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE((state_dir / "zignet.lock").stat().st_mode) == 0o600
    place.close()
    place.close()
    assert not (state_dir / "zignet.sock").exists()


def test_a_second_node_is_kept_out_and_told_who(tmp_path: Path) -> None:
    place = Place.claim(tmp_path)
    with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}"):
        Place.claim(tmp_path)
    assert place.path.exists()
    place.close()
    Place.claim(tmp_path).close()


def test_a_killed_node_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from zignet.control.place import Place\n"
        "place = Place.claim(Path(sys.argv[1])); print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(AlreadyRunning, match=str(process.pid)):
            Place.claim(tmp_path)
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / "zignet.sock").exists()
    Place.claim(tmp_path).close()


def test_a_path_longer_than_a_socket_address(tmp_path: Path) -> None:
    state_dir = tmp_path / ("long" * 50) / "state"
    place = Place.claim(state_dir)
    with socket.socket(socket.AF_UNIX) as sock, socket_address(state_dir) as address:
        sock.connect(address)
        connection, _ = place.listener.accept()
        connection.close()
    place.close()
