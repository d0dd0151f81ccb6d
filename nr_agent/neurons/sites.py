"""Where the channels of a model are: its down projections and output projections, found by shape and by use.

The neuron is the *input of the down projection*, never the output of `act_fn` (which is the gate alone in most
models). A head is its slice of the output projection's input.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from nr_agent.engine.weights import input_device
from nr_agent.errors import ChannelError
from nr_agent.neurons.experts import find_experts
from nr_agent.neurons.site import Site


def find_sites(model: Any) -> list[Site]:
    """All sites of a decoder, layer by layer, FFN before heads.

    The layer's linear modules are called once, in order. The FFN's down projection is the one that maps another
    width back to the hidden one; the attention's output projection is the last one, before or after the FFN,
    that maps all heads to the hidden width. A mixture of experts is found by its stacked matrices; of one whose form
    is unknown only the heads are known.

    Raises:
        ChannelError: a layer has no such projection, or several; or experts that cannot be read.
    """
    config = model.config.get_text_config()
    hidden, heads = int(config.hidden_size), int(config.num_attention_heads)
    head_width = int(getattr(config, "head_dim", None) or hidden // heads)
    sites: list[Site] = []
    stack = decoder_layers(model)
    for layer, modules in enumerate(_calls_by_layer(model, int(config.num_hidden_layers))):
        ffn = [m for m in modules if _shape(m)[1] == hidden and _is_ffn_input(m, modules, hidden, heads * head_width)]
        attention = [m for m in modules if m not in ffn and _shape(m) == (heads * head_width, hidden)]
        sparse = not ffn and _has_experts(stack[layer])
        if (len(ffn) != 1 and not sparse) or not attention:
            raise ChannelError(
                f"layer {layer} of {config.model_type}: {len(ffn)} down projections and "
                f"{len(attention)} output projections were found",
                hint="this architecture is not supported; run it without a detector",
            )
        sites += [Site("ffn", layer, module, _shape(module)[0], 1) for module in ffn]
        sites += find_experts(layer, stack[layer])
        sites.append(Site("head", layer, attention[-1], heads, head_width))
    return sites


def decoder_layers(model: Any) -> nn.ModuleList:
    """The list of decoder layers.

    Raises:
        ChannelError: the model has no list of that length.
    """
    wanted = int(model.config.get_text_config().num_hidden_layers)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == wanted:
            return module
    raise ChannelError("the model has no list of decoder layers", hint="run it without a detector")


def _has_experts(layer: nn.Module) -> bool:
    """Whether a layer holds stacked expert matrices, `[experts, in, out]` or `[experts, out, in]`."""
    return any(parameter.ndim == 3 for parameter in layer.parameters())


def _shape(module: nn.Module) -> tuple[int, int]:
    """Input and output width of a linear module."""
    weight = module.weight
    assert isinstance(weight, Tensor)  # noqa: S101 - linear layers have one
    rows, columns = weight.shape
    return (rows, columns) if isinstance(module, Conv1D) else (columns, rows)


def _is_ffn_input(module: nn.Module, modules: list[nn.Module], hidden: int, attention_width: int) -> bool:
    width = _shape(module)[0]
    if width == hidden:
        return False
    # Where the heads together are wider than the hidden state, the output projection looks like a down projection:
    # only the FFN's width is also what another module of the layer puts out, alone or as gate and value.
    made = {_shape(other)[1] for other in modules if other is not module and _shape(other)[0] == hidden}
    if width == attention_width:
        # An FFN as wide as all heads is beside an output projection of its shape; of experts there is only that one.
        alike = [other for other in modules if _shape(other) == (width, hidden)]
        return len(alike) > 1 and alike[-1] is module
    return width in made or 2 * width in made


@torch.no_grad()
def _calls_by_layer(model: Any, layers: int) -> list[list[nn.Module]]:
    """The linear modules of each decoder layer in the order in which they are called."""
    stack = decoder_layers(model)
    calls: list[list[nn.Module]] = [[] for _ in range(layers)]
    handles = []
    for layer, block in enumerate(stack):
        for module in block.modules():
            if isinstance(module, nn.Linear | Conv1D):
                seen = calls[layer]
                handles.append(module.register_forward_pre_hook(lambda m, _, seen=seen: seen.append(m)))
    try:
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=input_device(model)), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return calls
