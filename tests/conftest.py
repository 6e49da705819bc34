"""Settings of all tests."""

import utils.openmp  # noqa: F401
