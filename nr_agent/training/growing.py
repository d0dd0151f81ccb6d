"""Give a model the weights of a smaller one, or of one of another architecture, so that it begins where that one ended.

What is larger computes the same as what it grew from (Net2Net, arXiv 1511.05641): new dimensions of the residual
stream hold nothing, new heads and neurons read but write nothing yet, new layers add nothing. What writes learns from
the first step on, what is read for it from the second. Llama has no norms of queries and keys: there each head's
projection is scaled by what its norm did on average, which is near, not the same.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from nr_agent.errors import ConfigurationError
from nr_agent.training.telltale import LAYERS

_READS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
_WRITES = ("self_attn.o_proj", "mlp.down_proj")
_NORMS = ("input_layernorm", "post_attention_layernorm")


@torch.no_grad()
def grow(model: PreTrainedModel, other: PreTrainedModel, ids: Tensor) -> None:
    """Overwrite the fresh weights of a model by those of another that fits into it.

    Args:
        model: a Qwen3 or Llama with fresh weights, and embeddings that are tied.
        other: one of the same kind, or a Qwen3 for a Llama, no larger in any dimension.
        ids: `[rows, tokens]`, text of the kind that it knows: what its norms of queries and keys do is measured on it.

    Raises:
        ConfigurationError: the other one does not fit into it.
    """
    check_fit(model.config, other.config)
    normed = hasattr(other.get_decoder().layers[0].self_attn, "q_norm")
    keep_norms = hasattr(model.get_decoder().layers[0].self_attn, "q_norm")
    scales = _head_scales(other, ids) if normed and not keep_norms else None
    # The mean square is taken over the new dimensions too, which hold nothing: what is normed would come out larger.
    narrower = math.sqrt(other.config.hidden_size / model.config.hidden_size)
    inner, outer = model.get_decoder(), other.get_decoder()
    _place(inner.embed_tokens.weight, outer.embed_tokens.weight, 0.0)
    _place_norm(inner.norm.weight, outer.norm.weight, narrower)
    places = _places(len(inner.layers), len(outer.layers))
    for number, layer in enumerate(inner.layers):
        if number not in places:
            for name in _WRITES:
                layer.get_submodule(name).weight.zero_()
            continue
        source = outer.layers[places.index(number)]
        for name in _NORMS:
            _place_norm(layer.get_submodule(name).weight, source.get_submodule(name).weight, narrower)
        for name in _READS:
            _place(layer.get_submodule(name).weight, source.get_submodule(name).weight)
        for name in _WRITES:
            _place(layer.get_submodule(name).weight, source.get_submodule(name).weight, 0.0)
        for part in ("q", "k"):
            if keep_norms:
                norm = getattr(layer.self_attn, f"{part}_norm")
                norm.weight.copy_(getattr(source.self_attn, f"{part}_norm").weight)
            elif scales is not None:
                rows = scales[places.index(number)][part]
                getattr(layer.self_attn, f"{part}_proj").weight[: len(rows)] *= rows[:, None]


def check_fit(wanted: Any, found: Any) -> None:
    """Refuse what `grow` could not do, by the two models' configurations.

    Raises:
        ConfigurationError: a model with the second does not fit into one with the first.
    """
    alike = ("head_dim", "vocab_size", "hidden_act", "rms_norm_eps", "tie_word_embeddings")
    upward = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    if found.model_type not in {wanted.model_type, "qwen3"}:
        problems = ["model_type"]  # another architecture need not have the other settings at all
    else:
        problems = [name for name in alike if getattr(wanted, name) != getattr(found, name)]
        problems += [name for name in upward if getattr(wanted, name) < getattr(found, name)]
        if len({one.num_attention_heads // one.num_key_value_heads for one in (wanted, found)}) > 1:
            problems.append("query heads a key head")
    if problems:
        differing = ", ".join(f"{name} {getattr(found, name, '')}".strip() for name in problems)
        raise ConfigurationError(
            f"a {found.model_type} model does not fit into this size by its {differing}",
            hint="begin with a model that is no larger in any dimension, and a Qwen3 or of the same architecture",
        )


def _places(layers: int, known: int) -> list[int]:
    """Where the known layers come to stand among more: new ones between the first, telltale ones stay the last."""
    body = max(1, known - LAYERS)
    extra = layers - known
    return [number + min(extra, number * extra // body) for number in range(known)]


def _place(target: Tensor, source: Tensor, rest: float | None = None) -> None:
    """Put a matrix into the first rows and columns of another, whose others become `rest` or stay as they are."""
    if rest is not None:
        target.fill_(rest)
    target[: source.shape[0], : source.shape[1]] = source


def _place_norm(target: Tensor, source: Tensor, narrower: float) -> None:
    target.fill_(float(source.mean()) * narrower)
    target[: len(source)] = source * narrower


def _head_scales(model: PreTrainedModel, ids: Tensor) -> list[dict[str, Tensor]]:
    """What the norms of queries and keys do on average, a layer: a factor for each row of the projections."""
    scales: list[dict[str, Tensor]] = [{} for _ in model.get_decoder().layers]
    handles = []
    for number, layer in enumerate(model.get_decoder().layers):
        for part in ("q", "k"):
            norm = getattr(layer.self_attn, f"{part}_norm")

            def keep(module: Any, inputs: tuple[Tensor, ...], *, number: int = number, part: str = part) -> None:
                """`[rows, tokens, heads, head_dim]` comes in."""
                usual = inputs[0].float().pow(2).mean(-1).add(module.variance_epsilon).rsqrt().mean((0, 1))
                scales[number][part] = (usual[:, None] * module.weight.float()).flatten()

            handles.append(norm.register_forward_pre_hook(keep))
    try:
        model(input_ids=ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return scales
