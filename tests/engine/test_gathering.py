"""Steps that come one after the other while nothing is computed begin together; nobody waits in vain."""

import threading
import time

import pytest

from nr_agent.engine import scheduler
from nr_agent.engine.protocol import ExtendRequest, Sampling, StopSpec

PATIENCE = 60


@pytest.fixture
def slow(make_engine, monkeypatch):
    """An engine of its own whose passes seem to take so long that waiting for others is worth it."""
    engine = make_engine("qwen3")
    monkeypatch.setattr(scheduler, "GAP", 5.0)
    monkeypatch.setattr(scheduler, "LONGEST_HOLD", 20.0)
    with engine.quiet():
        monkeypatch.setattr(engine._scheduler, "_pace", 100.0)
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
    started = time.monotonic()
    segment = slow.submit(_request(ref)).result(PATIENCE)
    assert time.monotonic() - started < 5.0  # the gap alone would have been longer
    slow.close(segment.ref)


def test_one_that_is_closed_or_paused_meanwhile_does_not_hang(slow):
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
