"""What a detector sees of a step or of its tokens: four families of features, the same while thinking and fitting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from nr_agent.detection.spectrum import NAMES, WINDOW, spectral_features

FeatureFamily = Literal["stats", "spectral", "attribution", "confidence"]
FEATURE_FAMILIES: tuple[FeatureFamily, ...] = ("stats", "spectral", "attribution", "confidence")

_STATS = ("mean", "max", "min", "std", "last")
_PUSHES = ("mean", "max", "min")
_TOKEN_CONFIDENCE = ("logprob", "entropy", "surprise")
_CONFIDENCE = ("lowest_logprob", "mean_logprob", "last_logprob", "highest_entropy", "mean_entropy", "surprise")


@dataclass
class StepSignal:
    """What was read and written in one step.

    Row `i` of the readings is the state that wrote token `i`.

    Attributes:
        values: `[tokens, channels]`, standardised readings of one group.
        push: `[tokens, channels]`, each channel's raw reading times its push on the token that was written.
        logprobs: `[tokens]`, NaN where a token was forced.
        entropies: `[tokens]` in nats, NaN where a token was forced.
        history: `[WINDOW - 1]`, the group's signal before the step, zeros before there was one.
        signs: `[channels]`, 1 where a channel rises in failing steps, -1 where it falls.
        windows: `[tokens, 5]`, the spectrum of the window that ends with each token, where it is known already.
    """

    values: Tensor
    push: Tensor
    logprobs: Tensor
    entropies: Tensor
    history: Tensor
    signs: Tensor
    windows: Tensor | None = None

    @cached_property
    def signal(self) -> Tensor:
        """`[tokens]`: the group's mean reading, each channel turned so that failing is up."""
        return (self.values * self.signs).mean(-1)


def step_features(step: StepSignal, families: Sequence[FeatureFamily]) -> Tensor:
    """The features of a step, one vector, family after family (see `feature_names`)."""
    makers = {"stats": _stats, "spectral": _spectral, "attribution": _attribution, "confidence": _confidence}
    return torch.cat([makers[family](step) for family in families])


def token_features(step: StepSignal, families: Sequence[FeatureFamily]) -> Tensor:
    """The features of each token of a step, family after family: `[tokens, features]`.

    Of `stats` these are the readings themselves, of `attribution` the pushes, of `spectral` the window that ends with
    the token, of `confidence` the token's own figures (zeros where it was forced).
    """
    makers = {
        "stats": lambda step: step.values,
        "spectral": _windows,
        "attribution": lambda step: step.push,
        "confidence": _token_confidence,
    }
    return torch.cat([makers[family](step) for family in families], -1)


def feature_names(families: Sequence[FeatureFamily], channels: Sequence[str], *, tokens: bool = False) -> list[str]:
    """Names of the features, in the order of `step_features`, or of `token_features`."""
    names: list[str] = []
    for family in families:
        if tokens:
            of_channels = {"stats": "{}", "attribution": "{} push"}
            fixed = {"spectral": NAMES, "confidence": _TOKEN_CONFIDENCE}
            names += [of_channels[family].format(one) for one in channels] if family in of_channels else fixed[family]
        elif family == "stats":
            names += [f"{channel} {stat}" for stat in _STATS for channel in channels]
        elif family == "attribution":
            names += [f"{channel} push {stat}" for stat in _PUSHES for channel in channels]
        elif family == "spectral":
            names += [f"{name} {at}" for at in ("last", "peak") for name in NAMES]
        else:
            names += list(_CONFIDENCE)
    return names


def _stats(step: StepSignal) -> Tensor:
    values = step.values
    if not len(values):
        return values.new_zeros(5 * values.shape[1])
    return torch.cat(
        [values.mean(0), values.max(0).values, values.min(0).values, values.std(0, correction=0), values[-1]]
    )


def _attribution(step: StepSignal) -> Tensor:
    push = step.push
    if not len(push):
        return push.new_zeros(3 * push.shape[1])
    return torch.cat([push.mean(0), push.max(0).values, push.min(0).values])


def _spectral(step: StepSignal) -> Tensor:
    if not len(step.values):
        return step.values.new_zeros(2 * len(NAMES))
    windows = _windows(step)
    return torch.cat([windows[-1], windows.max(0).values])


def _windows(step: StepSignal) -> Tensor:
    if step.windows is not None:
        return step.windows
    if not len(step.values):
        return step.values.new_zeros(0, len(NAMES))
    return spectral_features(torch.cat([step.history, step.signal]))


def _token_confidence(step: StepSignal) -> Tensor:
    figures = torch.stack([step.logprobs, step.entropies, -step.logprobs - step.entropies], -1)
    return figures.nan_to_num(0.0)


def _confidence(step: StepSignal) -> Tensor:
    sampled = ~step.logprobs.isnan()
    if not sampled.any():
        return step.logprobs.new_zeros(len(_CONFIDENCE))
    logprobs, entropies = step.logprobs[sampled], step.entropies[sampled]
    # How much less likely the tokens were than a typical draw of their distributions.
    surprise = (-logprobs - entropies).max()
    return torch.stack([logprobs.min(), logprobs.mean(), logprobs[-1], entropies.max(), entropies.mean(), surprise])


def share_windows(steps: Sequence[StepSignal]) -> None:
    """Compute the windows of several signals of one length at once, for all that look at them."""
    if steps and len(steps[0].values):
        windows = spectral_features(torch.stack([torch.cat([step.history, step.signal]) for step in steps]))
        for step, own in zip(steps, windows, strict=True):
            step.windows = own


def tail(history: Tensor, signal: Tensor) -> Tensor:
    """The signal's last `WINDOW - 1` values, for the next step."""
    return torch.cat([history, signal])[-(WINDOW - 1) :]
