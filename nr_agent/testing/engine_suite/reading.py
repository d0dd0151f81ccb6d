"""Every reading is that of a plain forward pass, under its own position."""

from __future__ import annotations

import pytest

from nr_agent.engine.protocol import Engine, ExtendRequest, StopSpec
from nr_agent.errors import ChannelError, ConfigurationError
from nr_agent.testing.engine_suite.base import (
    PATIENCE,
    WARM,
    Broken,
    Read,
    Reversed,
    Suite,
    in_threads,
    wait_until,
)


class Reading(Suite):
    """Readings through steps, forks, evictions, flushes and cancelled steps."""

    def test_every_reading_equals_a_plain_forward_over_the_final_text(self, engine: Engine) -> None:
        self._compare_readings(engine, rivals=False)

    def test_readings_of_evicted_sequences_are_their_own(self, cramped: Engine) -> None:
        self._compare_readings(cramped, rivals=True)

    def test_readings_in_a_ragged_batch_are_their_own(self, engine: Engine) -> None:
        plan = self._attach(engine)
        ids = self._prompt(engine)
        found: dict[int, Read] = {}

        def think(number: int) -> None:
            read = found[number] = Read(engine, engine.open(ids[number % 3 :], seed=number))
            for size in (2 + number, 5, 3 + 2 * (number % 4)):
                read.extend(size)

        try:
            in_threads(think, [5, 2, 7, 0, 1, 6, 3, 4])
        finally:
            engine.attach(None)
        for read in found.values():
            self._compare(engine, plan, read)

    def test_flush_brings_the_last_reading_too_and_only_once(self, engine: Engine) -> None:
        plan = self._attach(engine)
        ids = self._prompt(engine)
        read = Read(engine, engine.open(ids))
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
        read = Read(engine, engine.open(ids))
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
                engine.attach(Broken())
            read = Read(engine, engine.open(self._prompt(engine)))
            read.extend(6)
        finally:
            engine.attach(None)
        self._compare(engine, plan, read)

    def test_a_plan_that_is_not_to_replace_another_leaves_it_in_place(self, engine: Engine) -> None:
        plan = self._attach(engine)
        try:
            layout = engine.attach(plan, replace=False)
            assert engine.attach(None, replace=False) == layout
            with pytest.raises(ConfigurationError):
                engine.attach(Reversed(plan), replace=False)
            read = Read(engine, engine.open(self._prompt(engine)))
            read.extend(6)
            engine.attach(None)
            assert engine.attach(Reversed(plan), replace=False) != layout
        finally:
            engine.attach(None)
        self._compare(engine, plan, read)

    def test_attaching_in_the_middle_of_a_step_begins_there(self, engine: Engine) -> None:
        plan = self._attach(engine)
        try:
            ids = self._prompt(engine)
            ref = engine.open(ids, seed=1)
            future = engine.submit(ExtendRequest(ref, StopSpec(max_new=120), WARM))
            wait_until(lambda: len(engine.tokens(ref)) > len(ids) + 3)
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
