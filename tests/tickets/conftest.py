"""Property tests here have no time limit an example: a shared machine would break it, not the code."""

from hypothesis import settings

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
