"""Our Muon steps as torch's does, in any type."""

import copy

import pytest
import torch

from nr_agent.training.muon import Muon, orthogonal

SHAPES = ((24, 40), (40, 24), (24, 40), (16, 16))


def trained(make, gradients):
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    optimizer = make(matrices)
    for step in gradients:
        for matrix, gradient in zip(matrices, step, strict=True):
            matrix.grad = gradient.clone()
        optimizer.step()
        optimizer.zero_grad()
    return matrices, optimizer


@pytest.fixture(scope="module")
def gradients():
    generator = torch.Generator().manual_seed(1)
    return [[torch.randn(shape, generator=generator) for shape in SHAPES] for _ in range(6)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_it_steps_as_the_library_does(gradients, dtype):
    ours, _ = trained(lambda matrices: Muon(matrices, 0.02, weight_decay=0.05, dtype=dtype), gradients)
    library, _ = trained(
        lambda matrices: torch.optim.Muon(matrices, lr=0.02, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        gradients,
    )
    start, _ = trained(lambda matrices: Muon(matrices, 0.02), [])
    for one, other, begun in zip(ours, library, start, strict=True):
        moved, wanted = one - begun, other - begun
        assert (moved - wanted).norm() < 0.03 * wanted.norm()  # what bfloat16 rounds


def test_all_directions_of_a_step_are_alike():
    matrices = torch.randn(3, 20, 50, generator=torch.Generator().manual_seed(2)) * torch.logspace(-1, 0.5, 20)[:, None]
    for given in (matrices, matrices.mT):
        values = torch.linalg.svdvals(orthogonal(given, torch.float32))
        assert values.min() > 0.3 and values.max() < 1.3


def test_a_matrix_without_a_gradient_stays_and_a_state_can_be_taken_up(gradients):
    ours, optimizer = trained(lambda matrices: Muon(matrices, 0.02), gradients[:3])
    saved = copy.deepcopy(optimizer.state_dict())
    again = [torch.nn.Parameter(matrix.detach().clone()) for matrix in ours]
    resumed = Muon(again, 0.02)
    resumed.load_state_dict(saved)
    for matrices, stepping in ((ours, optimizer), (again, resumed)):
        for matrix, gradient in list(zip(matrices, gradients[3], strict=True))[1:]:
            matrix.grad = gradient.clone()
        before = matrices[0].detach().clone()
        stepping.step()
        assert torch.equal(matrices[0], before)
    assert all(torch.equal(one, other) for one, other in zip(ours, again, strict=True))
