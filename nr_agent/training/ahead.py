"""Batches made ahead by other processes: a GPU would wait for them longer than it computes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.utils.data import DataLoader, Dataset

from nr_agent.training.corpus import PARTS, Batch

_MOST_WORKERS = 6
_FEW_PARTS = 2


def parts_on(device: torch.device) -> int:
    """Parts of a batch: on a CPU little is filled up, on a GPU what counts is how many kernels are started."""
    return PARTS if device.type == "cpu" else _FEW_PARTS


def made_ahead(make: Callable[[int], list[Batch]], steps: Sequence[int], device: torch.device) -> Iterator[list[Batch]]:
    """What is made of every step, in their order; by other processes where this one's cores have nothing to compute.

    Args:
        make: makes the batch of a step; a pure function of it.
        steps: the steps.
        device: what computes.
    """
    workers = 0 if device.type == "cpu" else max(1, min(_MOST_WORKERS, (os.cpu_count() or 1) // 2))
    loader: DataLoader[list[Batch]] = DataLoader(
        _Made(make),
        sampler=steps,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,  # what is made of depends on all that is known by then
        prefetch_factor=8 if workers else None,
        collate_fn=_as_it_is,
    )
    return iter(loader)


class _Made(Dataset[list[Batch]]):
    def __init__(self, make: Callable[[int], list[Batch]]) -> None:
        self.make = make

    def __getitem__(self, step: int) -> list[Batch]:
        return self.make(step)


def _as_it_is(made: list[Batch]) -> list[Batch]:
    return made
