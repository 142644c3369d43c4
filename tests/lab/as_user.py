"""Run a program as another user with CAP_NET_ADMIN, as systemd would.

python -m tests.lab.as_user UID DIRECTORY… -- COMMAND ARGUMENT…

Python and the directories are shown to it also where the way there is closed to others, in mounts of its own.
"""

import ctypes
import os
import stat
import sys
from pathlib import Path

import zignet
from zignet import rights
from zignet.control.user import closed_on_the_way

PR_SET_KEEPCAPS = 8
TUN = "/dev/net/tun"


def main():
    at = sys.argv.index("--")
    uid, places = int(sys.argv[1]), [Path(each).resolve() for each in sys.argv[2:at]]
    roots = {
        Path(each).resolve() for each in (sys.prefix, sys.base_prefix, Path(zignet.__file__).parent.parent)
    }
    shown = [*roots, *places]
    covered = {each for each in (closed_on_the_way(place, uid, uid) for place in shown) if each is not None}
    libc = ctypes.CDLL(None)
    assert libc.unshare(rights.CLONE_NEWNS) == 0
    rights._furnish(shown, covered)
    if not os.stat(TUN).st_mode & stat.S_IWOTH:  # as udev makes it elsewhere
        device = places[0] / "tun"
        os.mknod(device, stat.S_IFCHR | 0o666, os.stat(TUN).st_rdev)
        device.chmod(0o666)
        rights._mount(str(device), TUN, rights.MS_BIND)
    assert libc.prctl(PR_SET_KEEPCAPS, 1) == 0
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    rights.keep([rights.Cap.NET_ADMIN])
    os.environ["HOME"] = str(places[0])
    os.chdir(places[0])
    os.execv(sys.argv[at + 1], sys.argv[at + 1 :])


if __name__ == "__main__":
    main()
