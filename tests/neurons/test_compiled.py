"""Taps come before `torch.compile`: then they are part of what is compiled."""

import pytest
import torch
from test_sites import _GATED, build

from nr_agent.neurons.channels import Channel
from nr_agent.neurons.tap import ChannelPlan

CHANNELS = [Channel("head", 1, 3), *(Channel("ffn", layer, index) for layer in range(2) for index in (0, 17, 79))]
TEXTS = [torch.tensor([[1, 2, 3, 4]]), torch.tensor([[9, 8, 7, 6, 5, 4, 3]]), torch.tensor([[5, 6], [7, 8], [1, 2]])]


@pytest.fixture(autouse=True)
def no_graphs_of_others():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_model_that_is_compiled_behind_its_tap_is_read_as_the_plain_one(backend):
    model, plain = build("llama", **_GATED), build("llama", **_GATED)
    tap, expected = ChannelPlan(CHANNELS).install(model), ChannelPlan(CHANNELS).install(plain)
    compiled = torch.compile(model, backend=backend)
    for ids in TEXTS:
        with torch.inference_mode():
            logits, same = compiled(ids, use_cache=False).logits, plain(ids, use_cache=False).logits
        torch.testing.assert_close(logits, same)
        assert expected.take(ids.numel()).any(0).all()
        torch.testing.assert_close(tap.take(ids.numel()), expected.take(ids.numel()))
