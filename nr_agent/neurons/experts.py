"""The channels of a mixture of experts: neurons whose matrices are stacked, and which no projection is called for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nr_agent.engine.weights import stored
from nr_agent.errors import ChannelError
from nr_agent.neurons.channels import Channel, Place
from nr_agent.neurons.site import Reader, Site


@dataclass(frozen=True)
class ExpertSite(Site):
    """The experts of a layer.

    A neuron is the input of its expert's down projection. It is computed from what the experts are given, with the
    experts' own rows and their own gate: whatever kernel multiplies the stacked matrices, nothing of it is replaced.
    At a token that was not routed to its expert a neuron is 0.

    Attributes:
        channels: neurons of one expert.
        experts: how many experts there are.
    """

    experts: int = 0

    @property
    def place(self) -> Place:
        """What tells it from the model's other sites."""
        return self.kind, self.layer, True

    def all(self) -> list[Channel]:
        """Its channels, expert by expert."""
        return [
            Channel(self.kind, self.layer, neuron, expert)
            for expert in range(self.experts)
            for neuron in range(self.channels)
        ]

    def has(self, channel: Channel) -> bool:
        """Whether one of its own place is one of its channels."""
        return channel.index < self.channels and channel.expert is not None and channel.expert < self.experts

    def column(self, channel: Channel) -> int:
        """A neuron's column of the weight."""
        return (channel.expert or 0) * self.channels + channel.index

    def weight(self) -> Tensor:
        """The down projections side by side, `[out, experts * neurons]`."""
        down = stored(self.module, "down_proj")
        if self._transposed:
            return down.reshape(self.experts * self.channels, -1).T
        return down.permute(1, 0, 2).reshape(down.shape[1], -1)

    def reader(self, channels: Sequence[Channel]) -> Reader:
        """Reads some of its channels."""
        experts = torch.tensor([channel.expert or 0 for channel in channels])
        neurons = torch.tensor([channel.index for channel in channels])
        # Before the experts are called, offloaded matrices are still away.
        away = getattr(self.module, self._up).is_meta
        held = self._rows(experts, neurons) if away else None

        def read(inputs: Sequence[Any]) -> Tensor:
            nonlocal experts, neurons, held
            given, routed = inputs[0], inputs[1]
            if experts.device != given.device:
                experts, neurons = experts.to(given.device), neurons.to(given.device)
                held = None if held is None else (held[0].to(given.device), held[1].to(given.device))
            rows, bias = self._rows(experts, neurons) if held is None else held
            made = given @ rows.T + bias
            module: Any = self.module
            values: Tensor = module._apply_gate(made) if module.has_gate else module.act_fn(made)
            asked = torch.zeros(len(given), self.experts, dtype=torch.bool, device=given.device).scatter(
                1, routed, True
            )
            return values.where(asked[:, experts], 0).float()

        return read

    def weights_of(self, inputs: Sequence[Any], channels: Sequence[Channel]) -> Tensor:
        """How much each channel's expert counts at each token, `[tokens, channels]`; 0 where it was not asked."""
        routed, weights = inputs[1], inputs[2]
        experts = torch.tensor([channel.expert or 0 for channel in channels], device=routed.device)
        counted = torch.zeros(len(routed), self.experts, device=routed.device).scatter_add(1, routed, weights.float())
        return counted[:, experts]

    def expected(self, inputs: Sequence[Any]) -> Tensor:
        """What the module must put out if its neurons are what is read, `[tokens, out]` float32."""
        total = torch.zeros_like(inputs[0], dtype=torch.float32)
        down = stored(self.module, "down_proj")
        bias = stored(self.module, "down_proj_bias") if self.module.has_bias else None
        for expert in inputs[1].unique().tolist():
            own = [Channel(self.kind, self.layer, neuron, expert) for neuron in range(self.channels)]
            matrix = down[expert].to(total.device, torch.float32)
            made = self.reader(own)(inputs) @ (matrix if self._transposed else matrix.T)
            total += self.weights_of(inputs, own[:1]) * (made if bias is None else made + bias[expert].to(made.device))
        return total

    @property
    def _up(self) -> str:
        return "gate_up_proj" if self.module.has_gate else "up_proj"

    @property
    def _transposed(self) -> bool:
        return bool(self.module.is_transposed)

    def _rows(self, experts: Tensor, neurons: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of the first projection that make some neurons, in the order of the gate, and their bias."""
        if not self.module.has_gate:
            columns = neurons
        elif self.module.is_concatenated:
            columns, experts = torch.cat([neurons, neurons + self.channels]), torch.cat([experts, experts])
        else:
            columns = torch.stack([2 * neurons, 2 * neurons + 1], 1).flatten()
            experts = experts.repeat_interleave(2)
        up = stored(self.module, self._up)
        rows = up[experts.to(up.device), :, columns.to(up.device)] if self._transposed else up[experts, columns]
        if not self.module.has_bias:
            return rows, rows.new_zeros(())
        return rows, stored(self.module, f"{self._up}_bias")[experts, columns]


def find_experts(layer: int, block: nn.Module) -> list[ExpertSite]:
    """The experts of a decoder layer whose neurons can be read; none where it has none, or of a form that is unknown.

    Raises:
        ChannelError: their matrices are packed, or spread over processes.
    """
    sites = []
    for module in block.modules():
        down = getattr(module, "down_proj", None)
        if not isinstance(down, nn.Parameter) or down.ndim != 3:
            continue
        if not down.dtype.is_floating_point or down.itemsize < 2:
            raise ChannelError(
                f"the experts of layer {layer} are packed ({down.dtype}), and their neurons cannot be told apart",
                hint="load the model without quantised experts, or run it without a detector",
            )
        if type(down.data).__name__ == "DTensor" or getattr(module, "_is_expert_parallel", False):
            raise ChannelError(
                f"the experts of layer {layer} are spread over processes",
                hint="load the model in one process, or run it without a detector",
            )
        if not hasattr(module, "is_transposed") or getattr(module, "has_post_expert_norm", False):
            continue
        experts, first, second = down.shape
        sites.append(ExpertSite("ffn", layer, module, first if module.is_transposed else second, 1, experts))
    return sites
