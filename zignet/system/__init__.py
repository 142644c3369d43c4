"""What this machine offers, and what stands in the way: the checks of `zignet doctor`.

A check looks at one thing and gives a value; nothing is printed and nothing stays changed. `doctor.run` does them
all, in the order in which a person would want to repair things.
"""

from zignet.system.check import Check, State
from zignet.system.doctor import run

__all__ = ["Check", "State", "run"]
