"""Batches made ahead by other processes are the ones that would have been made in place."""

import pytest
import torch

from nr_agent.training.ahead import made_ahead, parts_on
from nr_agent.training.corpus import Batch

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def make(step):
    made = torch.arange(12).view(1, 12) + step
    return [Batch(made, -made, made[..., None].expand(1, 12, 3))]


def test_other_processes_make_the_same_in_the_same_order():
    steps = range(5, 45)
    here, there = (list(made_ahead(make, steps, device)) for device in (CPU, GPU))
    assert len(here) == len(there) == 40
    for one, other in zip(here, there, strict=True):
        assert isinstance(other[0], Batch)
        assert all(torch.equal(a, b) for a, b in zip(one[0], other[0], strict=True))


def test_what_fails_there_is_told_here():
    def broken(step):
        if step == 3:
            raise ZeroDivisionError("step 3")
        return make(step)

    made = made_ahead(broken, range(6), GPU)
    assert len([next(made), next(made), next(made)]) == 3
    with pytest.raises(ZeroDivisionError, match="step 3"):
        next(made)


def test_a_gpu_takes_few_parts():
    assert parts_on(GPU) < parts_on(CPU)
