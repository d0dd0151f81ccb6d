"""What a channel writes: its output direction, read through the unembedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nr_agent.engine.weights import input_device, stored
from nr_agent.neurons.channels import Channel
from nr_agent.neurons.scales import write_scales
from nr_agent.neurons.sites import find_sites

SHOWN = 4
"""Tokens that are named where it is said what a channel writes toward."""


@torch.no_grad()
def push_table(model: Any, channels: Sequence[Channel]) -> Tensor:
    """How much one unit of each channel pushes each token, before the norms' division.

    `push[c, v] = <W_down[:, c], gamma * U[v]>`: direct logit attribution (the frozen-norm form of Elhage et al.
    2021; NEAT, arXiv 2602.02010, uses its logarithm), with gamma as in `write_scales`. A head's reading is a norm
    without a direction: its row is 0.

    Returns:
        `[channels, vocabulary]` float32.
    """
    unembedding = stored(model.get_output_embeddings()).float()
    places = {site.place: site for site in find_sites(model)}
    scales = write_scales(model, list(places.values()), unembedding.shape[1])
    # In the order of the channels: processes that share a model put its weights together at once.
    neurons = dict.fromkeys(channel.place for channel in channels if channel.kind == "ffn")
    weights = {place: places[place].weight() for place in neurons}
    table = torch.zeros(len(channels), unembedding.shape[0], device=unembedding.device)
    for row, channel in enumerate(channels):
        if channel.kind == "ffn":
            direction = weights[channel.place][:, places[channel.place].column(channel)].float()
            table[row] = unembedding @ (scales[channel.place] * direction.cpu()).to(unembedding.device)
    return table.cpu()


@torch.no_grad()
def push_toward(model: Any, channels: Sequence[Channel], token: int) -> Tensor:
    """How much one unit of each FFN neuron pushes one token more than the mean of all tokens; as in `push_table`.

    Returns:
        `[channels]` float32.
    """
    unembedding = stored(model.get_output_embeddings()).float()
    aim = (unembedding[token] - unembedding.mean(0)).cpu()
    sites = {site.place: site for site in find_sites(model)}
    scales = write_scales(model, list(sites.values()), len(aim))
    shown = dict.fromkeys(channel.place for channel in channels)
    pushes = {}
    for place in shown:
        weight = sites[place].weight().float()
        pushes[place] = (scales[place] * aim).to(weight.device) @ weight
    return torch.stack([pushes[one.place][sites[one.place].column(one)] for one in channels]).cpu()


@torch.no_grad()
def head_pushes(model: Any, places: Sequence[tuple[Channel, int]], ids: Sequence[int]) -> Tensor:
    """What heads pushed at given positions: there a head has a direction, its slice of the projection's input.

    Args:
        model: the model.
        places: heads, and the position each is looked at.
        ids: the tokens of the sequence.

    Returns:
        `[places, vocabulary]` float32, before the norms' division.
    """
    unembedding = stored(model.get_output_embeddings()).float()
    sites = {site.layer: site for site in find_sites(model) if site.kind == "head"}
    scales = write_scales(model, list(sites.values()), unembedding.shape[1])
    for site in sites.values():
        site.require_whole()
    inputs: dict[int, Tensor] = {}
    handles = [
        sites[layer].module.register_forward_pre_hook(lambda _, given, layer=layer: inputs.update({layer: given[0][0]}))
        for layer in {channel.layer for channel, _ in places}
    ]
    try:
        if places:
            model(input_ids=torch.tensor([list(ids)], device=input_device(model)), use_cache=False, logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
    table = torch.zeros(len(places), unembedding.shape[0])
    for row, (channel, position) in enumerate(places):
        site = sites[channel.layer]
        columns = slice(channel.index * site.width, (channel.index + 1) * site.width)
        given = inputs[channel.layer][position, columns].float()
        written = site.weight()[:, columns].float().to(given.device) @ given
        table[row] = (unembedding @ (scales[site.place] * written.cpu()).to(unembedding.device)).cpu()
    return table


def strongest(push: Tensor, decode: Callable[[Sequence[int]], str], *, shown: int = SHOWN) -> list[str]:
    """The tokens that are pushed up most, as text.

    Args:
        push: `[vocabulary]`.
        decode: ids to text.
        shown: how many; fewer where fewer are pushed up.
    """
    top = push.topk(min(shown, len(push)))
    return [
        decode([token]) for token, value in zip(top.indices.tolist(), top.values.tolist(), strict=True) if value > 0
    ]
