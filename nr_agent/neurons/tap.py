"""The tap: hooks that gather chosen channels, and the proof that they read what they say."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nr_agent.engine.protocol import TapLayout
from nr_agent.engine.weights import Share, input_device, share_of
from nr_agent.errors import ChannelError
from nr_agent.neurons.channels import Channel, Place
from nr_agent.neurons.experts import ExpertSite
from nr_agent.neurons.held import Held, can_be_watched, lasts
from nr_agent.neurons.site import Reader, Site
from nr_agent.neurons.sites import find_sites


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
        return NeuronTap(sites, self.channels, input_device(model), lasting=lasting(model, sites))


class NeuronTap:
    """Reads chosen channels of a model at every pass; nothing leaves the device.

    Plain sites are watched, and read together behind the pass (`Held`). Others have hooks that read within it: experts,
    shares of a projection, modules whose weights come and go, those whose input is written into behind them.

    A neuron reads as its value; a head as the Euclidean norm of its slice. Where a model is spread over several
    processes, each reads what it holds, and `take` puts it together: all of them must call it after a pass.

    Args:
        sites: of `find_sites`.
        channels: to read; the order of the columns.
        device: where the readings are put together.
        lasting: places whose input stays what it was until the pass is over.

    Raises:
        ChannelError: the model has no such channel.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        channels: Sequence[Channel],
        device: torch.device,
        *,
        lasting: Collection[Place] = (),
    ) -> None:
        self.layout = TapLayout(tuple(str(channel) for channel in channels))
        by_place = {site.place: site for site in sites}
        grouped: dict[Place, list[int]] = defaultdict(list)
        for column, channel in enumerate(channels):
            site = by_place.get(channel.place)
            if site is None or not site.has(channel):
                raise ChannelError(f"the model has no channel {channel}", hint="fit the detector for this model")
            grouped[channel.place].append(column)
        held: dict[int, list[Place]] = defaultdict(list)
        hooked: list[Place] = []
        for place in grouped:
            site = by_place[place]
            if place in lasting and _plain(site, device):
                held[site.width].append(place)
            else:
                hooked.append(place)
        order = [*(place for places in held.values() for place in places), *hooked]
        wanted = {place: [channels[i] for i in grouped[place]] for place in order}
        columns = torch.tensor([i for place in order for i in grouped[place]])
        self._order = columns.argsort().to(device)
        shares = {place: _share(by_place[place]) for place in hooked}
        shared = [i for place in hooked if shares[place] for i in grouped[place]]
        self._shared = torch.tensor(shared, device=device, dtype=torch.long)
        self._group = next((share.group for share in shares.values() if share is not None), None)
        self._held = [
            Held([by_place[place] for place in places], [wanted[place] for place in places], device)
            for places in held.values()
        ]
        # Hooks replace what they kept, they write into no tensor that outlives a pass: so they can be compiled.
        self._kept: list[Tensor] = [torch.zeros(0, len(wanted[place]), device=device) for place in hooked]
        self._handles = [
            by_place[place].module.register_forward_pre_hook(
                self._hook(number, by_place[place].reader(wanted[place])), with_kwargs=True
            )
            for number, place in enumerate(hooked)
        ]

    @torch.no_grad()
    def take(self, rows: int) -> Tensor:
        """The readings of the last forward pass, `[rows, channels]` float32."""
        kept = [held.take(rows) for held in self._held]
        kept += [values.to(self._order.device, non_blocking=True)[:rows] for values in self._kept]
        readings = torch.cat(kept, 1).index_select(1, self._order)
        if self._group is not None:
            gathered = readings[:, self._shared]  # here, what others hold is 0
            dist.all_reduce(gathered, group=self._group)
            readings[:, self._shared] = gathered
        return readings

    def remove(self) -> None:
        """Leave the model as it was."""
        for held in self._held:
            held.remove()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, number: int, reader: Reader) -> Any:
        def keep(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            # Runs at every site of every pass: a guard that is not needed would cost as much as the reading.
            if torch.is_grad_enabled():
                with torch.no_grad():
                    self._kept[number] = reader((*inputs, *named.values()))
            else:
                self._kept[number] = reader((*inputs, *named.values()))

        return keep


def _share(site: Site) -> Share | None:
    return None if isinstance(site, ExpertSite) else share_of(site.module)


def _plain(site: Site, device: torch.device) -> bool:
    """Whether the site is whole, in one place, and nothing comes between it and what it is given."""
    here = all(parameter.device == device for parameter in site.module.parameters())
    return not isinstance(site, ExpertSite) and _share(site) is None and here and can_be_watched(site.module)


def lasting(model: Any, sites: Sequence[Site]) -> set[Place]:
    """The places whose input stays what it was until a pass is over."""
    plain = [site for site in sites if not isinstance(site, ExpertSite)]
    kept = lasts([site.module for site in plain], lambda: model(input_ids=_probe(model), use_cache=False))
    return {site.place for site, stays in zip(plain, kept, strict=True) if stays}


def _probe(model: Any) -> Tensor:
    vocabulary = int(model.config.get_text_config().vocab_size)
    return torch.tensor([[1, 2, 3]], device=input_device(model)) % vocabulary


@torch.no_grad()
def self_check(model: Any, sites: Sequence[Site], *, tolerance: float = 2e-2) -> None:
    """Prove that a site's input is what its channels are.

    A bump of an input column must move the output by the weight's column, and the logits with it. Experts must put
    out what all neurons of those that were asked make together. A replaced kernel, a fused module or a dead layer
    fails this.

    Args:
        model: the model that the sites are of.
        sites: to check; one column each.
        tolerance: largest allowed error, relative to the column's norm, or the output's.

    Raises:
        ChannelError: a site failed.
    """
    probe = _probe(model)
    plain, outputs, given = _observe(model, probe, sites, None)
    for number, site in enumerate(sites):
        column = (7 * site.layer + 3) % (site.channels * site.width)
        whole = site.weight()  # in any case: processes that share it put it together at once
        height = 1.0 if isinstance(site, ExpertSite) else _height(outputs[number], whole[:, column])
        bumped, moved, _ = _observe(model, probe, sites, (number, column, height))
        changed = not torch.equal(plain, bumped) or not whole.any()
        if isinstance(site, ExpertSite):
            expected = site.expected(given[number])
            off = float((outputs[number] - expected).norm(dim=-1).max() / expected.norm(dim=-1).max().clamp(min=1e-9))
            told = "the experts put out something else than their neurons make"
        else:
            weight = whole[:, column].float().to(moved[number].device)
            unexplained = (moved[number] - outputs[number]) / height - weight
            off = float(unexplained.norm(dim=-1).max() / weight.norm().clamp(min=1))
            told = f"a bump of column {column} moved the output by something else than its weight"
        if not changed or not off <= tolerance:  # what is no number proves nothing
            raise ChannelError(
                f"the {site.kind} channels of layer {site.layer} cannot be read: {told} (off by {off:.3g})",
                hint="load the model without fused kernels, or run it without a detector",
            )


def _observe(
    model: Any, probe: Tensor, sites: Sequence[Site], bump: tuple[int, int, float] | None
) -> tuple[Tensor, list[Tensor], list[tuple[Any, ...]]]:
    """Logits of a short pass and the sites' outputs and inputs, with a bump of some height on a column of one site.

    The column is of the input; where experts share a module, 1 is added to their whole output.
    """
    outputs: dict[int, Tensor] = {}
    given: dict[int, tuple[Any, ...]] = {}

    def look(number: int) -> Any:
        def keep(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], out: Tensor) -> None:
            given[number], outputs[number] = (*inputs, *named.values()), out.float()

        return keep

    handles = []
    for number, site in enumerate(sites):
        bumped = bump is not None and bump[0] == number
        if bump is not None and bumped and not isinstance(site, ExpertSite):
            handles.append(site.module.register_forward_pre_hook(_bumper(site, *bump[1:])))
        handles.append(site.module.register_forward_hook(look(number), with_kwargs=True))
        if bumped and isinstance(site, ExpertSite):
            handles.append(site.module.register_forward_hook(lambda _m, _i, out: out + 1))
    try:
        logits = model(input_ids=probe, use_cache=False).logits.float()
    finally:
        for handle in handles:
            handle.remove()
    missing = [site for number, site in enumerate(sites) if number not in outputs]
    if missing:
        raise ChannelError(f"the {missing[0].kind} projection of layer {missing[0].layer} is not called")
    return logits, [outputs[number] for number in range(len(sites))], [given[number] for number in range(len(sites))]


def _height(output: Tensor, weight: Tensor) -> float:
    """How high a bump must be to stand out of what the output is rounded by; a power of 2, which rounds nothing."""
    rounded = torch.finfo(weight.dtype).eps if weight.is_floating_point() else 0.0
    loud = float(output.norm(dim=-1).max()) / max(1.0, float(weight.float().norm()))
    return 2.0 ** math.ceil(math.log2(max(1.0, 1024 * rounded * loud)))


def _bumper(site: Site, column: int, height: float) -> Any:
    share = share_of(site.module)

    def bump(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        changed, own = inputs[0].clone(), column
        if share is not None and changed.shape[-1] != site.channels * site.width:
            if not share.first <= column < share.last:
                return inputs
            own -= share.first
        changed[..., own] += height
        return (changed, *inputs[1:])

    return bump
