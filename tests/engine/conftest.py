"""Tiny random checkpoints of several architectures, with one byte-level tokenizer for all."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from nr_agent.engine.torch_engine import Limits, TorchEngine
from nr_agent.models.fingerprint import fingerprint
from nr_agent.training.tokenizer import train_tokenizer

_SHAPE = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 512}
_GATED = _SHAPE | {"intermediate_size": 96, "num_key_value_heads": 2}
FAMILIES = {
    "llama": _GATED,
    "qwen2": _GATED,
    "qwen3": _GATED | {"head_dim": 16},
    "mistral": _GATED | {"sliding_window": 24},
    "gemma2": _GATED | {"head_dim": 12, "sliding_window": 24},
    "phi3": _GATED | {"pad_token_id": 0},
    "gpt2": {"n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 512},
    "gpt_neox": _SHAPE | {"intermediate_size": 96},
    "opt": _SHAPE | {"ffn_dim": 96, "word_embed_proj_dim": 48},
    "olmo2": _GATED,
    "granite": _GATED,
    "starcoder2": _GATED,
}


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(samples=50, max_length=512)


@pytest.fixture(scope="session")
def make_engine(tokenizer):
    """Makes an engine of a family; the weights are the same for the same family."""
    made = []

    def make(family="qwen3", **limits):
        torch.manual_seed(7)
        config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **FAMILIES[family])
        config.bos_token_id = None
        config.eos_token_id = tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id
        model = AutoModelForCausalLM.from_config(config).float()
        for parameter in model.parameters():  # random weights write more varied text when they are larger
            if parameter.ndim == 2:
                parameter.data.mul_(3)
        engine = TorchEngine(
            model, tokenizer, name=family, fingerprint=fingerprint(model), limits=Limits(**limits) if limits else None
        )
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.shutdown()


@pytest.fixture(scope="session", params=FAMILIES)
def engine(request, make_engine):
    return make_engine(request.param)


@pytest.fixture(scope="session")
def qwen(make_engine):
    return make_engine("qwen3")
