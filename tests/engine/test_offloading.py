"""Models whose weights are elsewhere between two passes: in memory or on the disk, by accelerate's hooks."""

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from tiny_families import FAMILIES, build

from nr_agent.detection.collect import all_channels
from nr_agent.engine.torch_engine import Limits
from nr_agent.engine.weights import stored
from nr_agent.errors import ConfigurationError, ModelError
from nr_agent.models.fingerprint import fingerprint
from nr_agent.models.registry import load_engine
from nr_agent.neurons.channels import Channel
from nr_agent.neurons.tap import ChannelPlan
from nr_agent.neurons.writes import push_table
from nr_agent.testing.engine_suite import EngineConformance

PARTS = {
    "model.embed_tokens": "cpu",
    "model.rotary_emb": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.layers.2": "disk",
    "model.norm": "disk",
    "lm_head": "disk",
}

pytestmark = pytest.mark.filterwarnings("ignore:.*were offloaded.*")


def llama(vocabulary=300, **more):
    return build("llama", vocabulary, **FAMILIES["llama"], **more)


@pytest.fixture(scope="module")
def checkpoint(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    llama(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def engine(checkpoint):
    loaded = load_engine(str(checkpoint))
    yield loaded
    loaded.shutdown()


@pytest.fixture(scope="module")
def cramped(checkpoint, tmp_path_factory):
    """What the suite compares the plain engine with: it keeps the cache of two sequences, and half of its weights."""
    folder = tmp_path_factory.mktemp("offloaded")
    limits = Limits(slots=2, chunk=7)
    loaded = load_engine(str(checkpoint), limits=limits, device_map=PARTS, offload_folder=folder)
    yield loaded
    loaded.shutdown()


class TestOffloaded(EngineConformance):
    def plan(self, engine):
        return ChannelPlan([channel for layer in range(3) for channel in _channels(layer)])

    def plain_readings(self, engine, plan, ids):
        model = llama(engine.runner.vocabulary)
        tap = plan.install(model)
        with torch.inference_mode():
            model(input_ids=torch.tensor([ids]), use_cache=False)
        return tap.take(len(ids)).clone()


def test_the_weights_are_on_the_disk_and_the_model_is_the_same(engine, cramped):
    assert cramped.model.lm_head.weight.is_meta
    assert cramped.model.model.layers[1].mlp.down_proj.weight.is_meta
    assert torch.equal(stored(cramped.model.lm_head), engine.model.lm_head.weight)
    assert cramped.fingerprint == engine.fingerprint


def test_what_channels_push_is_read_off_the_weights_on_the_disk(engine, cramped):
    channels = [Channel("ffn", layer, 5) for layer in range(3)]
    assert torch.equal(push_table(cramped.model, channels), push_table(engine.model, channels))


@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_model_that_is_offloaded_as_a_whole_is_read_as_the_plain_one(where, tied, tmp_path):
    plain, away = llama(tie_word_embeddings=tied), llama(tie_word_embeddings=tied)
    if where == "memory":
        cpu_offload(away, execution_device=torch.device("cpu"))
    else:
        disk_offload(away, str(tmp_path), execution_device=torch.device("cpu"))
    assert away.get_input_embeddings().weight.is_meta
    assert fingerprint(away) == fingerprint(plain)
    ids = torch.tensor([[5, 6, 7, 8]])
    readings = []
    for model in (plain, away):
        tap = ChannelPlan(all_channels(plain)[::3]).install(model)
        with torch.inference_mode():
            model(ids, use_cache=False)
        readings.append(tap.take(4).clone())
    assert torch.equal(*readings)
    assert readings[0].any(0).all()


def test_a_weight_that_is_nowhere_is_missed():
    model = llama()
    model.lm_head.to("meta")
    with pytest.raises(ModelError, match="never loaded"):
        stored(model.lm_head)


@pytest.mark.parametrize(
    ("options", "reason"), [({"device": "cpu", "offload_folder": "x"}, "device"), ({}, "disk")], ids=["both", "folder"]
)
def test_maps_that_cannot_be_followed_are_refused(checkpoint, options, reason):
    with pytest.raises(ConfigurationError, match=reason) as caught:
        load_engine(str(checkpoint), device_map=PARTS, **options)
    assert caught.value.hint


def _channels(layer):
    return [*(Channel("ffn", layer, index) for index in range(0, 96, 5)), Channel("head", layer, 1)]
