"""A channel that is taken out says what it says on average, and nothing else changes."""

from collections import Counter

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from nr_agent.errors import ChannelError
from nr_agent.neurons.ablate import matched_random, mean_ablated, site_means
from nr_agent.neurons.channels import Channel
from nr_agent.neurons.sites import find_sites

SHAPE = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
IDS = torch.tensor([[4, 9, 2, 33, 17]])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", **SHAPE, intermediate_size=80, num_key_value_heads=2, pad_token_id=0)
    return AutoModelForCausalLM.from_config(config).eval()


def inputs_of(model, kind, layer):
    """What a site is given, in the pass that follows."""
    site = next(one for one in find_sites(model) if (one.kind, one.layer) == (kind, layer))
    seen = {}
    # Behind the hooks that are there already: what the projection really gets.
    handle = site.module.register_forward_hook(lambda _m, given, _o: seen.update(x=given[0][0]))
    with torch.no_grad():
        logits = model(IDS).logits
    handle.remove()
    return seen["x"], logits


def test_means_are_over_the_part_that_counts(model):
    plain, _ = inputs_of(model, "ffn", 1)
    means = site_means(model, [(IDS[0].tolist(), 1, 4), (IDS[0].tolist(), 1, 4)])
    torch.testing.assert_close(means["ffn", 1, False], plain[1:4].mean(0), atol=1e-6, rtol=1e-4)
    assert set(means) == {(kind, layer, False) for kind in ("ffn", "head") for layer in (0, 1)}


def test_only_the_channels_change_and_only_while_they_are_out(model):
    means = site_means(model, [(IDS[0].tolist(), 0, 5)])
    neuron, head = Channel("ffn", 1, 7), Channel("head", 1, 2)
    plain, before = inputs_of(model, "ffn", 1)
    with mean_ablated(model, [neuron, head], means):
        given, during = inputs_of(model, "ffn", 1)
        heads, _ = inputs_of(model, "head", 1)
    # The head feeds the neurons behind it, so these are compared where the head stays.
    torch.testing.assert_close(given[:, 7], means["ffn", 1, False][7].expand(5))
    torch.testing.assert_close(heads[:, 16:24], means["head", 1, False][16:24].expand(5, 8))
    with mean_ablated(model, [neuron], means):
        alone, _ = inputs_of(model, "ffn", 1)
    others = [i for i in range(80) if i != 7]
    torch.testing.assert_close(alone[:, others], plain[:, others])
    _, after = inputs_of(model, "ffn", 1)
    assert not torch.equal(before, during)
    assert torch.equal(before, after)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_random_channels_match_in_kind_layer_and_number_and_are_others(model):
    channels = [Channel("ffn", 0, i) for i in range(9)] + [Channel("ffn", 1, 3), Channel("head", 1, 0)]
    drawn = matched_random(model, channels, seed=1)
    assert Counter((c.kind, c.layer) for c in drawn) == Counter((c.kind, c.layer) for c in channels)
    assert not set(drawn) & set(channels)
    assert len(set(drawn)) == len(drawn)
    assert drawn == matched_random(model, channels, seed=1) != matched_random(model, channels, seed=2)


def test_what_the_model_has_not_is_refused(model):
    means = site_means(model, [(IDS[0].tolist(), 0, 5)])
    with pytest.raises(ChannelError, match="no channel FFN 0:80"), mean_ablated(model, [Channel("ffn", 0, 80)], means):
        pass
    expert = Channel("ffn", 0, 3, 1)
    with pytest.raises(ChannelError, match="one of several experts"), mean_ablated(model, [expert], means):
        pass
    with pytest.raises(ChannelError, match="1 other head channels, 3 are needed"):
        matched_random(model, [Channel("head", 0, i) for i in range(3)], seed=0)
