from hypothesis import settings

# How long one example takes says nothing on a shared machine.
_before = settings.get_profile(settings.get_current_profile_name())
settings.register_profile("patient", parent=_before, deadline=None)
settings.load_profile("patient")
