"""However a sequence is thought, alone or among many, it is the same sequence."""

from __future__ import annotations

import pytest

from nr_agent.engine.protocol import Engine, ExtendRequest, Sampling, StopSpec
from nr_agent.errors import UnknownSequenceError
from nr_agent.testing.engine_suite.base import (
    BOTH,
    PATIENCE,
    WARM,
    Suite,
    think_in_steps,
    wait_until,
)


class Thinking(Suite):
    """Steps, forks, rollbacks, batches and evictions."""

    @BOTH
    def test_steps_equal_one_shot(self, engine: Engine, sampling: Sampling) -> None:
        ids = self._prompt(engine)
        written, ref = think_in_steps(engine, engine.open(ids, seed=3), [1, 7, 2, 20], sampling)
        assert written == self._fresh(engine, ids, 30, sampling)
        assert engine.tokens(ref) == [*ids, *written]
        assert ref.length == len(ids) + 30
        engine.close(ref)

    @BOTH
    def test_rolling_back_and_going_on_equals_a_fresh_run(self, engine: Engine, sampling: Sampling) -> None:
        ids = self._prompt(engine)
        fresh = self._fresh(engine, ids, 25, sampling)
        _, ref = think_in_steps(engine, engine.open(ids, seed=3), [20], sampling)
        forced = engine.codec.encode("no, ")
        ref = engine.extend(ref, stop=StopSpec(max_new=6), force=forced, sampling=sampling).ref
        for kept in (9, 1, 0):
            ref = engine.rollback(ref, to=len(ids) + kept)
            assert ref.length == len(ids) + kept
            rest, ref = think_in_steps(engine, ref, [5, 20 - kept], sampling)
            assert [*fresh[:kept], *rest] == fresh
        engine.close(ref)

    @BOTH
    def test_a_fork_equals_a_fresh_run_and_leaves_its_parent_alone(self, engine: Engine, sampling: Sampling) -> None:
        ids = self._prompt(engine)
        fresh = self._fresh(engine, ids, 30, sampling)
        unread = engine.open(ids, seed=3)
        early = engine.fork(unread)
        _, ref = think_in_steps(engine, unread, [12], sampling)
        same, before = engine.fork(ref), engine.fork(ref, at=len(ids) + 5)
        assert (same.length, before.length) == (len(ids) + 12, len(ids) + 5)
        written, same = think_in_steps(engine, same, [18], sampling)
        assert written == fresh[12:]
        engine.close(same)
        assert think_in_steps(engine, ref, [18], sampling)[0] == fresh[12:]
        engine.close(ref)
        assert think_in_steps(engine, before, [25], sampling)[0] == fresh[5:]
        assert think_in_steps(engine, early, [30], sampling)[0] == fresh
        engine.close(before)
        engine.close(early)

    def test_a_fork_with_another_seed_thinks_something_else(self, engine: Engine) -> None:
        ids = self._prompt(engine)
        ref = engine.open(ids, seed=3)
        forks = [engine.fork(ref, seed=seed) for seed in range(4)]
        written = [tuple(think_in_steps(engine, fork, [20], WARM)[0]) for fork in forks]
        assert len(set(written)) > 1
        assert list(written[2]) == self._fresh(engine, ids, 20, WARM, seed=2)
        for handle in (ref, *forks):
            engine.close(handle)

    @BOTH
    def test_a_restored_sequence_goes_on_as_the_lost_one_would(self, engine: Engine, sampling: Sampling) -> None:
        ids = self._prompt(engine)
        fresh = self._fresh(engine, ids, 24, sampling)
        ref = engine.restore([*ids, *fresh[:10]], seed=3)
        written, ref = think_in_steps(engine, ref, [4, 10], sampling)
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

    @BOTH
    def test_alone_equals_in_a_ragged_batch(self, engine: Engine, sampling: Sampling) -> None:
        self._compare_threads(engine, engine, sampling)

    def test_eviction_and_chunks_change_nothing(self, engine: Engine, cramped: Engine) -> None:
        ids = self._prompt(engine)
        refs = [cramped.open(ids, seed=seed) for seed in range(5)]
        written: list[list[int]] = [[] for _ in refs]
        for _ in range(3):
            for number in range(len(refs)):
                more, refs[number] = think_in_steps(cramped, refs[number], [6], WARM)
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
            wait_until(lambda ref=doomed: len(cramped.tokens(ref)) > len(ids) + 1)
            cramped.close(doomed)
            ref = cramped.open(long, seed=3)
            # The closed one must not go on writing where this one's keys and values are now.
            written, ref = think_in_steps(cramped, ref, [2] * 15, WARM)
            assert written == fresh
            cramped.close(ref)
            with pytest.raises(UnknownSequenceError):
                cramped.tokens(doomed)
            assert future.cancelled()
