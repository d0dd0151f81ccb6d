"""Teach a few neurons to tell: while a model learns to think, these learn to say when its thinking fails.

What a model says of its own steps follows what it believes, and a slip that it believes is written with confidence.
That a step is wrong can still be known: to check is easier than to find, and the whole step stands there to be
checked. So beside the language model's loss there is one on a few FFN neurons of the last layers, a group a level: a
linear reading of each group must tell, at every token, whether the step so far holds a slip, repeats what was there,
or comes after the answer is known. It is learned on the teacher's planted failures and, which matters most, on the
failures that the model makes itself, found by the checkers.

The readings are thrown away afterwards. The neurons stay, and detectors find them as they find any others: by ranking.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nr_agent.events import LEVELS
from nr_agent.neurons.sites import find_sites
from nr_agent.training.corpus import IGNORED, Batch

NEURONS = 8
"""Neurons a level and layer."""
LAYERS = 2
"""The last so many layers hold them."""

_RARE = 4.0
_END = 8.0


class Telltale(nn.Module):
    """The neurons that are to tell, and the readings that teach them.

    Args:
        model: a decoder; the first neurons of its last layers' FFNs are taken.
        neurons: a level and layer.
        layers: how many layers.
    """

    def __init__(self, model: Any, neurons: int = NEURONS, layers: int = LAYERS) -> None:
        super().__init__()
        self.neurons = neurons
        self._sites = [site.module for site in find_sites(model) if site.kind == "ffn"][-layers:]
        self._read: list[Tensor] = []
        self.weight = nn.Parameter(torch.full((len(LEVELS), len(self._sites) * neurons), 0.5))
        self.bias = nn.Parameter(torch.full((len(LEVELS),), -3.0))

    def watch(self, model: Any) -> Any:
        """Hooks that keep what the neurons are, pass by pass; the model may be a copy of the one it was made for."""
        modules = [site.module for site in find_sites(model) if site.kind == "ffn"][-len(self._sites) :]
        for module in modules:
            module.register_forward_pre_hook(self._keep)
        return model

    def logits(self) -> Tensor:
        """What was told in the last pass: `[rows, tokens, 3]`, in the order of `LEVELS`."""
        read, self._read = self._read, []
        # [rows, tokens, layers, levels, neurons] -> levels first, then layers and neurons together.
        kept = torch.stack([one.float().unflatten(-1, (len(LEVELS), self.neurons)) for one in read], dim=2)
        return torch.einsum("rtlvn,vln->rtv", kept, self.weight.unflatten(-1, (len(read), self.neurons))) + self.bias

    def loss(self, logits: Tensor, batch: Batch, step_end: int) -> Tensor:
        """Cross-entropy over the tokens of which something is known; failures and ends of steps weigh more."""
        wanted = batch.tells
        known = wanted != IGNORED
        weight = (
            known
            * torch.where(wanted == 1, _RARE, 1.0)
            * (1 + (_END - 1) * last_tokens(batch.ids, step_end))[..., None]
        )
        each = nn.functional.binary_cross_entropy_with_logits(logits, wanted.clamp(min=0).float(), reduction="none")
        return (each * weight).sum() / weight.sum().clamp(min=1)

    def _keep(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._read.append(inputs[0][..., : len(LEVELS) * self.neurons])


def last_tokens(ids: Tensor, step_end: int) -> Tensor:
    """1 at the last token before a blank line, where a step is whole: `[rows, tokens]`."""
    ends = torch.zeros_like(ids)
    ends[:, :-1] = ids[:, 1:] == step_end
    return ends
