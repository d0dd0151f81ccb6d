"""How a long command uses the C library's heap."""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8  # of glibc's malloc.h
_NEVER = 2**31 - 1
_PAD = 2**28


def keep_freed_memory() -> bool:
    """Have glibc keep the memory that tensors leave, instead of handing it back and fetching it page by page.

    On a CPU a training step frees and takes hundreds of megabytes; to fetch them anew cost 10% to 20% of its time
    (`docs/experiments.md`). It is for a process that belongs to us: a library leaves its user's heap as it is.

    Returns:
        Whether there is something to set: not on macOS, Windows or musl.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    options = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _PAD))
    return all(mallopt(option, value) == 1 for option, value in options)
