"""A run's folder belongs to one worker at a time: a lock file that names its owner and shows its age.

The owner renews the file's time every `HEARTBEAT` seconds. A lock is free where its owner is known to be dead
(same machine, no process of its group left) or has not renewed it for `STALE` seconds by the waiting
worker's own clock, so that clocks of different machines need not agree. The short moment in which a lock
changes hands is guarded by flock, which file systems of clusters pass on to all machines.
"""

import errno
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from utils.errors import UserError

HEARTBEAT = 10.0  # seconds
STALE = 90.0  # seconds; file systems of clusters show a change after up to 60
POLL = 1.0  # seconds between looks at a lock that is held


@dataclass(frozen=True)
class Owner:
    """Who holds a lock: a process group on a machine since it booted."""

    host: str
    boot: str
    group: int
    since: float  # seconds since 1970
    token: str

    @classmethod
    def me(cls) -> "Owner":
        """This process."""
        return cls(socket.gethostname(), _boot(), os.getpgrp(), time.time(), uuid.uuid4().hex)

    def is_dead(self) -> bool | None:
        """Whether no process of the owner is left; None where that cannot be seen from this machine."""
        if (self.host, self.boot) != (socket.gethostname(), _boot()):
            return None
        try:
            os.killpg(self.group, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False


def owner_of(path: Path) -> tuple[Owner, float] | None:
    """The owner of a lock and the seconds since it last renewed it, None where the lock seems free.

    For people to see; whether a lock may be taken is decided without a look at the clock.
    """
    try:
        with open(path, encoding="utf-8") as file:  # opened, so that network file systems look again
            owner, renewed = _parse(file.read()), os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None
    age = time.time() - renewed
    dead = owner is None or owner.is_dead()
    return None if owner is None or dead or (dead is None and age > STALE) else (owner, age)


@contextmanager
def hold(path: Path, on_loss: Callable[[], None]) -> Iterator[None]:
    """Hold the lock `path` during the block, waiting up to `STALE` seconds for it.

    on_loss: called from another thread where somebody else took the lock, because this process slept.
    Raises: UserError where another worker holds it.
    """
    mine = Owner.me()
    _acquire(path, mine)
    stop = threading.Event()
    heart = threading.Thread(target=_beat, args=(path, mine, stop, on_loss), daemon=True)
    heart.start()
    try:
        yield
    finally:
        stop.set()
        heart.join()
        with _locked(path) as file:
            if _parse(file.read()) == mine:
                path.unlink()


def _acquire(path: Path, mine: Owner) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    started = changed = time.monotonic()
    seen: tuple[Owner | None, int] | None = None
    while True:
        with _locked(path) as file:
            owner, now = _parse(file.read()), time.monotonic()
            state = owner, os.fstat(file.fileno()).st_mtime_ns
            if seen != state:
                seen, changed = state, now if seen else started
            dead = owner.is_dead() if owner else True
            if dead or (dead is None and now - changed > STALE):
                file.seek(0)
                file.truncate()
                json.dump(asdict(mine), file)
                return
        # One that is far away is known to live only by a beat in the second half of that time.
        if owner and now - started > (2 * STALE if dead is None else STALE):
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(owner.since))
            raise UserError(
                f"{path}: held by another worker (process group {owner.group} on {owner.host}, since "
                f"{since}). Let it finish, or stop it and start again."
            )
        time.sleep(POLL)


def _beat(path: Path, mine: Owner, stop: threading.Event, on_loss: Callable[[], None]) -> None:
    while not stop.wait(HEARTBEAT):
        try:
            owner = _parse(path.read_text(encoding="utf-8"))
            if owner == mine:
                os.utime(path)
        except OSError:  # the file system is away for a while, or somebody deleted the lock
            owner = None
        if owner and owner != mine:
            on_loss()
            return


@contextmanager
def _locked(path: Path) -> Iterator[TextIO]:
    """The file `path`, made where it is missing, that nobody else has opened so."""
    while True:
        with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise  # those: the file system has no flock, and the moment is short
            try:
                current = os.stat(path).st_ino == os.fstat(file.fileno()).st_ino
            except FileNotFoundError:
                current = False
            if current:
                yield file
                return


def _parse(text: str) -> Owner | None:
    try:
        return Owner(**json.loads(text))
    except (ValueError, TypeError):  # empty: just made, or its owner had no space to write
        return None


def _boot() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.is_file() else ""
