"""Where segments end, and what handles are good for."""

from __future__ import annotations

import pytest

from nr_agent.engine.protocol import Engine, ExtendRequest, SequenceRef, StopSpec
from nr_agent.errors import ContextLengthError, EngineError
from nr_agent.testing.engine_suite.base import (
    GREEDY,
    PATIENCE,
    WARM,
    Suite,
    think_in_steps,
)


class Holding(Suite):
    """Stops, cancelling, handles and limits."""

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
        written, ref = think_in_steps(engine, ref, [5], WARM)
        self._cancel(engine, ref, force=engine.codec.encode("no"))
        more, ref = think_in_steps(engine, ref, [7], WARM)
        assert written + more == fresh
        engine.close(ref)

    def test_handles_survive_json(self, engine: Engine) -> None:
        ids = self._prompt(engine)
        fresh = self._fresh(engine, ids, 8, WARM)
        _, ref = think_in_steps(engine, engine.open(ids, seed=3), [3], WARM)
        again = SequenceRef.model_validate_json(ref.model_dump_json())
        assert again == ref
        written, ref = think_in_steps(engine, again, [5], WARM)
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
        written, ref = think_in_steps(engine, engine.rollback(old, to=old.length), [4], WARM)
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
