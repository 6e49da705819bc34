"""Files that are either whole or absent, room on the disk, the end of a log."""

import errno
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import UserError

# Names of what is being written or replaced; a process that was killed leaves them.
TEMPORARY = re.compile(r"\.[0-9a-f]{12}\.(tmp|old)(\.\w+)?")
FULL = 2**20  # bytes free, below which what failed is said to have failed for the disk
TAIL = 4096  # bytes at the end of a log that are looked at


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it becomes `path` if the block ends well, vanishes if it raises.

    The parent folder is made. The temporary name keeps the suffix, because PIL and NumPy choose their format
    by it.
    Raises:
        OSError: that names `path`, whatever part of writing it failed.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid.uuid4().hex[:12]}.tmp{target.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())  # without it a crash may leave the new name on empty content
        os.replace(temporary, target)
    except (OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno:
            if error.filename in (None, str(temporary)):  # a write does not know its file
                error.filename = str(target)
            raise
        if shutil.disk_usage(target.parent).free >= FULL:  # NumPy, PIL and torch do not say that it is
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file, making its folder."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of every line of a UTF-8 file, white space at its ends taken away.

    A byte order mark is passed over.
    Raises:
        UserError: the text has another encoding.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                yield number, line.strip()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is no UTF-8 text. Save it again with the encoding UTF-8.") from error


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """`atomic_write` for a folder: yield an empty one that becomes `path`, in place of what `path` was."""
    target = Path(os.path.abspath(path))  # `.` has no name
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid.uuid4().hex[:12]}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        replace_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(source: Path, target: Path) -> None:
    """Rename a folder to `target`; an older folder there is deleted once the new one stands."""
    older = target.with_name(f".{uuid.uuid4().hex[:12]}.old")
    if target.exists():
        os.replace(target, older)
    os.replace(source, target)
    shutil.rmtree(older, ignore_errors=True)


def check_free_space(folder: Path, needed: int, flag: str) -> None:
    """Raise unless `needed` bytes can be written below `folder`, which `flag` names and need not exist.

    Raises:
        UserError: the folder cannot be written to, or the disk is too full.
    """
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not os.access(existing, os.W_OK):
        raise UserError(f"{existing}: cannot be written to. Choose another {flag}.")
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"{existing}: {free // 2**20} MB free, at least {-(-needed // 2**20)} MB needed. Free some, or "
            f"choose another {flag}."
        )


def disk_problem(folder: Path, error: OSError | None = None) -> str:
    """One sentence where a disk is full, else nothing."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free >= FULL and not (error and error.errno in (errno.ENOSPC, errno.EDQUOT)):
        return ""
    return (
        f"{existing}: no space left on {socket.gethostname()}'s disk. Free some, then start the same "
        "command again."
    )


@contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """Raise UserError where the block fails for a full disk."""
    try:
        yield
    except OSError as error:
        if problem := disk_problem(folder, error):
            raise UserError(problem) from error
        raise


def last_line(log: Path) -> str:
    """The last line of a log that is not empty; a progress bar's lines end with a carriage return."""
    if not log.is_file():
        return ""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        text = file.read().decode(errors="replace")
    return next((line.strip() for line in reversed(text.replace("\r", "\n").split("\n")) if line.strip()), "")
