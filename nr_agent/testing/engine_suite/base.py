"""What the suite's parts share: what an engine under test gives, and how its sequences are compared."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from nr_agent.engine.protocol import (
    Engine,
    ExtendRequest,
    Sampling,
    Segment,
    SequenceRef,
    StopSpec,
    Tap,
    TapLayout,
    TapPlan,
)
from nr_agent.errors import ChannelError, UnknownSequenceError

if TYPE_CHECKING:
    from torch import Tensor

GREEDY = Sampling(temperature=0)
WARM = Sampling(temperature=1.0, top_p=0.9)
BOTH = pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "sampled"])
PATIENCE = 60.0
"""Seconds after which what should have happened will not happen."""


class Suite:
    """What a part of the suite stands on; see `EngineConformance`."""

    problem = "Find the value of x in the equation: 3*x + 4 = 19"
    tolerance = 1e-4
    """Largest difference of a reading, relative to the largest value of its channel."""

    def plan(self, engine: Any) -> TapPlan | None:
        """Channels to read in the tests of readings, some of each kind; None skips those tests."""
        return None

    def plain_readings(self, engine: Any, plan: TapPlan, ids: Sequence[int]) -> Tensor:
        """The same channels in one plain forward pass over `ids`, `[tokens, channels]`: what readings must equal."""
        raise NotImplementedError("an engine with a plan says how its channels are read in a plain pass")

    def _prompt(self, engine: Engine, more: str = "") -> list[int]:
        return engine.codec.render([{"role": "user", "content": self.problem + more}])

    def _fresh(self, engine: Engine, ids: Sequence[int], tokens: int, sampling: Sampling, seed: int = 3) -> list[int]:
        ref = engine.open(ids, seed=seed)
        segment = engine.extend(ref, stop=StopSpec(max_new=tokens), sampling=sampling)
        engine.close(ref)
        return segment.ids

    def _compare_threads(self, alone: Engine, together: Engine, sampling: Sampling) -> None:
        prompts = [self._prompt(alone, " + 1" * (number % 5)) for number in range(8)]
        sizes = [[3 + number % 3, 7 + 3 * number - number % 3] for number in range(8)]
        expected = [self._fresh(alone, ids, 10 + 3 * n, sampling, seed=n) for n, ids in enumerate(prompts)]
        written: dict[int, list[int]] = {}

        def think(number: int) -> None:
            # Steps of different lengths: rows join and leave at different tokens.
            written[number], ref = think_in_steps(
                together, together.open(prompts[number], seed=number), sizes[number], sampling
            )
            together.close(ref)

        in_threads(think, [5, 2, 7, 0, 1, 6, 3, 4])
        assert [written[number] for number in range(8)] == expected

    def _attach(self, engine: Engine) -> TapPlan:
        plan = self.plan(engine) if engine.capabilities.taps == "channels" else None
        if plan is None:
            pytest.skip("this engine reads no channels")
        layout = engine.attach(plan)
        assert len(set(layout.channels)) == len(layout.channels) > 0
        return plan

    def _compare_readings(self, engine: Engine, *, rivals: bool) -> None:
        """Steps, forced ids, a rollback and forks, and between them perhaps others that take the room."""
        plan = self._attach(engine)
        others = [engine.open(self._prompt(engine), seed=seed) for seed in (8, 9)] if rivals else []

        def disturb() -> None:
            for number in range(len(others)):
                others[number] = engine.extend(others[number], stop=StopSpec(max_new=2)).ref

        try:
            read = Read(engine, engine.open(self._prompt(engine), seed=1))
            disturb()
            read.extend(9)
            disturb()
            read.extend(5, force=engine.codec.encode("Wait, no: "))
            read.rollback(read.ref.length - 4)
            disturb()
            read.extend(8)
            branch = read.fork(read.ref.length - 3, seed=5)
            disturb()
            branch.extend(8)
            read.extend(4)
            branch.rollback(len(self._prompt(engine)))
            branch.extend(6)
        finally:
            engine.attach(None)
        self._compare(engine, plan, read)
        self._compare(engine, plan, branch)
        for ref in others:
            engine.close(ref)

    def _compare(self, engine: Engine, plan: TapPlan, read: Read, *, flushed: bool = False) -> None:
        ids = engine.tokens(read.ref)
        plain = self.plain_readings(engine, plan, ids)
        assert sorted(read.rows) == list(range(len(ids) - (0 if flushed else 1)))
        scale = plain.abs().amax(0)
        alive = scale > 0  # neurons behind a ReLU can be silent over a whole text
        assert float(alive.float().mean()) > 0.2
        for position, (token, values) in read.rows.items():
            assert token == ids[position]
            assert not values[~alive].any()
            worst = float(((values - plain[position]).abs() / scale)[alive].max())
            assert worst <= self.tolerance, f"position {position} is off by {worst:.2g}"
        engine.close(read.ref)

    def _cancel(self, engine: Engine, ref: SequenceRef, force: Sequence[int] = ()) -> None:
        before = engine.tokens(ref)
        future = engine.submit(ExtendRequest(ref, StopSpec(max_new=400), WARM, force))
        wait_until(lambda: len(engine.tokens(ref)) > len(before) + len(force) + 2)
        assert future.cancel()
        wait_until(lambda: engine.tokens(ref) == before)

    def _refused(self, engine: Engine, ref: SequenceRef) -> None:
        with pytest.raises(UnknownSequenceError):
            engine.extend(ref, stop=StopSpec(max_new=1))
        with pytest.raises(UnknownSequenceError):
            engine.fork(ref)
        with pytest.raises(UnknownSequenceError):
            engine.rollback(ref, to=1)
        with pytest.raises(UnknownSequenceError):
            engine.tokens(ref)


class Read:
    """A sequence, and the last reading of each of its positions."""

    def __init__(self, engine: Engine, ref: SequenceRef) -> None:
        self.engine = engine
        self.ref = ref
        self.rows: dict[int, tuple[int, Tensor]] = {}
        self.next = 0  # the first position that has not been read

    def extend(self, tokens: int, *, force: Sequence[int] = (), flush: bool = False) -> list[int]:
        """One step, and the positions that it read: they begin where the last step's ended."""
        stop = StopSpec(max_new=tokens)
        segment = self.engine.extend(self.ref, stop=stop, sampling=WARM, force=force, flush=flush)
        self.ref = segment.ref
        positions = self._positions(segment)
        assert positions == list(range(self.next, segment.start + len(segment.ids) - (0 if flush else 1)))
        self.next += len(positions)
        return positions

    def rollback(self, to: int) -> None:
        self.ref = self.engine.rollback(self.ref, to=to)
        self.next = min(self.next, to - 1)
        self.rows = {position: row for position, row in self.rows.items() if position < to}

    def fork(self, at: int, seed: int) -> Read:
        child = Read(self.engine, self.engine.fork(self.ref, at=at, seed=seed))
        child.rows = {position: row for position, row in self.rows.items() if position < at - 1}
        child.next = min(self.next, at - 1)
        return child

    def _positions(self, segment: Segment) -> list[int]:
        readings = segment.readings
        assert readings is not None
        assert readings.sequence == self.ref.id
        assert len(readings) == len(readings.token_ids) == len(readings.values)
        positions: list[int] = readings.positions.tolist()
        for position, token, values in zip(positions, readings.token_ids.tolist(), readings.values, strict=True):
            self.rows[position] = (token, values)
        return positions


class Broken:
    """A plan for channels that no model has."""

    def install(self, model: Any) -> Any:
        raise ChannelError("there are no such channels")


class Reversed:
    """A plan for the channels of another, in the other order as far as it says."""

    def __init__(self, plan: TapPlan) -> None:
        self.plan = plan

    def install(self, model: Any) -> Tap:
        tap = self.plan.install(model)
        tap.layout = TapLayout(tap.layout.channels[::-1])
        return tap


def think_in_steps(
    engine: Engine, ref: SequenceRef, sizes: Sequence[int], sampling: Sampling
) -> tuple[list[int], SequenceRef]:
    """Extend a sequence by steps of these sizes: what was written, and its handle."""
    written: list[int] = []
    for size in sizes:
        segment = engine.extend(ref, stop=StopSpec(max_new=size), sampling=sampling)
        assert (segment.start, len(segment.ids), segment.end) == (ref.length, size, "length")
        ref = segment.ref
        written += segment.ids
    return written, ref


def in_threads(work: Any, numbers: Sequence[int]) -> None:
    """Do some work for each number, all at once."""
    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a step never ended"


def wait_until(ready: Any) -> None:
    """Wait, though not for ever."""
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.002)
