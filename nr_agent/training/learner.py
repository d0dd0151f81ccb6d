"""Passes forward and back as fast as they go: in bfloat16 where the machine has units for it, with dense attention.

The weights that learn stay in float32; what computes is a copy of them.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import AttentionInterface

from nr_agent.detection.metrics import auroc
from nr_agent.events import LEVELS, Level
from nr_agent.tokens import STEP_END
from nr_agent.training.corpus import IGNORED, Batch, Example, batches
from nr_agent.training.telltale import Telltale, last_tokens

# Kernels are kept for every shape that rows come in.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")

_WORTH_FUSING = 1_000_000_000
"""Weights times optimiser steps from which on compiling takes less time than it saves."""

_DENSE = "nr_agent_dense"


class Learner:
    """Adds the gradients of a batch to a model and its telltale.

    Args:
        model: the model; its weights are float32.
        telltale: its telltale neurons; None to train the language alone.
        accelerator: where it computes.
        precision: see `PretrainSettings`.
        told: weight of what the neurons tell.
        fused: whether what the layers consist of is compiled, which takes a minute and a C++ compiler: on a CPU, where
            most of the time goes into small operations one by one, a step then takes four fifths of its time.
    """

    def __init__(
        self,
        model: Any,
        telltale: Telltale | None,
        accelerator: Accelerator,
        *,
        precision: Literal["auto", "bf16", "fp32"] = "auto",
        told: float = 0.5,
        fused: bool = False,
    ) -> None:
        self.model = model
        self.telltale = telltale
        self.accelerator = accelerator
        self.told = told
        self.model.to(accelerator.device)
        self.worker = copy.deepcopy(model).to(quick_type(precision, accelerator.device))
        # Rows are short, and filled up behind their end alone: a causal mask is all that is needed.
        self.worker.set_attn_implementation(_DENSE)
        if telltale is not None:
            telltale.to(accelerator.device).watch(self.worker)
        if fused and accelerator.device.type == "cpu" and _compiles():
            _fuse(self.worker)
        self.worker = accelerator.prepare(self.worker)
        self.worker.train()

    def learn(self, parts: Sequence[Batch], step_end: int) -> Tensor:
        """Pass a batch through, part by part, and leave the gradients of its mean loss.

        Returns:
            The language model's loss and the telltale's, `[2]`, on the device that computes.
        """
        pairs = self._copied()
        counted = sum(int((part.labels[:, 1:] >= 0).sum()) for part in parts)
        losses = torch.zeros(2, device=self.accelerator.device)
        for part in parts:
            part = Batch(*(tensor.to(self.accelerator.device, non_blocking=True) for tensor in part))
            logits = self.worker(input_ids=part.ids, use_cache=False).logits
            language = nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1).float(), part.labels[:, 1:].flatten(), reduction="sum"
            ) / max(1, counted)
            loss, shown = language, language.new_zeros(())
            if self.telltale is not None:
                shown = self.telltale.loss(self.telltale.logits(), part, step_end) / len(parts)
                loss = loss + self.told * shown
            self.accelerator.backward(loss)
            losses += torch.stack([language, shown]).detach().float()
        for weight, working in pairs:
            if working.grad is not None:
                weight.grad = working.grad.to(weight.dtype)
                working.grad = None
        return losses

    @torch.no_grad()
    def told_of(self, examples: Sequence[Example], tokenizer: Any) -> dict[Level, float]:
        """How well the telltale tells at the ends of steps that it has not learned from: AUROC a level."""
        if self.telltale is None or not examples:
            return {}
        self._copied()
        rest = iter(examples)
        size = sum(len(example.ids) for example in examples)
        step_end = tokenizer.encode(STEP_END, add_special_tokens=False)[0]
        logits, wanted = [], []
        for part in batches(lambda: next(rest), size, tokenizer.pad_token_id, parts=max(4, size // 4000)):
            self.worker(input_ids=part.ids.to(self.accelerator.device), use_cache=False)
            ends = last_tokens(part.ids, step_end) > 0
            logits.append(self.telltale.logits().cpu()[ends])
            wanted.append(part.tells[ends])
        told, true = torch.cat(logits), torch.cat(wanted)
        found: dict[Level, float] = {}
        for place, level in enumerate(LEVELS):
            known = true[:, place] != IGNORED
            found[level] = round(auroc(told[known, place], true[known, place].float()), 4)
        return found

    @torch.no_grad()
    def _copied(self) -> list[tuple[Tensor, Tensor]]:
        """The weights that learn, each with the copy that computes, which is brought up to date."""
        pairs = list(zip(self.model.parameters(), self.worker.parameters(), strict=True))
        torch._foreach_copy_([working for _, working in pairs], [weight for weight, _ in pairs])
        return pairs


def quick_type(precision: Literal["auto", "bf16", "fp32"], device: torch.device) -> torch.dtype:
    """The type to compute in: see `PretrainSettings.precision`."""
    if precision == "auto":
        fast = device.type != "cpu" or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32


def worth_fusing(model: Any, steps: int) -> bool:
    """Whether compiling pays for so many optimiser steps: 250 of nano are enough, a smoke run of tiny is not."""
    weights: int = sum(weight.numel() for weight in model.parameters())
    return steps * weights >= _WORTH_FUSING


def _fuse(model: Any) -> None:
    """Compile attention, norms and FFNs for rows of any shape; one that a telltale's hooks watch stays as it is."""
    for layer in model.get_decoder().layers:
        for part in layer.children():
            if not any(module._forward_pre_hooks for module in part.modules()):
                part.compile(dynamic=True)


def _compiles() -> bool:
    """Whether this machine can compile; a warning says why it cannot."""
    try:
        torch.compile(lambda values: values.cos() + 1)(torch.zeros(8, 8))
    except Exception as error:  # whatever a broken tool chain comes up with: training works without it
        warnings.warn(f"layers are not compiled, training takes longer: {error}", stacklevel=3)
        return False
    return True


def _dense(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """Causal attention with whole score matrices: on CPUs, for some hundred tokens, faster backwards than fused."""
    rows, heads, tokens, width = query.shape
    groups = heads // key.shape[1]
    key, value = (one.repeat_interleave(groups, 1) if groups > 1 else one for one in (key, value))
    flat = [one.reshape(rows * heads, tokens, width) for one in (query, key, value)]
    mask = _mask(tokens, query.dtype, query.device).expand(rows * heads, tokens, tokens)
    scores = torch.baddbmm(mask, flat[0], flat[1].transpose(1, 2), alpha=scaling)
    mixed = torch.bmm(torch.softmax(scores, -1), flat[2])
    return mixed.view(rows, heads, tokens, width).transpose(1, 2), None


def _mask(tokens: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.full((tokens, tokens), float("-inf"), dtype=dtype, device=device).triu(1)


AttentionInterface.register(_DENSE, _dense)
