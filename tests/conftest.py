"""For all tests: those that need root fail without it, with a hint, instead of being passed over in silence."""

import os

import pytest


def pytest_runtest_setup(item):
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.fail(
            "needs root and network namespaces; leave such tests out with -m 'not root'", pytrace=False
        )
