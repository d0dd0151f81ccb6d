"""Tiny random checkpoints of many architectures."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM

WINDOW = 24
"""Sliding windows are shorter than every prompt."""

_SHAPE = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 512}
_GATED = _SHAPE | {"intermediate_size": 96, "num_key_value_heads": 2}
_SLIDING = _GATED | {"sliding_window": WINDOW}
_OLD = {"n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 512}
_SPARSE = _GATED | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
_FEW = {"num_local_experts": 4, "num_experts_per_tok": 2}

DENSE = {
    "llama": _GATED,
    "qwen2": _GATED,
    "qwen2-mixed": _SLIDING | {"use_sliding_window": True, "max_window_layers": 1},
    "qwen3": _GATED | {"head_dim": 16},
    "mistral": _SLIDING,
    "gemma": _GATED | {"head_dim": 12},
    "gemma2": _SLIDING | {"head_dim": 12},
    "gemma3_text": _SLIDING | {"head_dim": 12},
    "phi": _SHAPE | {"intermediate_size": 96},
    "phi3": _GATED,
    "phi3-sliding": _SLIDING,
    "gpt2": _OLD,
    "gpt_bigcode": _OLD,
    "gpt_neox": _SHAPE | {"intermediate_size": 96},
    "gptj": _OLD | {"rotary_dim": 8},
    "codegen": _OLD | {"rotary_dim": 8},
    "opt": _SHAPE | {"ffn_dim": 96, "word_embed_proj_dim": 48},
    "olmo2": _GATED,
    "olmo3": _SLIDING,
    "granite": _GATED,
    "cohere": _GATED,
    "cohere2": _SLIDING,
    "starcoder2": _SLIDING,
    "falcon": _SHAPE | {"alibi": False, "bias": False},
    "falcon-new": _SHAPE | {"alibi": False, "new_decoder_architecture": True, "num_kv_heads": 2},
    "stablelm": _GATED | {"partial_rotary_factor": 0.5},
    "smollm3": _GATED,
    "glm4": _GATED | {"head_dim": 12},
    "exaone4": _SLIDING,
    "nemotron": _GATED,
}
EXPERTS = {
    "gpt_oss": _SLIDING | _FEW | {"head_dim": 12},
    "mixtral": _SLIDING | _FEW,
    "qwen3_moe": _SPARSE,
    "olmoe": _SPARSE,
    "qwen2_moe": _SPARSE | {"shared_expert_intermediate_size": 64},
    "glm4_moe": _GATED
    | {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40, "first_k_dense_replace": 1}
    | {"n_group": 1, "topk_group": 1},
}
FAMILIES = DENSE | EXPERTS
REFUSED = {
    "mamba": ({"hidden_size": 48, "num_hidden_layers": 2, "state_size": 8}, "linear_attention"),
    "lfm2": (_GATED | {"layer_types": ["conv", "full_attention", "conv"]}, "conv"),
    "qwen3_next": (_GATED | {"layer_types": ["linear_attention", "full_attention", "linear_attention"]}, "linear"),
    "gpt_neo": (
        {"hidden_size": 48, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
        "local",
    ),
    "bloom": ({"hidden_size": 48, "n_layer": 2, "n_head": 4}, "positions"),
    "mpt": ({"d_model": 48, "n_heads": 4, "n_layers": 2}, "positions"),
    "falcon": (_SHAPE | {"alibi": True}, "ragged rows"),
}
"""Families that cannot be run, with a word of the reason."""


def build(family, vocabulary, **more):
    """A random model, always with the same weights; what follows a dash in a family's name tells variants apart."""
    torch.manual_seed(7)
    tokens = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    config = AutoConfig.for_model(family.split("-")[0], vocab_size=vocabulary, **tokens | more)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    for parameter in model.parameters():  # random weights write more varied text when they are larger
        if parameter.ndim >= 2:
            parameter.data.mul_(3)
    return model
