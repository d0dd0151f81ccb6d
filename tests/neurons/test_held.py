"""Sites that are watched and read behind the pass: the same readings, and a model that is left as it was."""

import pytest
import torch
from test_sites import _GATED, build

from nr_agent.neurons.channels import Channel
from nr_agent.neurons.held import Held, lasts, watch
from nr_agent.neurons.sites import find_sites
from nr_agent.neurons.tap import ChannelPlan, NeuronTap

CHANNELS = [Channel("head", 1, 3), *(Channel("ffn", layer, index) for layer in range(2) for index in (79, 0, 17))]
IDS = torch.tensor([[1, 2, 3, 4, 5]])


@pytest.fixture
def model():
    return build("llama", **_GATED)


def read(model, tap, ids=IDS):
    with torch.inference_mode():
        model(input_ids=ids, use_cache=False)
        return tap.take(ids.numel()).clone()


def by_hooks(model):
    """The tap as it is where nothing lasts: each site is read within the pass."""
    return NeuronTap(find_sites(model), CHANNELS, torch.device("cpu"))


@pytest.mark.parametrize("joined", [0, 1 << 17])
def test_what_is_read_behind_the_pass_is_what_is_read_within_it(model, monkeypatch, joined):
    monkeypatch.setattr("nr_agent.neurons.held._JOINED", joined)
    hooked = by_hooks(model)
    within = read(model, hooked)
    hooked.remove()
    tap = ChannelPlan(CHANNELS).install(model)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert within.abs().min() > 0
    assert torch.equal(read(model, tap), within)


def test_an_input_that_is_written_into_behind_its_site_is_read_before(model):
    mlp = model.model.layers[1].mlp

    def reusing(hidden):
        inner = mlp.act_fn(mlp.gate_proj(hidden)) * mlp.up_proj(hidden)
        out = mlp.down_proj(inner)
        inner.zero_()
        return out

    expected = read(model, ChannelPlan(CHANNELS).install(model))
    mlp.forward = reusing
    assert lasts([mlp.down_proj, model.model.layers[0].mlp.down_proj], lambda: model(input_ids=IDS)) == [False, True]
    assert torch.equal(read(model, ChannelPlan(CHANNELS).install(model)), expected)


def test_a_long_intake_is_read_at_once_and_let_go(model, monkeypatch):
    short, long = IDS, torch.arange(12)[None] % 7
    whole = read(model, by_hooks(model), long)
    monkeypatch.setattr("nr_agent.neurons.held._LARGE", 5 * 80)
    site = next(site for site in find_sites(model) if site.kind == "ffn")
    held = Held([site], [[Channel("ffn", 0, 79), Channel("ffn", 0, 0)]], torch.device("cpu"))
    tap = ChannelPlan(CHANNELS).install(model)
    assert torch.equal(read(model, tap, long), whole)
    assert held._inputs == [None]
    assert held._read[0].shape == (12, 2)
    assert torch.allclose(read(model, tap, short), read(model, by_hooks(model), short))
    assert held._inputs[0].shape[-1] == 80


def test_watchers_leave_in_any_order_and_the_module_is_as_before(model):
    projection = model.model.layers[0].mlp.down_proj
    calls = []
    removers = [watch(projection, lambda given, name=name: calls.append((name, given.shape[-1]))) for name in "ab"]
    model(input_ids=IDS)
    removers[0]()
    model(input_ids=IDS)
    assert calls == [("a", 80), ("b", 80), ("b", 80)]
    removers[1]()
    assert "forward" not in vars(projection)


def test_a_tap_that_is_taken_out_leaves_no_trace(model):
    before = [set(vars(module)) for module in model.modules()]
    ChannelPlan(CHANNELS).install(model).remove()
    assert [set(vars(module)) for module in model.modules()] == before
    assert not any(module._forward_pre_hooks for module in model.modules())
