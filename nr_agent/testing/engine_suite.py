"""The conformance suite of engines: however a sequence is thought, it is the same sequence.

Subclass `EngineConformance` in a test file and give it two fixtures; pytest collects the rest. Name the class
`Test...`: the base is not collected by itself. Runs need a model of a few layers, in float32.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from nr_agent.engine.protocol import Engine, ExtendRequest, Sampling, Segment, SequenceRef, StopSpec, TapPlan
from nr_agent.errors import ChannelError, ContextLengthError, EngineError, UnknownSequenceError

if TYPE_CHECKING:
    from torch import Tensor

GREEDY = Sampling(temperature=0)
WARM = Sampling(temperature=1.0, top_p=0.9)
BOTH = pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "sampled"])
PATIENCE = 60.0
"""Seconds after which what should have happened will not happen."""


class EngineConformance:
    """What every engine keeps. All tests open their own sequences; an engine can be shared by all of them.

    Fixtures to give:
        engine: the engine under test.
        cramped: one of the same model that keeps the cache of two sequences (`Limits(slots=2, chunk=7)`).

    Methods to override: `plan` and `plain_readings`, where the engine reads channels.

    Example:
        >>> @pytest.fixture(scope="module")  # doctest: +SKIP
        ... def engine():
        ...     return MyEngine(...)
        >>> @pytest.fixture(scope="module")  # doctest: +SKIP
        ... def cramped():
        ...     return MyEngine(..., slots=2)
        >>> class TestMyEngine(EngineConformance):  # doctest: +SKIP
        ...     def plan(self, engine):
        ...         return MyPlan(...)
    """

    problem = "Find the value of x in the equation: 3*x + 4 = 19"
    tolerance = 1e-4
    """Largest difference of a reading, relative to the largest value of its channel."""

    def plan(self, engine: Any) -> TapPlan | None:
        """Channels to read in the tests of readings, some of each kind; None skips those tests."""
        return None

    def plain_readings(self, engine: Any, plan: TapPlan, ids: Sequence[int]) -> Tensor:
        """The same channels in one plain forward pass over `ids`, `[tokens, channels]`: what readings must equal."""
        raise NotImplementedError

    # --- one sequence, however it is thought ---

    @BOTH
    def test_steps_equal_one_shot(self, engine: Engine, sampling: Sampling) -> None:
        ids = self._prompt(engine)
        written, ref = _think(engine, engine.open(ids, seed=3), [1, 7, 2, 20], sampling)
        assert written == self._fresh(engine, ids, 30, sampling)
        assert engine.tokens(ref) == [*ids, *written]
        assert ref.length == len(ids) + 30
        engine.close(ref)

    @BOTH
    def test_rolling_back_and_going_on_equals_a_fresh_run(self, engine: Engine, sampling: Sampling) -> None:
        ids = self._prompt(engine)
        fresh = self._fresh(engine, ids, 25, sampling)
        _, ref = _think(engine, engine.open(ids, seed=3), [20], sampling)
        forced = engine.codec.encode("no, ")
        ref = engine.extend(ref, stop=StopSpec(max_new=6), force=forced, sampling=sampling).ref
        for kept in (9, 1, 0):
            ref = engine.rollback(ref, to=len(ids) + kept)
            assert ref.length == len(ids) + kept
            rest, ref = _think(engine, ref, [5, 20 - kept], sampling)
            assert [*fresh[:kept], *rest] == fresh
        engine.close(ref)

    @BOTH
    def test_a_fork_equals_a_fresh_run_and_leaves_its_parent_alone(self, engine: Engine, sampling: Sampling) -> None:
        ids = self._prompt(engine)
        fresh = self._fresh(engine, ids, 30, sampling)
        unread = engine.open(ids, seed=3)
        early = engine.fork(unread)
        _, ref = _think(engine, unread, [12], sampling)
        same, before = engine.fork(ref), engine.fork(ref, at=len(ids) + 5)
        assert (same.length, before.length) == (len(ids) + 12, len(ids) + 5)
        written, same = _think(engine, same, [18], sampling)
        assert written == fresh[12:]
        engine.close(same)
        assert _think(engine, ref, [18], sampling)[0] == fresh[12:]
        engine.close(ref)
        assert _think(engine, before, [25], sampling)[0] == fresh[5:]
        assert _think(engine, early, [30], sampling)[0] == fresh
        engine.close(before)
        engine.close(early)

    def test_a_fork_with_another_seed_thinks_something_else(self, engine: Engine) -> None:
        ids = self._prompt(engine)
        ref = engine.open(ids, seed=3)
        forks = [engine.fork(ref, seed=seed) for seed in range(4)]
        written = [tuple(_think(engine, fork, [20], WARM)[0]) for fork in forks]
        assert len(set(written)) > 1
        assert list(written[2]) == self._fresh(engine, ids, 20, WARM, seed=2)
        for handle in (ref, *forks):
            engine.close(handle)

    @BOTH
    def test_a_restored_sequence_goes_on_as_the_lost_one_would(self, engine: Engine, sampling: Sampling) -> None:
        ids = self._prompt(engine)
        fresh = self._fresh(engine, ids, 24, sampling)
        ref = engine.restore([*ids, *fresh[:10]], seed=3)
        written, ref = _think(engine, ref, [4, 10], sampling)
        assert written == fresh[10:]
        engine.close(ref)

    def test_forced_ids_are_told_apart_and_change_what_follows_as_their_tokens_would(self, engine: Engine) -> None:
        ids, forced = self._prompt(engine), engine.codec.encode("Wait, no: ")
        segment = engine.extend(engine.open(ids, seed=3), stop=StopSpec(max_new=8), force=forced, sampling=WARM)
        assert segment.ids[: len(forced)] == forced
        assert segment.provenance == [("inserted", len(forced)), ("model", 8)]
        assert [value is None for value in segment.logprobs] == [True] * len(forced) + [False] * 8
        assert [value is None for value in segment.entropies] == [True] * len(forced) + [False] * 8
        assert segment.ids[len(forced) :] == self._fresh(engine, [*ids, *forced], 8, WARM)
        only = engine.extend(segment.ref, stop=StopSpec(max_new=0), force=forced)
        assert (only.ids, only.end, only.start) == (forced, "forced", segment.ref.length)
        engine.close(only.ref)

    # --- many sequences ---

    @BOTH
    def test_alone_equals_in_a_ragged_batch(self, engine: Engine, sampling: Sampling) -> None:
        self._compare_threads(engine, engine, sampling)

    def test_eviction_and_chunks_change_nothing(self, engine: Engine, cramped: Engine) -> None:
        ids = self._prompt(engine)
        refs = [cramped.open(ids, seed=seed) for seed in range(5)]
        written: list[list[int]] = [[] for _ in refs]
        for _ in range(3):
            for number in range(len(refs)):
                more, refs[number] = _think(cramped, refs[number], [6], WARM)
                written[number] += more
        assert written == [self._fresh(engine, ids, 18, WARM, seed=seed) for seed in range(5)]
        for ref in refs:
            cramped.close(ref)

    def test_eviction_in_a_ragged_batch_changes_nothing(self, engine: Engine, cramped: Engine) -> None:
        self._compare_threads(engine, cramped, WARM)

    def test_steps_that_wait_for_room_are_all_thought(self, cramped: Engine) -> None:
        """More steps than there is room for, those without room before those that have it."""
        ids = self._prompt(cramped)
        refs = [cramped.open(ids, seed=seed) for seed in range(4)]
        for number in (2, 3):  # they hold the room, and wait behind the others
            refs[number] = cramped.extend(refs[number], stop=StopSpec(max_new=2)).ref
        for _ in range(5):
            futures = [cramped.submit(ExtendRequest(ref, StopSpec(max_new=2))) for ref in refs]
            refs = [future.result(PATIENCE).ref for future in futures]
        assert [ref.length - len(ids) for ref in refs] == [10, 10, 12, 12]
        for ref in refs:
            cramped.close(ref)

    def test_closing_a_sequence_that_is_thought_harms_no_other(self, engine: Engine, cramped: Engine) -> None:
        ids = self._prompt(engine)
        long = [*ids, *self._fresh(engine, ids, 60, WARM)]
        fresh = self._fresh(engine, long, 30, WARM)
        for seed in range(3):
            doomed = cramped.open(ids, seed=seed)
            future = cramped.submit(ExtendRequest(doomed, StopSpec(max_new=200), WARM))
            _wait(lambda ref=doomed: len(cramped.tokens(ref)) > len(ids) + 1)
            cramped.close(doomed)
            ref = cramped.open(long, seed=3)
            # The closed one must not go on writing where this one's keys and values are now.
            written, ref = _think(cramped, ref, [2] * 15, WARM)
            assert written == fresh
            cramped.close(ref)
            with pytest.raises(UnknownSequenceError):
                cramped.tokens(doomed)
            assert future.cancelled()

    # --- readings ---

    def test_every_reading_equals_a_plain_forward_over_the_final_text(self, engine: Engine) -> None:
        self._compare_readings(engine, rivals=False)

    def test_readings_of_evicted_sequences_are_their_own(self, cramped: Engine) -> None:
        self._compare_readings(cramped, rivals=True)

    def test_readings_in_a_ragged_batch_are_their_own(self, engine: Engine) -> None:
        plan = self._attach(engine)
        ids = self._prompt(engine)
        found: dict[int, _Read] = {}

        def think(number: int) -> None:
            read = found[number] = _Read(engine, engine.open(ids[number % 3 :], seed=number))
            for size in (2 + number, 5, 3 + 2 * (number % 4)):
                read.extend(size)

        try:
            _in_threads(think, [5, 2, 7, 0, 1, 6, 3, 4])
        finally:
            engine.attach(None)
        for read in found.values():
            self._compare(engine, plan, read)

    def test_flush_brings_the_last_reading_too_and_only_once(self, engine: Engine) -> None:
        plan = self._attach(engine)
        ids = self._prompt(engine)
        read = _Read(engine, engine.open(ids))
        try:
            assert read.extend(3, flush=True) == list(range(len(ids) + 3))
            assert read.extend(2) == [len(ids) + 3]
            assert read.extend(0, force=ids[:2]) == [len(ids) + 4, len(ids) + 5]
            assert read.extend(0, force=ids[:2], flush=True) == [len(ids) + 6, len(ids) + 7, len(ids) + 8]
        finally:
            engine.attach(None)
        self._compare(engine, plan, read, flushed=True)

    def test_a_cancelled_step_takes_no_readings_along(self, engine: Engine) -> None:
        plan = self._attach(engine)
        ids = self._prompt(engine)
        read = _Read(engine, engine.open(ids))
        try:
            self._cancel(engine, read.ref)
            assert read.extend(3) == list(range(len(ids) + 2))
            self._cancel(engine, read.ref)
            read.extend(3)
        finally:
            engine.attach(None)
        self._compare(engine, plan, read)

    def test_a_plan_that_fails_leaves_the_old_one_in_place(self, engine: Engine) -> None:
        plan = self._attach(engine)
        try:
            with pytest.raises(ChannelError):
                engine.attach(_Broken())
            read = _Read(engine, engine.open(self._prompt(engine)))
            read.extend(6)
        finally:
            engine.attach(None)
        self._compare(engine, plan, read)

    def test_attaching_in_the_middle_of_a_step_begins_there(self, engine: Engine) -> None:
        plan = self._attach(engine)
        try:
            ids = self._prompt(engine)
            ref = engine.open(ids, seed=1)
            future = engine.submit(ExtendRequest(ref, StopSpec(max_new=120), WARM))
            _wait(lambda: len(engine.tokens(ref)) > len(ids) + 3)
            engine.attach(plan)
            segment = future.result(PATIENCE)
        finally:
            engine.attach(None)
        assert segment.readings is not None
        positions = segment.readings.positions.tolist()
        assert positions == list(range(positions[0], segment.ref.length - 1))
        assert positions[0] > len(ids)
        engine.close(segment.ref)

    def test_nothing_is_read_unless_it_is_asked_for(self, engine: Engine) -> None:
        self._attach(engine)
        ref = engine.open(self._prompt(engine))
        try:
            silent = engine.extend(ref, stop=StopSpec(max_new=3), readings=False)
            loud = engine.extend(silent.ref, stop=StopSpec(max_new=3))
        finally:
            engine.attach(None)
        detached = engine.extend(loud.ref, stop=StopSpec(max_new=1))
        assert silent.readings is None
        assert detached.readings is None
        assert loud.readings is not None
        assert loud.readings.positions.tolist() == list(range(loud.start - 1, loud.ref.length - 1))
        engine.close(detached.ref)

    # --- stopping ---

    def test_a_segment_ends_with_the_id_it_stops_at(self, engine: Engine) -> None:
        ids = self._prompt(engine)
        free = self._fresh(engine, ids, 20, WARM)
        stop = StopSpec(ids=frozenset({free[12]}), max_new=20)
        segment = engine.extend(engine.open(ids, seed=3), stop=stop, sampling=WARM)
        assert (segment.ids, segment.end) == (free[: free.index(free[12]) + 1], "stop_id")
        engine.close(segment.ref)

    @pytest.mark.parametrize("length", [2, 20])
    def test_a_segment_ends_with_the_token_that_completes_a_string(self, engine: Engine, length: int) -> None:
        ids = self._prompt(engine)
        free = self._fresh(engine, ids, 40, WARM)
        # Random models write broken characters: the string must not begin or end within one.
        whole = [engine.codec.decode([token]).isascii() for token in free]
        begin = next(i for i in range(3, 40 - length) if whole[i] and whole[i + length - 1])
        string = engine.codec.decode(free[begin : begin + length])
        end = next(i for i in range(40) if string in engine.codec.decode(free[: i + 1]))
        stop = StopSpec(strings=("never written", string), max_new=40)
        segment = engine.extend(engine.open(ids, seed=3), stop=stop, sampling=WARM)
        assert (segment.ids, segment.end) == (free[: end + 1], "stop_string")
        engine.close(segment.ref)

    def test_a_cancelled_step_stops_soon_and_leaves_the_sequence_as_it_was(self, engine: Engine) -> None:
        ids = self._prompt(engine)
        fresh = self._fresh(engine, ids, 12, WARM)
        ref = engine.open(ids, seed=3)
        self._cancel(engine, ref)
        written, ref = _think(engine, ref, [5], WARM)
        self._cancel(engine, ref, force=engine.codec.encode("no"))
        more, ref = _think(engine, ref, [7], WARM)
        assert written + more == fresh
        engine.close(ref)

    # --- handles ---

    def test_handles_survive_json(self, engine: Engine) -> None:
        ids = self._prompt(engine)
        fresh = self._fresh(engine, ids, 8, WARM)
        _, ref = _think(engine, engine.open(ids, seed=3), [3], WARM)
        again = SequenceRef.model_validate_json(ref.model_dump_json())
        assert again == ref
        written, ref = _think(engine, again, [5], WARM)
        assert written == fresh[3:]
        engine.close(ref)

    def test_closing_twice_is_no_error_and_closed_handles_are_unknown(self, engine: Engine) -> None:
        ref = engine.open(self._prompt(engine))
        engine.close(ref)
        engine.close(ref)
        self._refused(engine, ref)

    def test_handles_of_others_are_unknown(self, engine: Engine) -> None:
        ref = engine.open(self._prompt(engine))
        self._refused(engine, ref.model_copy(update={"engine": "another"}))
        self._refused(engine, ref.model_copy(update={"id": "unheard-of"}))
        engine.close(ref)

    def test_an_old_handle_is_refused_until_the_sequence_is_rolled_back_to_it(self, engine: Engine) -> None:
        ids = self._prompt(engine)
        old = engine.open(ids, seed=3)
        engine.extend(old, stop=StopSpec(max_new=4), sampling=WARM)
        with pytest.raises(EngineError, match="handle"):
            engine.extend(old, stop=StopSpec(max_new=4), sampling=WARM)
        written, ref = _think(engine, engine.rollback(old, to=old.length), [4], WARM)
        assert written == self._fresh(engine, ids, 4, WARM)
        engine.close(ref)

    def test_a_sequence_that_is_being_extended_refuses_all_else(self, engine: Engine) -> None:
        ref = engine.open(self._prompt(engine))
        future = engine.submit(ExtendRequest(ref, StopSpec(max_new=200), WARM))
        with pytest.raises(EngineError, match="being extended"):
            engine.extend(ref, stop=StopSpec(max_new=1))
        with pytest.raises(EngineError, match="being extended"):
            engine.rollback(ref, to=2)
        with pytest.raises(EngineError, match="being extended"):
            engine.fork(ref)
        future.cancel()
        engine.close(ref)

    def test_cuts_outside_of_a_sequence_are_refused(self, engine: Engine) -> None:
        ref = engine.open(self._prompt(engine))
        for position in (0, -1, ref.length + 1):
            with pytest.raises(EngineError, match="outside"):
                engine.rollback(ref, to=position)
            with pytest.raises(EngineError, match="outside"):
                engine.fork(ref, at=position)
        assert len(engine.tokens(ref)) == ref.length
        engine.close(ref)

    def test_the_context_is_never_exceeded(self, engine: Engine) -> None:
        limit, token = engine.capabilities.context, self._prompt(engine)[-1]
        with pytest.raises(ContextLengthError, match=str(limit)):
            engine.open([token] * limit)
        segment = engine.extend(engine.open([token] * (limit - 3)), stop=StopSpec(max_new=50))
        assert (len(segment.ids), segment.end) == (3, "context")
        full = engine.extend(segment.ref, stop=StopSpec(max_new=5))
        assert (full.ids, full.end, full.ref) == ([], "context", segment.ref)
        with pytest.raises(ContextLengthError):
            engine.extend(segment.ref, stop=StopSpec(max_new=1), force=[token])
        assert len(engine.tokens(segment.ref)) == limit
        engine.close(segment.ref)

    def test_ids_that_the_model_does_not_know_are_refused_before_they_harm_others(self, engine: Engine) -> None:
        ref = engine.open(self._prompt(engine))
        other = engine.submit(ExtendRequest(engine.open(self._prompt(engine)), StopSpec(max_new=60), GREEDY))
        with pytest.raises(EngineError, match="token"):
            engine.open([1, 1 << 30])
        with pytest.raises(EngineError, match="token"):
            engine.extend(ref, stop=StopSpec(max_new=1), force=[-1])
        assert len(other.result(PATIENCE).ids) == 60
        engine.close(ref)

    # --- below: how it is done ---

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
            written[number], ref = _think(
                together, together.open(prompts[number], seed=number), sizes[number], sampling
            )
            together.close(ref)

        _in_threads(think, [5, 2, 7, 0, 1, 6, 3, 4])
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
            read = _Read(engine, engine.open(self._prompt(engine), seed=1))
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

    def _compare(self, engine: Engine, plan: TapPlan, read: _Read, *, flushed: bool = False) -> None:
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
        _wait(lambda: len(engine.tokens(ref)) > len(before) + len(force) + 2)
        assert future.cancel()
        _wait(lambda: engine.tokens(ref) == before)

    def _refused(self, engine: Engine, ref: SequenceRef) -> None:
        with pytest.raises(UnknownSequenceError):
            engine.extend(ref, stop=StopSpec(max_new=1))
        with pytest.raises(UnknownSequenceError):
            engine.fork(ref)
        with pytest.raises(UnknownSequenceError):
            engine.rollback(ref, to=1)
        with pytest.raises(UnknownSequenceError):
            engine.tokens(ref)


class _Read:
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

    def fork(self, at: int, seed: int) -> _Read:
        child = _Read(self.engine, self.engine.fork(self.ref, at=at, seed=seed))
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


class _Broken:
    """A plan for channels that no model has."""

    def install(self, model: Any) -> Any:
        raise ChannelError("there are no such channels")


def _think(engine: Engine, ref: SequenceRef, sizes: Sequence[int], sampling: Sampling) -> tuple[list[int], SequenceRef]:
    written: list[int] = []
    for size in sizes:
        segment = engine.extend(ref, stop=StopSpec(max_new=size), sampling=sampling)
        assert (segment.start, len(segment.ids), segment.end) == (ref.length, size, "length")
        ref = segment.ref
        written += segment.ids
    return written, ref


def _in_threads(work: Any, numbers: Sequence[int]) -> None:
    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a step never ended"


def _wait(ready: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.002)
