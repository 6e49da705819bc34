"""Settings and fixtures of all tests."""

import utils.openmp  # noqa: F401  # isort: skip

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One CPU thread: small scenes are fastest so, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
