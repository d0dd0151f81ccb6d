"""Folders that are there whole or not at all, however many processes make them and whenever one is killed."""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def make_once(folder: Path, write: Callable[[Path], None]) -> Path:
    """A folder, made by the first who asks for it; whoever asks meanwhile waits for it.

    Args:
        folder: what is to be there.
        write: fills a new, empty folder that takes its place when all is written.

    Returns:
        The folder.

    Raises:
        OSError: nothing can be written there.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent / ".lock") as alone:
        if folder.is_dir():
            return folder
        if alone:
            for left in folder.parent.glob(f".{folder.name}.*.part"):
                shutil.rmtree(left)  # who wrote it held the lock, and is gone
        work = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.part"
        work.mkdir()
        try:
            write(work)
            _publish(work, folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)  # after a success it has another name
    return folder


def _publish(work: Path, folder: Path) -> None:
    try:
        work.rename(folder)
    except OSError:
        # Where there are no locks another process may have been quicker.
        if not folder.is_dir():
            raise


@contextmanager
def _locked(file: Path) -> Iterator[bool]:
    """Hold a lock that ends with its process; whether there are such locks on this system."""
    if sys.platform == "win32":
        yield False
        return
    import fcntl  # noqa: PLC0415 - only where there is one

    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield True
    finally:
        os.close(descriptor)
