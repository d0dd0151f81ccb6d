"""The episodes that this process is thinking, as they would be read back: to look at them takes no database."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from nr_agent.episode import Episode, Intervention, Step
from nr_agent.events import AnyFailureEvent
from nr_agent.store.columns import as_stored
from nr_agent.store.copies import step_as_read
from nr_agent.store.operations import RESUMED, Operation, overlay
from nr_agent.store.records import event_of, intervention_of, step_of


class Live:
    """Takes what is written, in order, and puts it together when somebody asks. Threads may share it.

    Args:
        most: episodes that it knows; beyond them it forgets the one that it has known longest. None: all.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._episodes: dict[str, _Parts] = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def __len__(self) -> int:
        return len(self._episodes)

    def take(self, operation: Operation) -> None:
        """Note an operation. Of an episode whose beginning was not noted, nothing is."""
        with self._locked():
            if operation.kind == "begin":
                self._episodes.setdefault(operation.episode_id, _Parts()).begin(operation)
                if self._most is not None and len(self._episodes) > self._most:
                    del self._episodes[next(iter(self._episodes))]
            elif (parts := self._episodes.get(operation.episode_id)) is not None:
                parts.take(operation)

    def get(self, episode_id: str) -> Episode | None:
        """The episode so far; None where it is not known here."""
        with self._locked():
            parts = self._episodes.get(episode_id)
            return None if parts is None else parts.together()

    def drop(self, episode_id: str) -> None:
        """Forget an episode."""
        with self._locked():
            self._episodes.pop(episode_id, None)

    def _locked(self) -> threading.Lock:
        if self._pid != os.getpid():
            # Whichever thread of the parent held the lock, it is not in this child to let go of it.
            self._lock, self._pid = threading.Lock(), os.getpid()
        return self._lock


class _Parts:
    """One episode."""

    def __init__(self) -> None:
        self.steps = _Made(_step)
        self.events = _Made(lambda operation: event_of(operation.values))
        self.interventions = _Made(lambda operation: intervention_of(operation.values))
        self.first: Operation | None = None
        self.head: Episode | None = None
        self.ends: list[Operation] = []
        self.went_on = False

    def begin(self, operation: Operation) -> None:
        if self.first is not None:
            # Begun twice, as a node that runs again does: it was created when it was first begun.
            operation = operation.changed(created_at=self.first.values["created_at"])
        self.first, self.head, self.ends, self.went_on = operation, None, [], False

    def take(self, operation: Operation) -> None:
        self.went_on = operation.kind != "finish"
        if operation.kind == "step":
            self.steps.put(operation)
        elif operation.kind == "event":
            self.events.put(operation)
        elif operation.kind == "intervention":
            self.interventions.put(operation)
        elif operation.kind == "discard":
            for index in operation.values["steps"]:
                self.steps.change(index, discarded=True)
        else:
            self.ends.append(operation)

    def together(self) -> Episode | None:
        if self.first is None:
            return None
        steps = self.steps.all()
        parts = {
            "steps": [steps[index] for index in sorted(steps)],
            "events": sorted(self.events.all().values(), key=_step_of),
            "interventions": sorted(self.interventions.all().values(), key=_step_of),
        }
        self.head = self.head or overlay(None, self.first)
        episode = None if self.head is None else self.head.model_copy(update=parts)
        for operation in self.ends:
            episode = overlay(episode, operation)
        if episode is not None and self.ends and self.went_on and episode.status in RESUMED:
            episode = episode.model_copy(update={"status": "running", "ended_at": None})
        return episode


class _Made:
    """Records by key, in the order in which they first came, each made when it is first asked for."""

    def __init__(self, make: Callable[[Operation], Any]) -> None:
        self._make = make
        self._put: dict[Any, Operation] = {}
        self._made: dict[Any, Any] = {}

    def put(self, operation: Operation) -> None:
        key = operation.key
        self._put[key] = operation
        self._made.pop(key, None)

    def change(self, key: Any, **changed: Any) -> None:
        if key in self._put:
            self.put(self._put[key].changed(**changed))

    def all(self) -> dict[Any, Any]:
        if len(self._made) < len(self._put):
            made = self._made
            # Made anew, so that what was changed stays where it first was.
            self._made = {key: made[key] if key in made else self._make(one) for key, one in self._put.items()}
        return self._made


def _step(operation: Operation) -> Step:
    if operation.step is not None:
        return step_as_read(operation.step)
    return step_of(operation.values | {"logprobs": as_stored(operation.values["logprobs"])})


def _step_of(record: AnyFailureEvent | Intervention) -> int:
    return record.step
