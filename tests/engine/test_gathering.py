"""Steps that come one after the other while nothing is computed begin together; nobody waits in vain."""

import threading
import time
from concurrent.futures import wait

import pytest

from nr_agent.engine import scheduler
from nr_agent.engine.protocol import ExtendRequest, Sampling, StopSpec

PATIENCE = 60
FOREVER = 1000.0
"""Whoever waits that long in vain runs out of `PATIENCE`."""


@pytest.fixture
def slow(make_engine, monkeypatch):
    """An engine of its own whose passes seem to take so long that waiting for others is worth it."""
    engine = make_engine("qwen3")
    monkeypatch.setattr(scheduler, "GAP", FOREVER)
    monkeypatch.setattr(scheduler, "LONGEST_HOLD", FOREVER)
    with engine.quiet():
        monkeypatch.setattr(engine._scheduler, "_pace", 10 * FOREVER)
    return engine


def _request(ref):
    return ExtendRequest(ref, StopSpec(max_new=4), Sampling(temperature=0))


def test_steps_that_come_one_after_the_other_share_their_passes(slow):
    refs = [slow.open([40 + number, 41, 42]) for number in range(3)]
    before = slow._scheduler.sequences.passes
    futures = []
    for ref in refs:
        futures.append(slow.submit(_request(ref)))
        time.sleep(0.05)  # long enough for a pass of this model to begin
    segments = [future.result(PATIENCE) for future in futures]
    assert [len(segment.ids) for segment in segments] == [4, 4, 4]
    assert slow._scheduler.sequences.passes - before == 4
    for segment in segments:
        slow.close(segment.ref)


def test_the_last_open_sequence_waits_for_nobody(slow):
    others = slow.open([50, 51])
    slow.close(others)
    ref = slow.open([40, 41, 42])
    segment = slow.submit(_request(ref)).result(PATIENCE)
    assert len(segment.ids) == 4
    slow.close(segment.ref)


def test_a_guest_comes_in_while_a_step_waits(slow):
    ref, other = slow.open([40, 41, 42]), slow.open([50, 51])
    future = slow.submit(_request(ref))
    paused = threading.Event()

    def pause():
        with slow.quiet():
            paused.set()

    guest = threading.Thread(target=pause)
    guest.start()
    assert paused.wait(PATIENCE)
    guest.join(PATIENCE)
    assert len(future.result(PATIENCE).ids) == 4
    slow.close(other)
    slow.close(future.result().ref)


def test_an_engine_can_be_shut_down_while_a_step_waits(slow):
    ref, _ = slow.open([40, 41, 42]), slow.open([50, 51])
    future = slow.submit(_request(ref))
    slow.shutdown()
    assert future.cancelled()
    assert wait([future], timeout=PATIENCE).done == {future}
