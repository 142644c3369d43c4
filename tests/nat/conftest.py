"""For the tests of `nat`: property tests have no deadline, for the machine may be busy."""

from hypothesis import settings

settings.register_profile("nat", deadline=None)
settings.load_profile("nat")
