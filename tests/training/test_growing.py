"""A larger model computes what the smaller one did, and all of it learns; another architecture begins near it."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, LlamaConfig, LlamaForCausalLM

from nr_agent.errors import ConfigurationError
from nr_agent.models.registry import find_model
from nr_agent.tasks import FAMILIES
from nr_agent.training.corpus import IGNORED, Corpus
from nr_agent.training.growing import check_fit, grow
from nr_agent.training.pretrain import Phase, PretrainSettings, build_model, pretrain
from nr_agent.training.telltale import Telltale


@pytest.fixture(scope="module")
def nano():
    folder = find_model("nano")
    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval(), AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def batch(nano):
    return Corpus(nano[1], longest=400).batch(3, 2500, dict.fromkeys(FAMILIES, 1.0))[0]


def loss_of(model, batch):
    with torch.no_grad():
        return model(input_ids=batch.ids, labels=batch.labels.masked_fill(batch.labels == IGNORED, -100)).loss


def test_a_larger_model_computes_the_same_and_its_telltale_neurons_are_the_same(nano, batch):
    small, tokenizer = nano
    large = build_model("mini", tokenizer).eval()
    before = loss_of(large, batch)
    grow(large, small, batch.ids)
    told = []
    with torch.no_grad():
        for model in (small, large):
            telltale = Telltale(model)
            telltale.watch(model)
            told.append((model(input_ids=batch.ids).logits, telltale.logits()))
    (logits, tells), (grown, grown_tells) = told
    known = batch.labels != IGNORED
    assert (logits - grown)[known].abs().max() < 2e-3
    assert (tells - grown_tells)[known].abs().max() < 2e-3
    assert loss_of(large, batch) < before / 10


def test_everything_that_is_new_can_learn(nano, batch):
    small, tokenizer = nano
    large = build_model("mini", tokenizer)
    grow(large, small, batch.ids)
    optimizer = torch.optim.SGD(large.parameters(), 1e-2)
    for _ in range(2):  # what writes nothing yet learns to write first, what it reads then
        optimizer.zero_grad()
        large(input_ids=batch.ids, labels=batch.labels.masked_fill(batch.labels == IGNORED, -100)).loss.backward()
        optimizer.step()
    layers = large.get_decoder().layers
    for weight in (
        large.get_decoder().embed_tokens.weight[:, 256:],
        layers[2].self_attn.o_proj.weight,  # a new layer
        layers[2].mlp.down_proj.weight,
        layers[0].self_attn.o_proj.weight[256:],  # a new dimension
        layers[0].self_attn.o_proj.weight[:, 256:],  # new heads
        layers[0].mlp.down_proj.weight[:, 768:],  # new neurons
    ):
        assert weight.abs().max() > 0
    assert layers[2].self_attn.q_proj.weight.grad.abs().max() > 0
    assert layers[0].mlp.up_proj.weight.grad[768:].abs().max() > 0


def test_a_llama_begins_near_the_qwen_that_it_comes_from(nano, batch):
    small, tokenizer = nano
    llama = build_model("nano-llama", tokenizer).eval()
    fresh = loss_of(llama, batch)
    grow(llama, small, batch.ids)
    begun = loss_of(llama, batch)
    assert begun < fresh / 2

    # Without the scale of each head it is further off.
    for layer, source in zip(llama.get_decoder().layers, small.get_decoder().layers, strict=True):
        layer.self_attn.q_proj.load_state_dict(source.self_attn.q_proj.state_dict())
        layer.self_attn.k_proj.load_state_dict(source.self_attn.k_proj.state_dict())
    assert loss_of(llama, batch) > begun


def test_a_run_grows_from_a_model_and_what_does_not_fit_is_refused(nano, batch, tmp_path):
    small, tokenizer = nano
    settings = PretrainSettings(
        size="mini", start="nano", phases=(Phase(1, 1e-9, warmup=1),), own_at=(), tokens=600, longest=400
    )
    grown = pretrain(tmp_path / "grown", settings, log=lambda _: None)
    assert float(loss_of(grown.eval(), batch)) == pytest.approx(float(loss_of(small, batch)), rel=0.01)
    assert grown.config.num_hidden_layers == 7

    with pytest.raises(ConfigurationError, match="does not fit into this size by its head_dim 32, hidden_size 256"):
        pretrain(tmp_path / "tiny", PretrainSettings(size="tiny", start="nano"), log=lambda _: None)
    assert not (tmp_path / "tiny").exists()
    with pytest.raises(ConfigurationError, match="a gpt2 model does not fit into this size by its model_type gpt2"):
        check_fit(small.config, GPT2Config())
    config = small.config
    common = {name: getattr(config, name) for name in ("hidden_size", "intermediate_size", "num_hidden_layers")}
    heads = {name: getattr(config, name) for name in ("num_attention_heads", "num_key_value_heads", "head_dim")}
    llama = LlamaForCausalLM(
        LlamaConfig(**common, **heads, vocab_size=config.vocab_size, tie_word_embeddings=True, rms_norm_eps=1e-6)
    )
    with pytest.raises(ConfigurationError, match="model_type llama"):
        grow(build_model("nano", tokenizer), llama, batch.ids)


@pytest.mark.parametrize(("size", "own_at"), [("nano", (0, 800)), ("mini", (0, 800)), ("nano-llama", (400, 1000))])
def test_its_own_traces_are_sampled_where_it_thinks(size, own_at):
    """At once by what computes the same as what it starts from; another architecture learns before."""
    assert PretrainSettings(size=size).going_on("nano").own_at == own_at
