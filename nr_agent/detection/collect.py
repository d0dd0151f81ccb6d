"""Readings of finished traces: one plain forward pass over their tokens, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from nr_agent.detection.traces import Traced, TracedStep
from nr_agent.engine.protocol import Readings, Segment, SequenceRef
from nr_agent.engine.sampler import confidence
from nr_agent.engine.weights import input_device
from nr_agent.neurons.attribution import AttributionTap
from nr_agent.neurons.channels import Channel
from nr_agent.neurons.sites import decoder_layers, find_sites
from nr_agent.neurons.tap import ChannelPlan

_MOST_VALUES = 200_000_000


def all_channels(model: Any) -> list[Channel]:
    """Every channel of a model."""
    return [channel for site in find_sites(model) for channel in site.all()]


@torch.inference_mode()
def read_traces(
    model: Any,
    traces: Sequence[Traced],
    channels: Sequence[Channel],
    *,
    batch: int = 8,
    progress: Callable[[int], None] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Read channels at every token of some traces.

    Args:
        model: the model that wrote them.
        traces: the traces.
        channels: to read.
        batch: traces of one pass; they are passed in order of length, so little is padded.
        progress: called with the number of traces read so far.

    Yields:
        Number of a trace, and its readings `[tokens, channels]` float32 on the CPU: row `i` is position `i`.
    """
    tap = ChannelPlan(channels).install(model)
    try:
        yield from _passes(model, traces, tap.take, batch, progress, columns=len(channels))
    finally:
        tap.remove()


@torch.inference_mode()
def read_attributions(
    model: Any, traces: Sequence[Traced], channels: Sequence[Channel], *, batch: int = 8
) -> Iterator[tuple[int, Tensor]]:
    """What each channel added to the logit of the next token, `[tokens, channels]`, as `read_traces` gives readings.

    The last row is of no token and is zero.
    """
    tap = AttributionTap(model, channels)

    def aim(ids: Tensor) -> None:
        tap.aim(torch.cat([ids[:, 1:], ids[:, :1]], 1))

    try:
        for number, values in _passes(model, traces, tap.take, batch, None, columns=len(channels), before=aim):
            values[-1] = 0
            yield number, values
    finally:
        tap.remove()


@torch.inference_mode()
def read_hidden(model: Any, traces: Sequence[Traced], *, batch: int = 8) -> Iterator[tuple[int, Tensor]]:
    """The last decoder layer's output at every token, `[tokens, hidden]`, as `read_traces` gives readings."""
    seen: list[Tensor] = []

    def keep(_: Any, inputs: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        seen[:] = [hidden.reshape(-1, hidden.shape[-1]).float()]

    handle = decoder_layers(model)[-1].register_forward_hook(keep)
    try:
        yield from _passes(model, traces, lambda rows: seen[0][:rows], batch, None)
    finally:
        handle.remove()


def _passes(
    model: Any,
    traces: Sequence[Traced],
    take: Callable[[int], Tensor],
    batch: int,
    progress: Callable[[int], None] | None,
    *,
    columns: int = 0,
    before: Callable[[Tensor], None] = lambda _: None,
) -> Iterator[tuple[int, Tensor]]:
    """Forward passes over traces in order of length; what each leaves behind, trace by trace.

    Where many columns are read the batches are smaller: what a pass leaves behind stays below a gigabyte.
    """
    device = input_device(model)
    order = sorted(range(len(traces)), key=lambda number: len(traces[number].ids))
    begin = 0
    while begin < len(order):
        longest = len(traces[order[min(begin + batch, len(order)) - 1]].ids)
        fitting = _MOST_VALUES // max(1, columns * longest)
        numbers = order[begin : begin + max(1, min(batch, fitting))]
        longest = max(len(traces[number].ids) for number in numbers)
        ids = torch.tensor([[*traces[n].ids, *[0] * (longest - len(traces[n].ids))] for n in numbers], device=device)
        before(ids)
        model(input_ids=ids, use_cache=False, logits_to_keep=1)
        values = take(ids.numel()).view(len(numbers), longest, -1).cpu()
        for row, number in enumerate(numbers):
            yield number, values[row, : len(traces[number].ids)].clone()
        begin += len(numbers)
        if progress is not None:
            progress(begin)


Reader = Callable[[Sequence[int]], tuple[Tensor, Tensor, Tensor]]
"""Gives of a text's tokens what `read_confidence` returns."""


def read_confidence(model: Any, ids: Sequence[int], channels: Sequence[Channel]) -> tuple[Tensor, Tensor, Tensor]:
    """Read channels and confidence over text that need not be the model's own, in one plain pass.

    Returns:
        Readings `[tokens, channels]`, and of each token the log-probability, and the entropy of the distribution
        that it was drawn from (NaN for the first); float32 on the CPU.
    """
    with reader(model, channels) as read:
        return read(ids)


@contextmanager
def reader(model: Any, channels: Sequence[Channel]) -> Iterator[Reader]:
    """`read_confidence` of many texts: what reads is put in and checked once, which takes a pass a site."""
    tap = ChannelPlan(channels).install(model) if channels else None

    @torch.inference_mode()
    def read(ids: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        given = torch.tensor([list(ids)], device=input_device(model))
        logits = model(input_ids=given, use_cache=False).logits[0, :-1].float()
        values = torch.zeros(len(ids), 0) if tap is None else tap.take(len(ids)).cpu().clone()
        logprobs, entropies = confidence(logits, given[0, 1:])
        unknown = torch.full((1,), torch.nan)
        return values, torch.cat([unknown, logprobs.cpu()]), torch.cat([unknown, entropies.cpu()])

    try:
        yield read
    finally:
        if tap is not None:
            tap.remove()


def as_segment(step: TracedStep, values: Tensor, ids: Sequence[int]) -> Segment:
    """A traced step as the engine would have returned it, with its readings.

    Args:
        step: the step.
        values: `[tokens, channels]`, the whole trace's readings.
        ids: the whole trace's tokens.
    """
    window = torch.arange(step.start - 1, step.end - 1)
    return Segment(
        ref=SequenceRef(engine="", id="", length=step.end),
        start=step.start,
        ids=list(ids[step.start : step.end]),
        provenance=[("model", step.end - step.start)],
        logprobs=list(step.logprobs),
        entropies=list(step.entropies),
        end="stop_string",
        readings=Readings("", window, torch.tensor(ids)[window], values[window]),
    )
