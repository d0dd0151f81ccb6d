"""What every channel added to the logit of the token that was written: direct logit attribution, neurons and heads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nr_agent.engine.protocol import TapLayout
from nr_agent.engine.weights import stored
from nr_agent.neurons.channels import Channel
from nr_agent.neurons.sites import Site, find_sites
from nr_agent.neurons.writes import final_scale


class AttributionTap:
    """Hooks that gather each channel's push on given tokens, as `NeuronTap` gathers readings.

    `push[t, c] = <x_c(t) W_c, gamma * U[token t]>`, before the final norm's division: for a neuron its value times
    its column, for a head its slice times its columns, so that a head has a direction here. No table over the
    vocabulary is made: the tokens are taken back through the projection once a layer.

    Args:
        model: the model.
        channels: to read; the order of the columns.
    """

    def __init__(self, model: Any, channels: Sequence[Channel]) -> None:
        self.layout = TapLayout(tuple(map(str, channels)))
        self._unembedding = stored(model.get_output_embeddings()).float()
        self._gamma = final_scale(model, self._unembedding.shape[1]).to(self._unembedding.device)
        self._buffer = torch.zeros(0, len(channels))
        self._aims = torch.zeros(0, 0)
        places: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
        for column, channel in enumerate(channels):
            places[channel.kind, channel.layer].append((column, channel.index))
        self._handles = [
            site.module.register_forward_pre_hook(self._hook(site, places[site.kind, site.layer]))
            for site in find_sites(model)
            if (site.kind, site.layer) in places
        ]

    @torch.inference_mode()
    def aim(self, tokens: Tensor) -> None:
        """Say which token each row of the next pass wrote: `[rows]` or a batch of them, in the pass's order."""
        self._aims = self._unembedding[tokens.reshape(-1).to(self._unembedding.device)] * self._gamma
        self._buffer = torch.zeros(len(self._aims), self._buffer.shape[1])

    def take(self, rows: int) -> Tensor:
        """The pushes of the last pass, `[rows, channels]` float32 on the CPU."""
        return self._buffer[:rows]

    def remove(self) -> None:
        """Take the hooks out of the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, site: Site, members: Sequence[tuple[int, int]]) -> Any:
        columns = torch.tensor([column for column, _ in members])
        index = torch.tensor([index for _, index in members])

        @torch.inference_mode()
        def gather(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            flat = inputs[0].reshape(-1, inputs[0].shape[-1]).float()
            weight = site.weight().to(flat.device).float()
            pushed = flat * (self._aims.to(flat.device) @ weight)
            if site.width > 1:
                pushed = pushed.view(len(flat), site.channels, site.width).sum(-1)
            self._buffer[:, columns] = pushed.index_select(1, index.to(flat.device)).cpu()

        return gather
