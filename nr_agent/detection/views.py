"""What a classifier is given of a step: one vector of the whole step, or one of each token.

A slip is often a matter of one token among thirty: a step's statistics dilute it. A classifier of tokens scores each of
them, and a step by all of them together (multiple-instance learning: only steps have labels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nr_agent.detection.features import FeatureFamily, StepSignal, feature_names, step_features, token_features

Unit = Literal["step", "token"]

_NOTHING = -20.0
"""Score before the sigmoid of a step without tokens: it cannot be wrong."""


@dataclass(frozen=True)
class View:
    """Which features, and of what.

    Attributes:
        families: feature families, in order.
        unit: `step` for statistics over the step, `token` for the values at each token.
    """

    families: tuple[FeatureFamily, ...]
    unit: Unit = "step"

    def __str__(self) -> str:
        return ("tokens: " if self.unit == "token" else "") + "+".join(self.families)

    def see(self, signals: Sequence[StepSignal]) -> Seen:
        """What a classifier is given of some steps."""
        if self.unit == "token":
            return Tokens.of([token_features(signal, self.families) for signal in signals])
        return torch.stack([step_features(signal, self.families) for signal in signals])

    def names(self, channels: Sequence[str]) -> list[str]:
        """Names of the features, in their order."""
        return feature_names(self.families, channels, tokens=self.unit == "token")


@dataclass(frozen=True)
class Tokens:
    """Steps of different lengths, as the tokens they are made of.

    Attributes:
        values: `[tokens, features]`, step after step.
        lengths: `[steps]`, how many tokens each has.
    """

    values: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, steps: Sequence[Tensor]) -> Tokens:
        """Steps of `[tokens, features]` each."""
        return cls(torch.cat(list(steps)), torch.tensor([len(step) for step in steps]))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: Tensor | Sequence[int]) -> Tokens:
        """Some of the steps."""
        index = torch.as_tensor(index)
        lengths = self.lengths[index]
        starts = (self.lengths.cumsum(0) - self.lengths)[index]
        # Where each token is: its step's start, and its place in the step.
        places = torch.arange(int(lengths.sum())) - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        return Tokens(self.values[starts.repeat_interleave(lengths) + places], lengths)

    def columns(self, columns: Tensor) -> Tokens:
        """Some of the features."""
        return Tokens(self.values[:, columns], self.lengths)

    def pool(self, scores: Tensor) -> Tensor:
        """Scores of steps from those of their tokens, `[tokens]` to `[steps]`, before the sigmoid.

        A step fails if any of its tokens does; of rare failures the odds add up. (The maximum alone would say nearly
        the same, but learns badly: all but one token of a step get no gradient.)
        """
        owners = torch.arange(len(self)).repeat_interleave(self.lengths)
        highest = scores.new_full((len(self),), _NOTHING).scatter_reduce(0, owners, scores.detach(), "amax")
        odds = (_NOTHING - highest).exp().scatter_add(0, owners, (scores - highest[owners]).exp())
        return highest + odds.log()


Seen = Tensor | Tokens
"""`[steps, features]`, or the steps' tokens. Both have a length in steps and can be indexed by steps."""


def join(parts: Sequence[Seen]) -> Seen:
    """Some steps, and others behind them."""
    if isinstance(parts[0], Tokens):
        tokens = [part for part in parts if isinstance(part, Tokens)]
        return Tokens(torch.cat([one.values for one in tokens]), torch.cat([one.lengths for one in tokens]))
    return torch.cat([part for part in parts if isinstance(part, Tensor)])
