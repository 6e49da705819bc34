"""The worker: the newest request only, full size at rest, and no picture that fails is the last."""

import threading
import time
from collections.abc import Callable

from gradiseg.viewer import worker
from gradiseg.viewer.worker import Worker


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until a condition holds, or fail."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_small_while_moving_full_at_rest() -> None:
    drawn: list[bool] = []
    made = Worker(drawn.append, lambda error: None)
    made.moved()
    wait_for(lambda: drawn == [True, False])
    time.sleep(2 * worker.REST_SECONDS)
    assert drawn == [True, False]  # and then nothing more
    made.changed()
    wait_for(lambda: drawn == [True, False, False])
    made.stop()


def test_what_it_cannot_keep_up_with_is_dropped() -> None:
    drawn: list[bool] = []
    begun, go_on = threading.Event(), threading.Event()

    def draw(small: bool) -> None:
        begun.set()
        go_on.wait()
        drawn.append(small)

    made = Worker(draw, lambda error: None)
    made.moved()
    begun.wait()
    for _ in range(50):
        made.moved()
    go_on.set()
    wait_for(lambda: drawn == [True, True, False])
    made.stop()


def test_a_failure_is_told_and_is_not_the_end() -> None:
    failures: list[Exception] = []
    drawn: list[bool] = []

    def draw(small: bool) -> None:
        drawn.append(small)
        if len(drawn) == 1:
            raise RuntimeError("once")

    made = Worker(draw, failures.append)
    made.changed()
    wait_for(lambda: len(failures) == 1)
    made.changed()
    wait_for(lambda: drawn == [False, False])
    made.stop()
