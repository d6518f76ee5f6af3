"""Tests of ariproxy, run by trial."""

import os

from hypothesis import settings

# A busy machine is no defect. And what CI finds must be what the last change did,
# not what chance brought up; elsewhere hypothesis goes on looking for more.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")
