"""Settings and fixtures of all tests."""

import utils.openmp  # noqa: F401  # isort: skip

import logging
import signal
from collections.abc import Iterator

import pytest
import torch

from utils.log import logger


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One CPU thread: small scenes are fastest so, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def messages_as_in_a_library() -> Iterator[None]:
    """Every test begins with the logger as it is before a command, or a fuzzer, sets it up."""
    logger.setLevel(logging.NOTSET)
    yield
    logger.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def signals_as_in_a_terminal() -> Iterator[None]:
    """Ctrl-C works where a shell started the tests in the background, and every test leaves SIGTERM alone."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    handler = signal.getsignal(signal.SIGTERM)  # a command that a test runs in this process takes it over
    yield
    signal.signal(signal.SIGTERM, handler)
