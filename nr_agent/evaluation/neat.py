"""Finding NEAT's neurons in a model: those that write the end of the thinking, late and all at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nr_agent.detection.collect import all_channels, read_traces
from nr_agent.detection.traces import Traced, sample_traces
from nr_agent.engine.protocol import Sampling
from nr_agent.engine.torch_engine import TorchEngine
from nr_agent.episode import Problem
from nr_agent.errors import DetectorError
from nr_agent.neurons.channels import Channel
from nr_agent.neurons.tap import ChannelPlan
from nr_agent.neurons.writes import push_toward
from nr_agent.policies.baselines.neat import Neat
from nr_agent.tokens import END_THINK

TOP = 100
"""Neurons that are kept of each trace: those that push the closing token most."""

NEURONS = 10
CONSISTENT = 0.5
LATE = 0.5
"""Least share of the traces, and least centre of mass in a trace (0 begins it, 1 ends it), of a neuron that is used."""


def find_neat(
    engine: TorchEngine, problems: Sequence[Problem], *, neurons: int = NEURONS, max_tokens: int = 768
) -> Neat:
    """NEAT's rule for a model, from its own greedy traces.

    A neuron's importance is its activation at the token before `</think>` times its push toward that token against the
    vocabulary's mean (direct logit attribution, where the paper has its softmax). Only the last third of the layers is
    searched. Of the neurons that are often important and rise late, those with the most mass at the end are used.

    Args:
        engine: with the model.
        problems: to think about; none that anything is reported on.
        neurons: how many to use.
        max_tokens: longest thinking.

    Raises:
        DetectorError: the model never closed its thinking, or no neuron is like that.
    """
    end = engine.codec.control(END_THINK)
    traces = sample_traces(engine, problems, sampling=Sampling(temperature=0.0), max_tokens=max_tokens, trials=False)
    closed = [trace for trace in traces if trace.closed and trace.steps and end in trace.ids]
    if end is None or not closed:
        raise DetectorError(
            "neat needs traces that the model closed, and there are none", hint="raise the token budget"
        )
    with engine.quiet() as model:
        every = [channel for channel in all_channels(model) if channel.kind == "ffn"]
        first = 2 * (max(channel.layer for channel in every) + 1) // 3
        channels = [channel for channel in every if channel.layer >= first]
        push = push_toward(model, channels, end)
        looks = [_look(closed[number], values, push, end) for number, values in read_traces(model, closed, channels)]
    important, late, sudden, last = (torch.stack(list(part)) for part in zip(*looks, strict=True))
    share = important.float().mean(0)
    centre, mass = (
        torch.where(important, part, 0).sum(0) / important.sum(0).clamp(min=1) for part in (late, late * sudden)
    )
    fit = torch.where((share >= CONSISTENT) & (centre >= LATE), share * mass, -1.0)
    chosen = [index for index in fit.argsort(descending=True).tolist()[:neurons] if fit[index] > 0]
    if not chosen:
        raise DetectorError("no neuron of this model tells the end of its thinking", hint="leave neat out of the arms")
    return make_neat([channels[index] for index in chosen], last.mean(0)[chosen].tolist())


def make_neat(channels: Sequence[Channel], reference: Sequence[float]) -> Neat:
    """The rule for neurons that are known."""
    return Neat(tuple(map(str, channels)), tuple(reference), ChannelPlan(channels))


def _look(trace: Traced, values: Tensor, push: Tensor, end: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each neuron: whether it is important at the end, how late its activity is, how sudden, and what it is then."""
    begin, stop = trace.steps[0].start - 1, trace.ids.index(end, trace.steps[0].start)
    thinking = values[begin:stop]  # the reading at `stop - 1` wrote the closing
    last = thinking[-1]
    importance = last * push
    important = torch.zeros_like(importance, dtype=torch.bool)
    important[importance.topk(min(TOP, len(importance))).indices] = True
    activity = (thinking * last.sign()).clamp(min=0)
    share = activity / activity.sum(0).clamp(min=1e-9)
    late = (share * torch.linspace(0, 1, len(thinking))[:, None]).sum(0)
    entropy = -(share * share.clamp(min=1e-12).log2()).sum(0) / max(1.0, torch.tensor(len(thinking)).log2().item())
    return important & (importance > 0), late, 1 - entropy / 2, last
