"""Stops, cancelling, handles and limits."""

import threading
import time

import pytest
import torch
from tiny_families import FAMILIES, build

from nr_agent.detection.collect import all_channels
from nr_agent.engine.protocol import ExtendRequest, Sampling, SequenceRef, StopSpec
from nr_agent.engine.torch_engine import TorchEngine
from nr_agent.errors import ContextLengthError, EngineError, UnknownSequenceError
from nr_agent.models.fingerprint import fingerprint
from nr_agent.neurons.tap import ChannelPlan

IDS = [30, 31, 32, 33]
GREEDY = Sampling(temperature=0)
PATIENCE = 60


def test_a_segment_ends_with_the_id_it_stops_at(qwen):
    ref = qwen.open(IDS, seed=1)
    free = qwen.extend(ref, stop=StopSpec(max_new=20), sampling=Sampling(temperature=1.5, top_p=1.0))
    wanted = free.ids[6]
    again = qwen.extend(
        qwen.open(IDS, seed=1),
        stop=StopSpec(ids=frozenset({wanted}), max_new=20),
        sampling=Sampling(temperature=1.5, top_p=1.0),
    )
    assert again.ids == free.ids[: free.ids.index(wanted) + 1]
    assert (again.end, free.end) == ("stop_id", "length")


def test_a_string_is_found_where_it_straddles_tokens(qwen):
    hot = Sampling(temperature=1.5, top_p=1.0)
    free = qwen.extend(qwen.open(IDS, seed=2), stop=StopSpec(max_new=30), sampling=hot)
    pieces = [qwen.codec.decode([token]) for token in free.ids]
    # The end of one token and the beginning of the next.
    place = next(i for i in range(8, 25) if pieces[i].isascii() and pieces[i + 1].isascii())
    straddling = pieces[place][-1] + pieces[place + 1][0]
    first = next(i for i in range(len(pieces)) if straddling in qwen.codec.decode(free.ids[: i + 1]))
    segment = qwen.extend(qwen.open(IDS, seed=2), stop=StopSpec(strings=(straddling,), max_new=30), sampling=hot)
    assert segment.ids == free.ids[: first + 1]
    assert segment.end == "stop_string"


def test_forced_ids_are_taken_in_and_told_apart(qwen):
    segment = qwen.extend(qwen.open(IDS), stop=StopSpec(max_new=4), force=[40, 41, 42], sampling=GREEDY)
    assert segment.ids[:3] == [40, 41, 42]
    assert segment.provenance == [("inserted", 3), ("model", 4)]
    assert [value is None for value in segment.logprobs] == [True] * 3 + [False] * 4
    assert all(value <= 0 for value in segment.logprobs[3:])
    only = qwen.extend(segment.ref, stop=StopSpec(max_new=0), force=[43])
    assert (only.ids, only.end) == ([43], "forced")


def test_cancelling_stops_soon_and_leaves_the_sequence_as_it_was(qwen):
    ref = qwen.open(IDS)
    future = qwen.submit(ExtendRequest(ref, StopSpec(max_new=400), GREEDY))
    time.sleep(0.05)
    assert future.cancel()
    deadline = time.monotonic() + 20
    while qwen.tokens(ref) != IDS:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert qwen.extend(ref, stop=StopSpec(max_new=3), sampling=GREEDY).start == len(IDS)


def test_a_sequence_that_is_being_extended_refuses_a_second_step(qwen):
    ref = qwen.open(IDS)
    future = qwen.submit(ExtendRequest(ref, StopSpec(max_new=300), GREEDY))
    with pytest.raises(EngineError, match="already being extended"):
        qwen.extend(ref, stop=StopSpec(max_new=1))
    with pytest.raises(EngineError, match="being extended"):
        qwen.rollback(ref, to=2)
    future.cancel()


def test_handles_survive_json_and_strangers_are_refused(qwen):
    ref = qwen.open(IDS)
    assert SequenceRef.model_validate_json(ref.model_dump_json()) == ref
    qwen.close(ref)
    qwen.close(ref)
    with pytest.raises(UnknownSequenceError, match="restore"):
        qwen.extend(ref, stop=StopSpec(max_new=1))


def test_the_context_is_never_exceeded(qwen):
    limit = qwen.capabilities.context
    with pytest.raises(ContextLengthError, match=str(limit)):
        qwen.open([30] * limit)
    ref = qwen.open([30] * (limit - 3))
    segment = qwen.extend(ref, stop=StopSpec(max_new=50), sampling=GREEDY)
    assert (len(segment.ids), segment.end) == (3, "context")
    with pytest.raises(ContextLengthError):
        qwen.extend(segment.ref, stop=StopSpec(max_new=1), force=[30])


@pytest.fixture
def longrope(tokenizer):
    """A model of 512 positions that was trained on 64 first: beyond those all of its frequencies are others."""
    factors = {"rope_type": "longrope", "short_factor": [1.0] * 6, "long_factor": [4.0] * 6}
    shape = FAMILIES["phi3"] | {"original_max_position_embeddings": 64, "rope_parameters": factors}
    model = build("phi3", len(tokenizer), **shape)
    engine = TorchEngine(model, tokenizer, name="phi3", fingerprint=fingerprint(model))
    yield engine
    engine.shutdown()


