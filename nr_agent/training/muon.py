"""Muon, as `torch.optim.Muon` has it, for matrices of few shapes and on machines of any kind."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_EPS = 1e-7


class Muon(torch.optim.Optimizer):
    """Momentum whose steps are orthogonalised: every direction of a matrix moves alike.

    torch's own computes in bfloat16 whatever the machine, which a CPU without units for it does a hundred times slower
    than in float32, and one matrix after the other. Here matrices of one shape are one batch, in the type that is asked
    for. A step's size is matched to AdamW's, so that both may have the same rate.

    Args:
        matrices: parameters of two dimensions.
        lr: the rate.
        weight_decay: decoupled, as in AdamW.
        momentum: of the gradients, with Nesterov's look ahead.
        dtype: in which steps are orthogonalised.

    Source: Keller Jordan's Muon (the iteration and its coefficients); arXiv 2502.16982 (a step's size).
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        lr: float,
        *,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move every matrix that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike[matrix.shape].append(matrix)
            for shape, matrices in alike.items():
                steps = orthogonal(torch.stack([self._ahead(one, group["momentum"]) for one in matrices]), self.dtype)
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
                size = 0.2 * math.sqrt(max(shape))
                torch._foreach_add_(matrices, list(steps.to(matrices[0].dtype)), alpha=-group["lr"] * size)
        return loss

    def _ahead(self, matrix: Tensor, momentum: float) -> Tensor:
        state, gradient = self.state[matrix], matrix.grad
        assert gradient is not None  # noqa: S101 - those without one do not come here
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(state["momentum_buffer"], momentum)


def orthogonal(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Matrices with the same singular directions, and all singular values near 1: `[batch, rows, columns]`."""
    a, b, c = _COEFFICIENTS
    wide = matrices.shape[1] <= matrices.shape[2]
    found = (matrices if wide else matrices.mT).to(dtype)
    found = found / torch.linalg.matrix_norm(found, keepdim=True).clamp(min=_EPS)
    for _ in range(_ITERATIONS):
        gram = found @ found.mT
        found = torch.baddbmm(found, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found if wide else found.mT
