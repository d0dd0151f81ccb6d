"""Taking channels out of a model: their values are replaced by their means, and everything else goes on as it is."""

from __future__ import annotations

import contextlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nr_agent.engine.weights import input_device
from nr_agent.errors import ChannelError
from nr_agent.neurons.channels import Channel, Place
from nr_agent.neurons.experts import ExpertSite
from nr_agent.neurons.site import Site
from nr_agent.neurons.sites import find_sites


@torch.inference_mode()
def site_means(model: Any, sequences: Sequence[tuple[Sequence[int], int, int]]) -> dict[Place, Tensor]:
    """Mean input of every site over parts of some sequences.

    Args:
        model: the model.
        sequences: token ids, and the positions from and up to which they count.

    Returns:
        `{site: [columns]}` float32 on the CPU: for a head the mean of its slice, not of its norm.
    """
    sums: dict[Place, Tensor] = {}
    span, count = slice(0, 0), 0

    def adder(site: Site) -> Any:
        def add(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            given: Tensor = inputs[0]
            tokens = given if given.ndim == 2 else given[0]  # some models give theirs to a layer without the rows
            total = tokens[span].double().sum(0).cpu()
            sums[site.place] = sums[site.place] + total if site.place in sums else total

        return add

    handles = [site.module.register_forward_pre_hook(adder(site)) for site in _dense_sites(model)]
    try:
        for ids, begin, end in sequences:
            span = slice(begin, end)
            count += end - begin
            given = torch.tensor([list(ids)], device=input_device(model))
            model(input_ids=given, use_cache=False, logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
    return {place: (total / max(1, count)).float() for place, total in sums.items()}


@contextlib.contextmanager
def mean_ablated(model: Any, channels: Sequence[Channel], means: Mapping[Place, Tensor]) -> Iterator[None]:
    """The model without some channels: wherever they would be read, their mean stands instead.

    Args:
        model: the model; its hooks are taken out at the end.
        channels: to take out.
        means: of `site_means`.

    Raises:
        ChannelError: the model has no such channel, or it is a neuron of one of several experts.
    """
    sites = {site.place: site for site in _dense_sites(model)}
    places: dict[Place, list[int]] = defaultdict(list)
    for channel in channels:
        if channel.expert is not None:
            raise ChannelError(f"{channel} is a neuron of one of several experts: it cannot be taken out yet")
        site = sites.get(channel.place)
        if site is None or not site.has(channel):
            raise ChannelError(f"the model has no channel {channel}", hint="use a detector of this model")
        first = channel.index * site.width
        places[channel.place] += range(first, first + site.width)
    handles = [
        sites[place].module.register_forward_pre_hook(_replacer(torch.tensor(columns), means[place][columns]))
        for place, columns in places.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def matched_random(model: Any, channels: Sequence[Channel], seed: int) -> list[Channel]:
    """As many random channels of the same kinds in the same layers, none of them among the given ones.

    Raises:
        ChannelError: a layer has not that many others.
    """
    rng, taken = random.Random(seed), set(channels)
    wanted = Counter(channel.place for channel in channels)
    drawn: list[Channel] = []
    for site in _dense_sites(model):
        many = wanted[site.place]
        pool = [channel for channel in site.all() if channel not in taken]
        if many > len(pool):
            raise ChannelError(
                f"layer {site.layer} has {len(pool)} other {site.kind} channels, {many} are needed",
                hint="take fewer channels out",
            )
        drawn += rng.sample(pool, many)
    return drawn


def _dense_sites(model: Any) -> list[Site]:
    """The sites whose channels are columns of a projection's input."""
    sites = [site for site in find_sites(model) if not isinstance(site, ExpertSite)]
    for site in sites:
        site.require_whole()
    return sites


def _replacer(columns: Tensor, values: Tensor) -> Any:
    def replace(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        changed = inputs[0].clone()
        changed[..., columns.to(changed.device)] = values.to(changed.device, changed.dtype)
        return (changed, *inputs[1:])

    return replace
