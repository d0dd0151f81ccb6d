"""What a channel writes: its output direction, read through the unembedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nr_agent.neurons.channels import Channel
from nr_agent.neurons.sites import find_sites


@torch.no_grad()
def push_table(model: Any, channels: Sequence[Channel]) -> Tensor:
    """How much one unit of each channel pushes each token, before the final norm's division.

    `push[c, v] = <W_down[:, c], gamma * U[v]>`: direct logit attribution (the frozen-norm form of Elhage et al.
    2021; NEAT, arXiv 2602.02010, uses its logarithm). A head's reading is a norm without a direction: its row is 0.

    Returns:
        `[channels, vocabulary]` float32.
    """
    unembedding = model.get_output_embeddings().weight.float()
    scaled = unembedding * _final_scale(model, unembedding.shape[1]).to(unembedding.device)
    places = {(site.kind, site.layer): site for site in find_sites(model)}
    table = torch.zeros(len(channels), unembedding.shape[0], device=unembedding.device)
    for row, channel in enumerate(channels):
        if channel.kind == "ffn":
            direction = places[channel.kind, channel.layer].weight()[:, channel.index].float()
            table[row] = scaled @ direction
    return table.cpu()


def _final_scale(model: Any, width: int) -> Tensor:
    """The weight of the last norm of the decoder, ones where it has none."""
    last: Tensor | None = None
    for module in model.base_model.children():
        weight = getattr(module, "weight", None)
        if not isinstance(module, nn.Embedding | nn.ModuleList) and isinstance(weight, Tensor):
            last = weight if weight.shape == (width,) else last
    return torch.ones(width) if last is None else last.float()
