"""A bounded cache: results stay what they are, memory stays below the bound, and only time is lost."""

import pytest
from plain_pass import TorchConformance
from tiny_families import FAMILIES, build

from nr_agent.detection.collect import all_channels
from nr_agent.engine.protocol import ExtendRequest, Sampling, StopSpec
from nr_agent.engine.torch_engine import Limits, TorchEngine
from nr_agent.errors import ConfigurationError, ContextLengthError
from nr_agent.neurons.tap import ChannelPlan

TOKEN = 3 * 2 * 2 * 16 * 4
"""Bytes of a token in the cache of the tiny qwen3: layers, keys and values, heads, width, float32."""

WARM = Sampling(temperature=1.0)
PATIENCE = 60


@pytest.fixture(scope="module")
def engine(make_engine):
    return make_engine("qwen3")


@pytest.fixture(scope="module")
def cramped(make_engine):
    """Room for three short sequences or one long one, much less than the suite uses at once."""
    return make_engine("qwen3", memory=400 * TOKEN, chunk=7)


@pytest.fixture
def peak(cramped):
    """The most bytes that the cache held after a pass."""
    seen = [0]
    hook = cramped.model.register_forward_hook(lambda *_: seen.append(max(seen[-1], cramped.runner.cache.nbytes)))
    yield seen
    hook.remove()


class TestUnderABound(TorchConformance):
    def plan(self, engine):
        return ChannelPlan(all_channels(engine.model)[::5])


def test_steps_that_outgrow_the_room_together_give_way_and_come_to_the_same(engine, cramped, peak):
    """Eight rows that begin side by side, each of which needs most of the room in the end."""
    prompts = [[30 + number, 31, 32, 33] for number in range(8)]

    def think(which):
        refs = [which.open(ids, seed=number) for number, ids in enumerate(prompts)]
        futures = [which.submit(ExtendRequest(ref, StopSpec(max_new=200), WARM)) for ref in refs]
        written = [future.result(PATIENCE).ids for future in futures]
        for ref in refs:
            which.close(ref)
        return written

    assert think(cramped) == think(engine)
    assert 0 < peak[-1] <= 400 * TOKEN


def test_room_that_a_long_sequence_took_serves_short_ones_again(engine, cramped, peak):
    long = cramped.extend(cramped.open([30] * 200, seed=1), stop=StopSpec(max_new=100), sampling=WARM).ref
    assert cramped.runner.cache.capacity > 200
    short = [cramped.open([40 + number], seed=number) for number in range(4)]
    futures = [cramped.submit(ExtendRequest(ref, StopSpec(max_new=20), WARM)) for ref in short]
    fresh = [engine.extend(engine.open([40 + n], seed=n), stop=StopSpec(max_new=20), sampling=WARM) for n in range(4)]
    assert [future.result(PATIENCE).ids for future in futures] == [segment.ids for segment in fresh]
    assert cramped.runner.cache.capacity == 64
    goes_on = cramped.extend(long, stop=StopSpec(max_new=10), sampling=WARM).ids
    whole = engine.extend(engine.open([30] * 200, seed=1), stop=StopSpec(max_new=110), sampling=WARM).ids
    assert goes_on == whole[100:]
    assert peak[-1] <= 400 * TOKEN


def test_a_sequence_that_no_eviction_makes_room_for_is_refused_as_too_long(cramped):
    assert cramped.capabilities.context == 400
    with pytest.raises(ContextLengthError, match="400"):
        cramped.open([30] * 400)
    segment = cramped.extend(cramped.open([30] * 390), stop=StopSpec(max_new=50), sampling=WARM)
    assert (len(segment.ids), segment.end) == (10, "context")


def test_memory_that_holds_next_to_nothing_is_refused(tokenizer):
    model = build("qwen3", len(tokenizer), **FAMILIES["qwen3"])
    with pytest.raises(ConfigurationError, match="hold 3 tokens") as caught:
        TorchEngine(model, tokenizer, name="qwen3", fingerprint="0", limits=Limits(memory=3 * TOKEN))
    assert caught.value.hint
