"""What every channel added to the logit of the token that was written: direct logit attribution, neurons and heads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nr_agent.engine.protocol import TapLayout
from nr_agent.engine.weights import stored
from nr_agent.neurons.channels import Channel, Place
from nr_agent.neurons.experts import ExpertSite
from nr_agent.neurons.scales import write_scales
from nr_agent.neurons.site import Site
from nr_agent.neurons.sites import find_sites


class AttributionTap:
    """Hooks that gather each channel's push on given tokens, as `NeuronTap` gathers readings.

    `push[t, c] = <x_c(t) W_c, gamma * U[token t]>`, before the norms' division, gamma as in `write_scales`: for a
    neuron its value times its column, for a head its slice times its columns, so that a head has a direction here. No
    table over the vocabulary is made: the tokens are taken back through the projection once a layer.

    Args:
        model: the model.
        channels: to read; the order of the columns.
    """

    def __init__(self, model: Any, channels: Sequence[Channel]) -> None:
        self.layout = TapLayout(tuple(map(str, channels)))
        self._unembedding = stored(model.get_output_embeddings()).float()
        sites = find_sites(model)
        self._scales = write_scales(model, sites, self._unembedding.shape[1])
        self._buffer = torch.zeros(0, len(channels))
        self._aims = torch.zeros(0, 0)
        places: dict[Place, list[tuple[int, Channel]]] = defaultdict(list)
        for column, channel in enumerate(channels):
            places[channel.place].append((column, channel))
        self._handles = [
            site.module.register_forward_pre_hook(self._hook(site, places[site.place]), with_kwargs=True)
            for site in sites
            if site.place in places
        ]

    @torch.inference_mode()
    def aim(self, tokens: Tensor) -> None:
        """Say which token each row of the next pass wrote: `[rows]` or a batch of them, in the pass's order."""
        self._aims = self._unembedding[tokens.reshape(-1).to(self._unembedding.device)]
        self._buffer = torch.zeros(len(self._aims), self._buffer.shape[1])

    def take(self, rows: int) -> Tensor:
        """The pushes of the last pass, `[rows, channels]` float32 on the CPU."""
        return self._buffer[:rows]

    def remove(self) -> None:
        """Take the hooks out of the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, site: Site, members: Sequence[tuple[int, Channel]]) -> Any:
        columns = torch.tensor([column for column, _ in members])
        site.require_whole()
        scale = self._scales[site.place]
        if isinstance(site, ExpertSite):
            return self._experts_hook(site, columns, [channel for _, channel in members], scale)
        index = torch.tensor([channel.index for _, channel in members])

        @torch.inference_mode()
        def gather(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            flat = inputs[0].reshape(-1, inputs[0].shape[-1]).float()
            weight = site.weight().to(flat.device).float()
            pushed = flat * ((self._aims.to(flat.device) * scale.to(flat.device)) @ weight)
            if site.width > 1:
                pushed = pushed.view(len(flat), site.channels, site.width).sum(-1)
            self._buffer[:, columns] = pushed.index_select(1, index.to(flat.device)).cpu()

        return gather

    def _experts_hook(self, site: ExpertSite, columns: Tensor, channels: Sequence[Channel], scale: Tensor) -> Any:
        reader = site.reader(channels)
        index = torch.tensor([site.column(channel) for channel in channels])

        @torch.inference_mode()
        def gather(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            given = (*inputs, *named.values())
            device = given[0].device
            weight = site.weight().to(device).float()[:, index.to(device)]
            aimed = (self._aims.to(device) * scale.to(device)) @ weight
            # What an expert writes counts as much as the router says.
            self._buffer[:, columns] = (reader(given) * site.weights_of(given, channels) * aimed).cpu()

        return gather
