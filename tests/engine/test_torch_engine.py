"""Stops, cancelling, handles and limits."""

import time

import pytest

from nr_agent.engine.protocol import ExtendRequest, Sampling, SequenceRef, StopSpec
from nr_agent.errors import ContextLengthError, EngineError, UnknownSequenceError
from nr_agent.models.fingerprint import fingerprint

IDS = [30, 31, 32, 33]
GREEDY = Sampling(temperature=0)


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


def test_an_engine_that_was_shut_down_says_so(make_engine):
    engine = make_engine("llama")
    ref = engine.open(IDS)
    ref = engine.extend(ref, stop=StopSpec(max_new=1), sampling=GREEDY).ref
    engine.shutdown()
    with pytest.raises(EngineError, match="shut down"):
        engine.extend(ref, stop=StopSpec(max_new=1))


def test_a_fingerprint_is_of_the_weights_and_not_of_their_type(make_engine):
    import torch

    model = make_engine("llama").model
    model.to(torch.bfloat16)
    low = fingerprint(model)
    assert fingerprint(model.float()) == low
    model.get_input_embeddings().weight.data.mul_(2)
    assert fingerprint(model) != low