def test_the_context_of_longrope_is_what_it_was_trained_on_first(longrope):
    assert longrope.model.config.max_position_embeddings == 512
    assert (longrope.runner.positions, longrope.capabilities.context) == (64, 64)
    with pytest.raises(ContextLengthError, match="64"):
        longrope.open([30] * 64)
    segment = longrope.extend(longrope.open([30] * 60), stop=StopSpec(max_new=50), sampling=GREEDY)
    assert (len(segment.ids), segment.end) == (4, "context")


def test_the_padding_of_longrope_s_rows_does_not_change_its_frequencies(longrope):
    """A row near the end of the context, padded to the length of another: its padding would lie far beyond."""
    longrope.attach(ChannelPlan(all_channels(longrope.model)[::7]))

    def think(together):
        late = longrope.extend(longrope.open([40] * 50), stop=StopSpec(max_new=1), sampling=GREEDY).ref
        requests = [
            ExtendRequest(late, StopSpec(max_new=5), GREEDY, force=[41] * 4),
            ExtendRequest(longrope.open([50] * 30), StopSpec(max_new=5), GREEDY),
        ]
        if not together:
            return [longrope.submit(request).result(PATIENCE) for request in requests]
        with longrope.quiet():  # both begin in the same pass
            futures = [longrope.submit(request) for request in requests]
        return [future.result(PATIENCE) for future in futures]

    for alone, beside in zip(think(together=False), think(together=True), strict=True):
        assert beside.ids == alone.ids
        torch.testing.assert_close(beside.readings.values, alone.readings.values, atol=1e-4, rtol=1e-4)


def test_a_model_that_computes_no_numbers_for_a_sequence_fails_its_step_alone(make_engine, qwen):
    engine, broken = make_engine("qwen3"), 95
    with engine.quiet() as model:
        model.get_input_embeddings().weight.data[broken] = torch.nan
    sound = Sampling(temperature=0, suppress=(broken,))
    expected = qwen.extend(qwen.open(IDS), stop=StopSpec(max_new=20), sampling=sound).ids
    refs = [engine.open([*IDS, broken]), engine.open([*IDS, broken]), engine.open(IDS)]
    hows = [sound, Sampling(temperature=1.0), sound]
    before = engine._scheduler.sequences.passes
    with engine.quiet():  # all of them begin in the same pass
        futures = [
            engine.submit(ExtendRequest(ref, StopSpec(max_new=20), how)) for ref, how in zip(refs, hows, strict=True)
        ]
    for ref, future in zip(refs[:2], futures, strict=False):
        with pytest.raises(EngineError, match="no numbers at position 5") as caught:
            future.result(PATIENCE)
        assert caught.value.hint
        assert engine.tokens(ref) == [*IDS, broken]
    assert futures[2].result(PATIENCE).ids == expected
    assert engine._scheduler.sequences.passes - before == 20
    # Without what it cannot compute the sequence goes on.
    mended = engine.rollback(refs[0], to=len(IDS))
    assert engine.extend(mended, stop=StopSpec(max_new=20), sampling=sound).ids == expected
    # A mask does not keep what is no number out of what is seen: its slot is cleared for whoever comes next.
    engine.close(refs[1])
    short = qwen.extend(qwen.open(IDS[:2]), stop=StopSpec(max_new=3), sampling=sound).ids
    with engine.quiet():
        pair = [
            ExtendRequest(ref, StopSpec(max_new=3), sound) for ref in (engine.open(IDS[:2]), futures[2].result().ref)
        ]
        beside = [engine.submit(request) for request in pair]
    assert beside[0].result(PATIENCE).ids == short


def test_a_step_whose_thread_cannot_be_started_leaves_the_sequence_as_it_was(make_engine, monkeypatch):
    engine = make_engine("qwen3")
    ref = engine.open(IDS)

    def start(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="new thread"):
            engine.extend(ref, stop=StopSpec(max_new=1), force=[40, 41])
    assert engine.tokens(ref) == IDS
    segment = engine.extend(ref, stop=StopSpec(max_new=1), force=[40, 41])
    assert (segment.ids[:2], segment.start) == ([40, 41], len(IDS))


def test_an_engine_that_was_shut_down_says_so(make_engine):
    engine = make_engine("llama")
    ref = engine.open(IDS)
    ref = engine.extend(ref, stop=StopSpec(max_new=1), sampling=GREEDY).ref
    engine.shutdown()
    with pytest.raises(EngineError, match="shut down"):
        engine.extend(ref, stop=StopSpec(max_new=1))


def test_a_fingerprint_is_of_the_weights_and_not_of_their_type(make_engine):
    model = make_engine("llama").model
    model.to(torch.bfloat16)
    low = fingerprint(model)
    assert fingerprint(model.float()) == low
    model.get_input_embeddings().weight.data.mul_(2)
    assert fingerprint(model) != low
