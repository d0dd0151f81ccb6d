"""Identifiers that sort by the time they were made (UUIDv7, RFC 9562)."""

from __future__ import annotations

import os
import threading
import time
import uuid

_lock = threading.Lock()
_last = 0


def new_id() -> str:
    """A UUIDv7 as text: unique across processes, and increasing within this one even if the clock goes back."""
    global _last
    with _lock:
        # 48 bits of milliseconds and 12 bits of a counter that starts within the millisecond.
        now = time.time_ns() * 4096 // 1_000_000
        _last = max(_last + 1, now)
        stamp = _last
    value = (stamp >> 12) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64 | 0b10 << 62
    return str(uuid.UUID(int=value | int.from_bytes(os.urandom(8), "big") >> 2))
