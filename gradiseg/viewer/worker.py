"""When pictures are drawn: the newest camera only, small while it moves, in full size once it rests."""

import threading
import time
from collections.abc import Callable

REST_SECONDS = 0.15  # without a movement: the camera has come to rest


class Worker:
    """A thread that calls `draw(small)` when something is to be drawn; requests that it misses are dropped.

    What `draw` raises goes to `failed`, and the thread goes on.
    """

    def __init__(self, draw: Callable[[bool], None], failed: Callable[[Exception], None]) -> None:
        self._draw, self._failed = draw, failed
        self._wake = threading.Condition()
        self._small, self._stopped = False, False
        self._full_at: float | None = None  # when the full size is due
        self._thread = threading.Thread(target=self._run, name="drawing", daemon=True)
        self._thread.start()

    def moved(self) -> None:
        """The camera has moved."""
        self._ask(small=True, full_at=time.monotonic() + REST_SECONDS)

    def changed(self) -> None:
        """What is shown has changed."""
        self._ask(small=False, full_at=time.monotonic())

    def stop(self) -> None:
        """End the thread after the picture that it is at."""
        with self._wake:
            self._stopped = True
            self._wake.notify()

    def _ask(self, small: bool, full_at: float) -> None:
        with self._wake:
            self._small, self._full_at = self._small or small, full_at
            self._wake.notify()

    def _next(self) -> bool | None:
        """Wait until something is due: True for a small picture, False for a full one, None for the end."""
        with self._wake:
            while not self._stopped:
                if self._small:
                    self._small = False
                    return True
                left = None if self._full_at is None else self._full_at - time.monotonic()
                if left is not None and left <= 0:
                    self._full_at = None
                    return False
                self._wake.wait(left)
        return None

    def _run(self) -> None:
        while (small := self._next()) is not None:
            self._draw_or_tell(small)

    def _draw_or_tell(self, small: bool) -> None:
        try:
            self._draw(small)
        except Exception as error:  # a picture that fails must not end all those after it
            self._failed(error)
