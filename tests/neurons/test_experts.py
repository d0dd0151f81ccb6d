"""Neurons of experts: read where they were routed to, whatever kernel multiplies their matrices."""

import pytest
import torch
from accelerate import cpu_offload
from test_sites import build
from transformers.integrations.gguf.utils import GgufExperts

from nr_agent.detection.collect import all_channels
from nr_agent.errors import ChannelError
from nr_agent.neurons.attribution import AttributionTap
from nr_agent.neurons.channels import Channel
from nr_agent.neurons.tap import ChannelPlan
from nr_agent.neurons.writes import push_table, push_toward

SHAPE = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "pad_token_id": 0,
}
MANY = {"num_experts": 4, "intermediate_size": 40, "moe_intermediate_size": 24}
FEW = {"num_local_experts": 4, "intermediate_size": 24}
FAMILIES = {
    "qwen3_moe": SHAPE | MANY | {"head_dim": 16},  # as in the large ones, the heads are wider than the hidden state
    "mixtral": SHAPE | FEW,
    "olmoe": SHAPE | MANY | {"intermediate_size": 24},
    "gpt_oss": SHAPE | FEW | {"head_dim": 16},
}
IDS = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8]])


@pytest.fixture(params=sorted(FAMILIES))
def model(request):
    model = build(request.param, **FAMILIES[request.param])
    for name, parameter in model.named_parameters():  # or else biases are zero, and nothing would miss them
        if name.endswith("_bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def watch(model, layer):
    """What a layer's experts are given and put out at a pass, and the neurons by the model's own eager code."""
    experts = next(m for m in model.model.layers[layer].modules() if hasattr(m, "is_transposed"))
    seen = {}
    handle = experts.register_forward_hook(lambda _, inputs, out: seen.update(inputs=inputs, out=out))
    with torch.no_grad():
        model(IDS, use_cache=False)
    handle.remove()
    given, routed = seen["inputs"][0], seen["inputs"][1]
    neurons = torch.zeros(given.shape[0], 4, 24)
    for token in range(given.shape[0]):
        for expert in routed[token].tolist():
            up = experts.gate_up_proj[expert].T if experts.is_transposed else experts.gate_up_proj[expert]
            bias = experts.gate_up_proj_bias[expert] if experts.has_bias else 0
            neurons[token, expert] = experts._apply_gate(up @ given[token] + bias).detach()
    return experts, seen, neurons


def test_a_neuron_is_what_its_expert_makes_and_0_where_it_was_not_asked(model):
    _, seen, neurons = watch(model, 1)
    channels = [Channel("ffn", 1, index, expert) for expert in (3, 0, 2, 1) for index in (5, 0, 23)]
    tap = ChannelPlan([Channel("head", 0, 1), *channels]).install(model)
    with torch.no_grad():
        model(IDS, use_cache=False)
    read = tap.take(8)[:, 1:]
    expected = torch.stack([neurons[:, channel.expert, channel.index] for channel in channels], 1)
    torch.testing.assert_close(read, expected)
    asked = torch.stack([(seen["inputs"][1] == channel.expert).any(1) for channel in channels], 1)
    assert torch.equal(read != 0, asked)
    assert asked.any() and not asked.all()


@pytest.mark.parametrize("kernel", ["eager", "batched_mm", "grouped_mm"])
def test_kernels_change_no_reading_and_taps_change_no_logit(model, kernel):
    channels = all_channels(model)[::3]
    tap = ChannelPlan(channels).install(model)
    with torch.no_grad():
        model(IDS, use_cache=False)
        expected = tap.take(8).clone()
        tap.remove()
        model.set_experts_implementation(kernel)
        before = model(IDS, use_cache=False).logits
        tap = ChannelPlan(channels).install(model)
        during = model(IDS, use_cache=False).logits
    torch.testing.assert_close(tap.take(8), expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(before, during)
    tap.remove()
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_every_channel_of_every_expert_has_its_own_address(model):
    channels = all_channels(model)
    assert len(channels) == 2 * (4 * 24 + 4)
    assert [Channel.parse(str(channel)) for channel in channels] == channels
    assert str(Channel("ffn", 1, 7, 3)) == "FFN 1:3:7"
    assert sorted(channels[::-1]) == channels[:96] + channels[100:196] + channels[96:100] + channels[196:]


@pytest.mark.parametrize("wrong", [Channel("ffn", 0, 24, 0), Channel("ffn", 0, 0, 4), Channel("ffn", 0, 0)])
def test_a_neuron_or_an_expert_that_is_not_there_is_refused(model, wrong):
    with pytest.raises(ChannelError, match="no channel"):
        ChannelPlan([wrong]).install(model)


def test_what_neurons_write_adds_up_to_what_their_experts_put_out(model):
    experts, seen, _ = watch(model, 1)
    channels = [channel for channel in all_channels(model) if channel.place == ("ffn", 1, True)]
    tap = AttributionTap(model, channels)
    aims = torch.tensor([[9, 8, 7, 6, 5, 4, 3, 2]])
    tap.aim(aims)
    with torch.no_grad():
        model(IDS, use_cache=False)
        pushed = tap.take(8).sum(1)
        tap.remove()
        out = seen["out"]
        if experts.has_bias:  # it is nobody's neuron's
            given = seen["inputs"]
            out = out - (experts.down_proj_bias[given[1]] * given[2][..., None]).sum(1)
        aimed = model.lm_head.weight[aims[0]] * model.model.norm.weight
    torch.testing.assert_close(pushed, (out * aimed).sum(1), atol=1e-5, rtol=1e-4)


def test_a_push_is_read_off_the_expert_s_own_matrix(model):
    channel = Channel("ffn", 1, 9, 2)
    experts, _, _ = watch(model, 1)
    down = experts.down_proj[2].T if experts.is_transposed else experts.down_proj[2]
    with torch.no_grad():
        expected = model.lm_head(down[:, 9] * model.model.norm.weight)
    torch.testing.assert_close(push_table(model, [channel])[0], expected)
    torch.testing.assert_close(push_toward(model, [channel], 5)[0], expected[5] - expected.mean(), atol=1e-6, rtol=1e-4)


def test_experts_that_compute_something_else_are_refused(model):
    experts, _, _ = watch(model, 1)
    original = experts.forward
    experts.forward = lambda *given: 1.1 * original(*given)
    with pytest.raises(ChannelError, match="layer 1 cannot be read"):
        ChannelPlan([Channel("head", 0, 0)]).install(model)


def test_packed_experts_are_refused():
    model = build("qwen3_moe", **FAMILIES["qwen3_moe"])
    mlp = model.model.layers[1].mlp
    mlp.experts = GgufExperts(4, 32, 24, 2, 2, mlp.experts.act_fn)
    mlp.forward = lambda hidden: hidden  # their kernels need a device
    with pytest.raises(ChannelError, match="packed") as caught:
        ChannelPlan([Channel("head", 0, 0)]).install(model)
    assert caught.value.hint


def test_offloaded_experts_are_read_as_those_that_stay(model):
    channels = all_channels(model)[::3]
    tap = ChannelPlan(channels).install(model)
    with torch.no_grad():
        model(IDS, use_cache=False)
    expected = tap.take(8)
    tap.remove()
    cpu_offload(model, execution_device=torch.device("cpu"))
    tap = ChannelPlan(channels).install(model)
    with torch.no_grad():
        model(IDS, use_cache=False)
    assert torch.equal(tap.take(8), expected)


def test_experts_and_the_one_that_all_tokens_share_are_told_apart():
    model = build("qwen2_moe", **SHAPE, **MANY, shared_expert_intermediate_size=20)
    assert len(all_channels(model)) == 2 * (20 + 4 * 24 + 4)
    seen = {}
    model.model.layers[1].mlp.shared_expert.down_proj.register_forward_pre_hook(
        lambda _, given: seen.update(x=given[0])
    )
    tap = ChannelPlan([Channel("ffn", 1, 7, 2), Channel("ffn", 1, 7)]).install(model)
    _, _, neurons = watch(model, 1)
    read = tap.take(8)
    torch.testing.assert_close(read[:, 0], neurons[:, 2, 7])
    torch.testing.assert_close(read[:, 1], seen["x"].reshape(8, -1)[:, 7])
    table = push_table(model, [Channel("ffn", 1, 7, 2), Channel("ffn", 1, 7)])
    assert not torch.equal(*table)
