"""Who writes an episode: which store of which process, and enough of it to tell later whether it is still there."""

from __future__ import annotations

import functools
import itertools
import os
import platform
import sys
from pathlib import Path

_NUMBERS = itertools.count(1)


def new_owner() -> str:
    """Name of a store in this process: the process's, and a number."""
    return f"{this_process()}.{next(_NUMBERS)}"


def this_process() -> str:
    """Name of this process: host, process-id namespace, process id, and when the process was started."""
    pid = os.getpid()
    return f"{_place()}|{pid}|{_started(pid)}"


def is_alive(owner: str | None) -> bool | None:
    """Whether the process is still there; None where that cannot be seen from here (another host or container)."""
    place, _, rest = (owner or "").rpartition("|")[0].rpartition("|")
    started = (owner or "").rpartition("|")[2].partition(".")[0]
    if place != _place() or not rest.isdigit() or sys.platform == "win32":
        return None
    pid = int(rest)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it is there, and somebody else's
    # A number that was given out again names another process.
    return started == _started(pid)


@functools.cache
def _place() -> str:
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return f"{platform.node()}|{namespace}"


def _started(pid: int) -> str:
    try:
        # The command, in brackets, may hold anything; the start time is field 22.
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
