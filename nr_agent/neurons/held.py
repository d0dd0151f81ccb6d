"""Sites that are read behind a pass and not within it.

A hook that reads costs its call, and an operation on little data, at every site of every pass. Where the input of a
site is small it is enough to hold on to it: behind the pass, the channels of all sites are taken out of their inputs by
one operation. The input is seen in place of the module's `forward`, since a module with a hook is called by a slower
way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nr_agent.neurons.channels import Channel
from nr_agent.neurons.site import Reader, Site

_LARGE = 1 << 17
"""Numbers of an input from which on it is read at once, and let go."""

_JOINED = 1 << 19
"""Numbers of all inputs from which on moving them together costs more than an operation for each site."""

Keep = Callable[[Tensor], None]


class Held:
    """The inputs of some sites in a pass, and what their channels are.

    Args:
        sites: whole ones (of `Site`, in one process) with channels of the same width.
        channels: to read, for each site.
        device: of the sites, and of the readings.
    """

    def __init__(self, sites: Sequence[Site], channels: Sequence[Sequence[Channel]], device: torch.device) -> None:
        self._width = sites[0].width
        self._readers: list[Reader] = [site.reader(own) for site, own in zip(sites, channels, strict=True)]
        index, first = [], 0
        for site, own in zip(sites, channels, strict=True):
            index += [first + channel.index for channel in own]
            first += site.channels
        self._index = torch.tensor(index, device=device)
        self._columns = first * self._width
        self._inputs: list[Tensor | None] = [None] * len(sites)
        self._read: list[Tensor] = [torch.zeros(0, len(own), device=device) for own in channels]
        self._removers = [watch(site.module, self._keep(number)) for number, site in enumerate(sites)]

    def take(self, rows: int) -> Tensor:
        """The readings of the last pass, `[rows, channels]` float32, site by site."""
        held = [given for given in self._inputs if given is not None]
        # Behind every pass: an operation for each input, be it a view, would take longer than all the rest.
        alike = len({given.shape[:-1] for given in held}) == 1
        if len(held) < len(self._inputs) or not alike or rows * self._columns > _JOINED:
            return torch.cat([self._one(number)[:rows] for number in range(len(self._inputs))], 1)
        joined = torch.cat(held, -1).reshape(-1, self._columns)[:rows]
        if self._width == 1:
            return joined.index_select(1, self._index).float()
        heads = joined.view(joined.shape[0], -1, self._width).index_select(1, self._index)
        norms: Tensor = heads.float().norm(dim=-1)
        return norms

    def remove(self) -> None:
        """Let the modules be called as before."""
        for remove in self._removers:
            remove()
        self._removers.clear()
        self._inputs = [None] * len(self._inputs)

    def _one(self, number: int) -> Tensor:
        given = self._inputs[number]
        return self._read[number] if given is None else self._readers[number]((given,))

    def _keep(self, number: int) -> Keep:
        def keep(given: Tensor) -> None:
            if torch.is_grad_enabled():
                with torch.no_grad():
                    self._inputs[number], self._read[number] = None, self._readers[number]((given,))
            elif given.numel() > _LARGE:
                self._inputs[number], self._read[number] = None, self._readers[number]((given,))
            else:
                self._inputs[number] = given

        return keep


def can_be_watched(module: nn.Module) -> bool:
    """Whether what `forward` is given is what the module was: no hook changes it on the way."""
    return not module._forward_pre_hooks and not hasattr(module, "_hf_hook")


@torch.no_grad()
def lasts(modules: Sequence[nn.Module], run: Callable[[], object]) -> list[bool]:
    """Whether what each module is given is still the same when a pass is over: another may write into it.

    Args:
        modules: to look at.
        run: makes a pass.
    """
    seen: dict[int, tuple[Tensor, Tensor]] = {}

    def look(number: int) -> Keep:
        def keep(given: Tensor) -> None:
            seen[number] = given, given.clone()

        return keep

    removers = [watch(module, look(number)) for number, module in enumerate(modules)]
    try:
        run()
    finally:
        for remove in removers:
            remove()
    return [number in seen and torch.equal(*seen[number]) for number in range(len(modules))]


def watch(module: nn.Module, keep: Keep) -> Callable[[], None]:
    """Show the first input of every call of a module to somebody.

    Returns:
        What ends it. Several may watch a module, and leave in any order.
    """
    current = vars(module).get("forward")
    watched: Any = _watched(module) if getattr(current, "keepers", None) is None else current
    module.forward = watched
    watched.keepers.append(keep)

    def remove() -> None:
        watched.keepers.remove(keep)
        still = vars(module).get("forward") is watched
        if still and not watched.keepers:
            if watched.own is None:
                del module.forward
            else:
                module.forward = watched.own

    return remove


def _watched(module: nn.Module) -> Any:
    own, forward = vars(module).get("forward"), module.forward
    keepers: list[Keep] = []

    def watched(*inputs: Any, **named: Any) -> Any:
        given = inputs[0] if inputs else next(iter(named.values()))
        for keep in keepers:
            keep(given)
        return forward(*inputs, **named)

    made: Any = watched
    made.keepers, made.own = keepers, own
    return made
