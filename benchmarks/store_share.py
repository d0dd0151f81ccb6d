"""What of an episode's wall time is the store's, by what a reasoner's thread spends inside of it."""

from __future__ import annotations

import time
from typing import Any

from nr_agent.store import EpisodeStore

TARGET = 0.01
"""At most this share of an episode's wall time may be spent waiting for the store."""

_METHODS = ("begin", "add", "discard", "finish", "get", "flush")


class Share:
    """Solves problems with a store, and adds up what is spent in it.

    Args:
        model: whose episodes are looked at.
        store: to write them to.
    """

    def __init__(self, model: str, store: EpisodeStore) -> None:
        from nr_agent import create_reasoner  # noqa: PLC0415 - loads torch, and only this needs it

        self._store = store
        self._inside = {name: _Clock(store, name) for name in _METHODS}
        self._writer = _Clock(store._writer, "_commit")
        self._reasoner = create_reasoner(model, store=store)
        self._solved, self._seconds, self._cpu = 0, 0.0, 0.0
        for number in range(2):
            self._reasoner.invoke(_problem(number))

    def solve(self, first: int, problems: int) -> float:
        """Solve some problems; gives the seconds that an episode of them waited for the store."""
        self._store.flush()
        clocks, before = (*self._inside.values(), self._writer), self._waited
        for clock in clocks:
            clock.runs = True
        begun, begun_cpu = time.perf_counter(), time.process_time()
        for number in range(first, first + problems):
            self._reasoner.invoke(_problem(number))
        self._seconds += time.perf_counter() - begun
        self._cpu += time.process_time() - begun_cpu
        self._solved += problems
        for clock in clocks:
            clock.runs = False
        return (self._waited - before) / problems

    @property
    def found(self) -> dict[str, Any]:
        """Over all that was solved, seconds an episode, and shares of it.

        `wait` is what the reasoner's thread spends inside the store, by method in `waits`; `cpu` is what it computes
        there, and `writer_cpu` what the writer's thread computes beside it, while the engine does. Shares of CPU are
        of all that the process computes: other work on the machine does not change them much.
        """
        each = 1 / self._solved
        waits = {name: clock.seconds * each for name, clock in self._inside.items()}
        computed = sum(clock.cpu for clock in self._inside.values())
        return {
            "problems": self._solved,
            "seconds": self._seconds * each,
            "wait": sum(waits.values()),
            "waits": waits,
            "share": self._waited / self._seconds,
            "target": TARGET,
            "process_cpu": self._cpu * each,
            "cpu": computed * each,
            "writer_cpu": self._writer.cpu * each,
            "share_of_cpu": computed / self._cpu,
            "writer_share_of_cpu": self._writer.cpu / self._cpu,
        }

    @property
    def _waited(self) -> float:
        return sum(clock.seconds for clock in self._inside.values())


class _Clock:
    """Stands before a method of an object and adds up what it takes while the clock runs."""

    def __init__(self, owner: object, name: str) -> None:
        self.runs = False
        self.seconds = self.cpu = 0.0
        method = getattr(owner, name)

        def call(*given: Any, **named: Any) -> Any:
            begun, begun_cpu = time.perf_counter(), time.thread_time()
            try:
                return method(*given, **named)
            finally:
                if self.runs:
                    self.cpu += time.thread_time() - begun_cpu
                    self.seconds += time.perf_counter() - begun

        setattr(owner, name, call)


def _problem(number: int) -> dict[str, Any]:
    text = f"Find the value of x in the equation: {number + 3}*x + 4 = {(number + 3) * 7 + 4}"
    return {"messages": [{"role": "user", "content": text}]}
