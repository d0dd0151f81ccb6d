"""The tap: hooks that gather chosen channels into one buffer, and the proof that they read what they say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nr_agent.engine.protocol import TapLayout
from nr_agent.engine.weights import input_device
from nr_agent.errors import ChannelError
from nr_agent.neurons.channels import Channel
from nr_agent.neurons.sites import Site, find_sites


class ChannelPlan:
    """Which channels to read, in which order.

    Args:
        channels: at least one; no channel twice.
    """

    def __init__(self, channels: Sequence[Channel]) -> None:
        if not channels or len(set(channels)) != len(channels):
            raise ChannelError("a plan needs channels, each of them once")
        self.channels = tuple(channels)

    def install(self, model: Any) -> NeuronTap:
        """Put the hooks in and check them with numbers (see `self_check`)."""
        sites = find_sites(model)
        self_check(model, sites)
        return NeuronTap(sites, self.channels, input_device(model))


class NeuronTap:
    """Hooks on the sites of a model; each writes its columns of one buffer, nothing leaves the device.

    A neuron reads as its value; a head as the Euclidean norm of its slice.

    Args:
        sites: of `find_sites`.
        channels: to read; the order of the buffer's columns.
        device: where the buffer is.

    Raises:
        ChannelError: the model has no such channel.
    """

    def __init__(self, sites: Sequence[Site], channels: Sequence[Channel], device: torch.device) -> None:
        self.layout = TapLayout(tuple(str(channel) for channel in channels))
        self._buffer = torch.zeros(0, len(channels), device=device)
        self._handles = []
        by_place = {(site.kind, site.layer): site for site in sites}
        grouped: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
        for column, channel in enumerate(channels):
            site = by_place.get((channel.kind, channel.layer))
            if site is None or channel.index >= site.channels:
                raise ChannelError(f"the model has no channel {channel}", hint="fit the detector for this model")
            grouped[channel.kind, channel.layer].append((column, channel.index))
        for place, members in grouped.items():
            site = by_place[place]  # type: ignore[index]
            columns = torch.tensor([column for column, _ in members], device=device)
            index = torch.tensor([index for _, index in members], device=device)
            self._handles.append(site.module.register_forward_pre_hook(self._hook(site, columns, index)))

    def take(self, rows: int) -> Tensor:
        """The readings of the last forward pass, `[rows, channels]` float32; a view, valid until the next pass."""
        return self._buffer[:rows]

    def remove(self) -> None:
        """Take the hooks out of the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, site: Site, columns: Tensor, index: Tensor) -> Any:
        # The buffer is made where the engine computes, in inference mode; it must take values from elsewhere too.
        @torch.inference_mode()
        def gather(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            nonlocal index
            flat = inputs[0].reshape(-1, inputs[0].shape[-1])
            index = index.to(flat.device)  # layers can be on several devices; the buffer is on one
            if self._buffer.shape[0] < flat.shape[0]:
                self._buffer = self._buffer.new_zeros(flat.shape[0], self._buffer.shape[1])
            if site.width == 1:
                values = flat.index_select(1, index)
            else:
                values = flat.view(-1, site.channels, site.width).index_select(1, index).float().norm(dim=-1)
            self._buffer[: flat.shape[0], columns] = values.float().to(self._buffer.device, non_blocking=True)

        return gather


@torch.no_grad()
def self_check(model: Any, sites: Sequence[Site], *, tolerance: float = 2e-2) -> None:
    """Prove that a site's input is what its channels are.

    A bump of an input column must move the output by the weight's column, and the logits with it. A replaced
    kernel, a fused module or a dead layer fails this.

    Args:
        model: the model that the sites are of.
        sites: to check; one column each.
        tolerance: largest allowed error, relative to the column's norm.

    Raises:
        ChannelError: a site failed.
    """
    probe = torch.tensor([[1, 2, 3]], device=input_device(model)) % model.config.get_text_config().vocab_size
    plain, outputs = _observe(model, probe, sites, None)
    for number, site in enumerate(sites):
        column = (7 * site.layer + 3) % (site.channels * site.width)
        bumped, moved = _observe(model, probe, sites, (number, column))
        weight = site.weight()[:, column].float().to(moved[number].device)
        error = (moved[number] - outputs[number] - weight).norm(dim=-1).max()
        changed = not torch.equal(plain, bumped) or not weight.any()
        if not changed or float(error) > tolerance * max(1.0, float(weight.norm())):
            raise ChannelError(
                f"the {site.kind} channels of layer {site.layer} cannot be read: a bump of column {column} moved the "
                f"output by something else than its weight (off by {float(error):.3g})",
                hint="load the model without fused kernels, or run it without a detector",
            )


def _observe(
    model: Any, probe: Tensor, sites: Sequence[Site], bump: tuple[int, int] | None
) -> tuple[Tensor, list[Tensor]]:
    """Logits and the sites' outputs of a short pass, with 1 added to one input column of one site."""
    outputs: dict[int, Tensor] = {}
    handles = []
    for number, site in enumerate(sites):
        if bump is not None and bump[0] == number:
            handles.append(site.module.register_forward_pre_hook(_bumper(bump[1])))
        handles.append(
            site.module.register_forward_hook(lambda _m, _i, out, number=number: outputs.update({number: out.float()}))
        )
    try:
        logits = model(input_ids=probe, use_cache=False).logits.float()
    finally:
        for handle in handles:
            handle.remove()
    missing = [site for number, site in enumerate(sites) if number not in outputs]
    if missing:
        raise ChannelError(f"the {missing[0].kind} projection of layer {missing[0].layer} is not called")
    return logits, [outputs[number] for number in range(len(sites))]


def _bumper(column: int) -> Any:
    def bump(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        changed = inputs[0].clone()
        changed[..., column] += 1
        return (changed, *inputs[1:])

    return bump
