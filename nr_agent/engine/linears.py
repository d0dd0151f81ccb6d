"""Faster products of few rows with large weights, on a CPU.

For one row MKL reads a weight straight through. For 4 to 15 rows of float32 it repacks the weight at every call, which
takes longer than the product itself where the weight does not fit a core's cache. Taken in blocks that fit,
as one batched product, the same numbers come out in half to two thirds of the time (`benchmarks.engine`).
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_ROWS = range(4, 16)
"""Below, MKL does not repack; above, it takes another way, and blocks gain nothing."""

_BLOCK = 512 << 10
"""Bytes of a block: a core's cache holds it beside the rows."""

_LARGE = 1 << 20
"""Bytes of a weight from which on blocks gain anything."""


class BlockedLinear(nn.Linear):
    """A linear module that takes its weight in blocks while it has few rows."""

    def forward(self, input: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`, as `nn.Linear`."""
        blocks = _blocks(self.out_features, self.in_features)
        rows = input.numel() // self.in_features
        if torch.compiler.is_compiling() or rows not in _ROWS or not _fits(self.weight) or torch.is_grad_enabled():
            return functional.linear(input, self.weight, self.bias)
        weights = self.weight.view(blocks, -1, self.in_features).transpose(1, 2)
        product = torch.bmm(input.reshape(1, rows, self.in_features).expand(blocks, -1, -1), weights)
        output = product.transpose(0, 1).reshape(*input.shape[:-1], self.out_features)
        return output if self.bias is None else output + self.bias


def block(model: nn.Module) -> None:
    """Let a model's large linear modules take few rows in blocks, where that is faster.

    The modules stay what they are, with the same weights and hooks; only their class changes. Those whose weights
    come and go (accelerate's offloading) or that are spread over processes are left alone.
    """
    if not torch.backends.mkl.is_available():
        return
    for module in model.modules():
        if type(module) is nn.Linear and not hasattr(module, "_hf_hook") and _fits(module.weight):
            module.__class__ = BlockedLinear


def unblock(model: nn.Module) -> None:
    """Take `block` back."""
    modules: list[Any] = [module for module in model.modules() if type(module) is BlockedLinear]
    for module in modules:
        module.__class__ = nn.Linear


def _fits(weight: Tensor) -> bool:
    return (
        type(weight) in (Tensor, nn.Parameter)
        and weight.dtype == torch.float32
        and weight.device.type == "cpu"
        and weight.is_contiguous()
        and weight.nbytes > _LARGE
        and _blocks(*weight.shape) > 1
    )


@functools.cache
def _blocks(outputs: int, inputs: int) -> int:
    """Into how many equal blocks a weight is cut: as few as fit; 1 if only slivers would."""
    least = -(-4 * outputs * inputs // _BLOCK)
    return next((blocks for blocks in range(least, 4 * least) if outputs % blocks == 0), 1)
