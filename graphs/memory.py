"""What cannot be part of a graph's state: each episode's observers and open sequences.

All of it can be made anew: sequences from the store, observers by beginning to watch again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field

from nr_agent.detection.protocol import Detector, Look, Observer
from nr_agent.engine.protocol import Segment, SequenceRef

KEPT = 9
"""How many steps can be taken back with the observer's memory as it was: one more than a branch may go back."""

LIMIT = 1024
"""How many episodes are remembered beside those at work: some wait for a person who never answers, some are left."""

LEFT_AFTER = 600.0
"""Seconds after which an episode that nobody worked on, though it waits for nobody, counts as left."""


@dataclass
class Watch:
    """An observer on one line of thought, and its memory before each of the last steps."""

    observer: Observer
    before: deque[tuple[int, Observer]] = field(default_factory=lambda: deque(maxlen=KEPT))

    def look(self, segment: Segment, *, step: int, text: str) -> Look:
        """Look at a step, with a way back."""
        self.before.append((step, self.observer.fork()))
        return self.observer.look(segment, step=step, text=text)

    def fork(self, before: int | None = None) -> Watch | None:
        """The same watch as it was before a step; None if that is not remembered."""
        if before is None:
            return Watch(self.observer.fork(), deque(self.before, maxlen=KEPT))
        earlier = [(step, memory) for step, memory in self.before if step < before]
        at = next((memory for step, memory in self.before if step == before), None)
        return None if at is None else Watch(at.fork(), deque(earlier, maxlen=KEPT))


@dataclass
class _Episode:
    watches: dict[str, Watch] = field(default_factory=dict)
    sequences: dict[str, SequenceRef] = field(default_factory=dict)
    steps: int = 0  # the step of the highest number that was recorded, and one more
    at_work: int = 0
    aside: bool = False
    used: float = field(default_factory=time.monotonic)

    def left(self, now: float) -> bool:
        """Whether it may be forgotten: nobody works on it, and nobody will at once."""
        return not self.at_work and (self.aside or now - self.used > LEFT_AFTER)


class Memory:
    """The episodes that run in this process.

    Args:
        detector: watches them, if there is one.
    """

    def __init__(self, detector: Detector | None) -> None:
        self.detector = detector
        self._episodes: dict[str, _Episode] = {}  # the one used longest ago first
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._episodes)

    def look(self, episode_id: str, branch: str, segment: Segment, *, step: int, text: str) -> Look:
        """Look at a step of a line of thought."""
        watch = self._watch(episode_id, branch)
        return Look() if watch is None else watch.look(segment, step=step, text=text)

    def rewind(self, episode_id: str, branch: str, *, before: int) -> None:
        """Forget what was seen from a step on."""
        self.fork(episode_id, branch, branch, before=before)

    def fork(self, episode_id: str, branch: str, new: str, *, before: int | None) -> None:
        """Watch a fork of a line of thought, with the memory from before a step (or all of it)."""
        watch = self._watch(episode_id, branch)
        if watch is None or self.detector is None:
            return
        # What is not remembered, after a restart say, cannot be taken out: then the watch begins anew.
        forked = watch.fork(before) or Watch(self.detector.observe(episode_id))
        with self._lock:
            self._episode(episode_id).watches[new] = forked

    def keep(self, episode_id: str, branch: str) -> None:
        """Watch only this line of thought from now on."""
        with self._lock:
            episode = self._episode(episode_id)
            episode.watches = {name: watch for name, watch in episode.watches.items() if name == branch}

    def enter(self, episode_id: str) -> list[SequenceRef]:
        """An episode is worked on. Returns sequences to close, of an episode that nobody came back to."""
        with self._lock:
            entered = self._episode(episode_id)
            entered.at_work += 1
            entered.aside = False
            if len(self._episodes) <= LIMIT:
                return []
            now = time.monotonic()
            oldest = next((name for name, episode in self._episodes.items() if episode.left(now)), None)
            return [] if oldest is None else list(self._episodes.pop(oldest).sequences.values())

    def leave(self, episode_id: str) -> None:
        """An episode is no longer worked on, for now."""
        with self._lock:
            if (episode := self._episodes.get(episode_id)) is not None:
                episode.at_work = max(0, episode.at_work - 1)

    def lay_aside(self, episode_id: str) -> None:
        """An episode waits for somebody who may never come."""
        with self._lock:
            self._episode(episode_id).aside = True

    def recorded(self, episode_id: str, step: int) -> None:
        """A step was written down."""
        with self._lock:
            episode = self._episode(episode_id)
            episode.steps = max(episode.steps, step + 1)

    def is_behind(self, episode_id: str, next_index: int) -> bool:
        """Whether steps were written down that a state with this next one knows nothing of."""
        with self._lock:
            return self._episode(episode_id).steps > next_index

    def go_back(self, episode_id: str, branch: str, next_index: int, *, same_line: bool) -> None:
        """The episode stands before a step again; on another line than it was, the watches begin anew."""
        if same_line:
            self.rewind(episode_id, branch, before=next_index)
        with self._lock:
            episode = self._episode(episode_id)
            episode.steps = next_index
            if not same_line:
                episode.watches.clear()

    def hold(self, episode_id: str, ref: SequenceRef) -> None:
        """Remember a sequence, so that it is closed in the end."""
        with self._lock:
            self._episode(episode_id).sequences[ref.id] = ref

    def release(self, episode_id: str, ref: SequenceRef) -> None:
        """A sequence was closed."""
        with self._lock:
            self._episode(episode_id).sequences.pop(ref.id, None)

    def forget(self, episode_id: str) -> list[SequenceRef] | None:
        """Forget an episode; its sequences that are still open, or None if it was not known."""
        with self._lock:
            episode = self._episodes.pop(episode_id, None)
        return None if episode is None else list(episode.sequences.values())

    def _watch(self, episode_id: str, branch: str) -> Watch | None:
        if self.detector is None:
            return None
        with self._lock:
            watches = self._episode(episode_id).watches
            if branch not in watches:
                watches[branch] = Watch(self.detector.observe(episode_id))
            return watches[branch]

    def _episode(self, episode_id: str) -> _Episode:
        episode = self._episodes.pop(episode_id, None) or _Episode()
        episode.used = time.monotonic()
        self._episodes[episode_id] = episode
        return episode
