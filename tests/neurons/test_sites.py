"""Channels are found where they are, and a tap that would read something else is refused."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from nr_agent.errors import ChannelError
from nr_agent.models.registry import load_engine
from nr_agent.neurons.channels import Channel
from nr_agent.neurons.scales import norm_scale, write_scales
from nr_agent.neurons.sites import find_sites
from nr_agent.neurons.tap import ChannelPlan, self_check
from nr_agent.neurons.writes import push_table

_SHAPE = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_GATED = _SHAPE | {"intermediate_size": 80, "num_key_value_heads": 2, "pad_token_id": 0}


def build(family, **shape):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape)).eval()


@pytest.mark.parametrize(
    ("family", "shape", "down", "out"),
    [
        ("llama", _GATED, "mlp.down_proj", "self_attn.o_proj"),
        ("qwen3", _GATED | {"head_dim": 8}, "mlp.down_proj", "self_attn.o_proj"),
        ("qwen3", _GATED | {"head_dim": 16}, "mlp.down_proj", "self_attn.o_proj"),
        ("gemma2", _GATED | {"head_dim": 16}, "mlp.down_proj", "self_attn.o_proj"),
        ("phi3", _GATED, "mlp.down_proj", "self_attn.o_proj"),
        ("phi", _SHAPE | {"intermediate_size": 80}, "mlp.fc2", "self_attn.dense"),
        ("gpt2", {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4}, "mlp.c_proj", "attn.c_proj"),
        ("gpt_neox", _SHAPE | {"intermediate_size": 80}, "mlp.dense_4h_to_h", "attention.dense"),
        ("opt", _SHAPE | {"ffn_dim": 80, "word_embed_proj_dim": 32}, "fc2", "self_attn.out_proj"),
        ("starcoder2", _GATED, "mlp.c_proj", "self_attn.o_proj"),
    ],
)
def test_projections_are_found_by_shape_and_use(family, shape, down, out):
    model = build(family, **shape)
    names = {id(module): name for name, module in model.named_modules()}
    found = [(site.kind, names[id(site.module)].split(".", 2)[-1]) for site in find_sites(model)]
    assert len(found) == 4
    assert all(name.endswith(down) for kind, name in found if kind == "ffn")
    assert all(name.endswith(out) for kind, name in found if kind == "head")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_model_in_half_precision_is_read(dtype):
    """Its outputs are loud, and a bump of 1 is less than what they are rounded by."""
    engine = load_engine("nano", dtype=dtype, device="cpu")
    engine.shutdown()  # its model is all that is wanted
    model = engine.model
    sites = find_sites(model)
    self_check(model, sites)
    down = sites[2].module
    down.forward = lambda given: torch.nn.functional.linear(given.roll(1, -1), down.weight)
    with pytest.raises(ChannelError, match=f"layer {sites[2].layer} cannot be read"):
        self_check(model, sites)


def test_a_layer_that_bypasses_its_projection_is_refused():
    model = build("llama", **_GATED)
    mlp = model.model.layers[1].mlp

    def fused(x):
        inner = mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x)
        mlp.down_proj(inner * 0)  # called, but what it gives is thrown away
        return torch.nn.functional.linear(inner, mlp.down_proj.weight)

    mlp.forward = fused
    with pytest.raises(ChannelError, match="layer 1 cannot be read"):
        ChannelPlan([Channel("ffn", 1, 0)]).install(model)


def test_hooks_change_nothing_and_leave_nothing_behind():
    model, ids = build("llama", **_GATED), torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        before = model(ids).logits
        tap = ChannelPlan([Channel("ffn", 0, 5), Channel("head", 1, 2)]).install(model)
        during = model(ids).logits
        tap.remove()
        after = model(ids).logits
    assert torch.equal(before, during)
    assert torch.equal(before, after)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_neuron_reads_as_the_product_of_gate_and_value_and_a_head_as_a_norm():
    model, ids = build("llama", **_GATED), torch.tensor([[1, 2, 3, 4]])
    seen = {}
    layer = model.model.layers[0]
    layer.mlp.register_forward_pre_hook(lambda _, inputs: seen.update(x=inputs[0]))
    layer.self_attn.o_proj.register_forward_pre_hook(lambda _, inputs: seen.update(heads=inputs[0]))
    tap = ChannelPlan([Channel("head", 0, 3), Channel("ffn", 0, 17)]).install(model)
    with torch.no_grad():
        model(ids)
        product = layer.mlp.act_fn(layer.mlp.gate_proj(seen["x"])) * layer.mlp.up_proj(seen["x"])
    read = tap.take(4)
    torch.testing.assert_close(read[:, 1], product[0, :, 17])
    torch.testing.assert_close(read[:, 0], seen["heads"][0, :, 24:32].norm(dim=-1))
    tap.remove()


@pytest.mark.parametrize("address", ["FFN 7:1031", "head 9:4"])
def test_addresses_can_be_said_and_read(address):
    assert str(Channel.parse(address)) == address


@pytest.mark.parametrize("wrong", ["ffn 1:2", "FFN 1", "head -1:0", ""])
def test_what_is_no_address_is_refused(wrong):
    with pytest.raises(ChannelError, match="LAYER"):
        Channel.parse(wrong)


@pytest.mark.parametrize("channel", [Channel("ffn", 0, 80), Channel("head", 0, 4), Channel("ffn", 2, 0)])
def test_a_channel_that_the_model_lacks_is_refused(channel):
    with pytest.raises(ChannelError, match="no channel"):
        ChannelPlan([channel]).install(build("llama", **_GATED))


def test_a_push_is_what_a_channel_adds_to_the_logits():
    """Without the norm's division: adding one unit of a neuron's direction moves the logits by its row."""
    model = build("llama", **_GATED)
    channel = Channel("ffn", 1, 9)
    row = push_table(model, [channel, Channel("head", 0, 0)])
    direction = model.model.layers[1].mlp.down_proj.weight[:, 9]
    with torch.no_grad():
        expected = model.lm_head(direction * model.model.norm.weight)
    torch.testing.assert_close(row[0], expected)
    assert not row[1].any()


_OPT = _SHAPE | {"ffn_dim": 80, "word_embed_proj_dim": 32}
_GPT2 = {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4}


@pytest.mark.parametrize(
    ("family", "shape", "last", "added"),
    [
        ("llama", _GATED, "model.norm", 0),
        ("gemma", _GATED | {"head_dim": 16}, "model.norm", 1),  # it multiplies with one more than its weight
        ("gemma2", _GATED | {"head_dim": 16}, "model.norm", 1),
        ("gpt2", _GPT2, "transformer.ln_f", 0),
        ("opt", _OPT, "model.decoder.final_layer_norm", 0),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_last_norm_scales_as_it_does_whatever_it_calls_its_weight(family, shape, last, added, dtype):
    model = build(family, **shape)
    norm = model.get_submodule(last)
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model = model.to(dtype)
    expected = norm.weight.detach().float() + added
    off = 1e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(norm_scale(norm, 32, model.device), expected, rtol=off, atol=off)
    sites = find_sites(model)
    scales = write_scales(model, sites, 32)
    assert scales.keys() == {site.place for site in sites}
    if family != "gemma2":  # which has others in between
        for scale in scales.values():
            torch.testing.assert_close(scale, expected, rtol=off, atol=off)


def test_without_a_last_norm_nothing_is_scaled():
    model = build("opt", **_OPT, do_layer_norm_before=False)
    assert {tuple(scale.tolist()) for scale in write_scales(model, find_sites(model), 32).values()} == {(1.0,) * 32}


@pytest.mark.parametrize(
    ("family", "norms", "added"),
    [
        ("gemma2", ("post_feedforward_layernorm", "post_attention_layernorm"), 1),
        ("gemma3_text", ("post_feedforward_layernorm", "post_attention_layernorm"), 1),
        ("olmo2", ("post_feedforward_layernorm", "post_attention_layernorm"), 0),
        ("glm4", ("post_mlp_layernorm", "post_self_attn_layernorm"), 0),
        ("exaone4", ("post_feedforward_layernorm", "post_attention_layernorm"), 0),
        ("llama", (None, None), 0),  # its post_attention_layernorm stands before the neurons
    ],
)
def test_a_norm_between_a_site_and_the_residual_stream_scales_what_it_writes(family, norms, added):
    model = build(family, **_GATED, head_dim=8)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    table = push_table(model, [Channel("ffn", 1, 9)])
    scales = write_scales(model, find_sites(model), 32)
    layer = model.model.layers[1]
    final = model.model.norm.weight.detach() + added
    for kind, norm in zip(("ffn", "head"), norms, strict=True):
        own = 1 if norm is None else layer.get_submodule(norm).weight.detach() + added
        torch.testing.assert_close(scales[kind, 1, False], final * own, rtol=1e-5, atol=1e-5)
    direction = scales["ffn", 1, False] * layer.mlp.down_proj.weight[:, 9].detach()
    torch.testing.assert_close(table[0], model.lm_head.weight.detach() @ direction)
