"""One forward pass over ragged rows: positions, masks, and the logits of each row's last token."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from nr_agent.engine.cache import SlotCache, attention_mask
from nr_agent.engine.linears import block
from nr_agent.engine.weights import input_device
from nr_agent.errors import ConfigurationError, ModelError

_KINDS = {"full_attention", "sliding_attention", "global"}
"""Kinds of layers that our masks can express."""

_LEAST_ROOM = 16
"""Tokens that a bounded cache must hold at least."""


class Runner:
    """Runs a model over rows of different lengths.

    Args:
        model: a decoder with rotary or learned positions and plain or sliding attention.
        memory: most bytes of the cache; None for no bound.

    Raises:
        ConfigurationError: the memory holds next to nothing.
        ModelError: the architecture keeps state that cannot be rolled back, or computes something else over
            ragged rows than over plain ones.
    """

    def __init__(self, model: PreTrainedModel, *, memory: int | None = None) -> None:
        self.model = model
        self.config = model.config.get_text_config()
        embedding: Any = model.get_input_embeddings()
        self.device = input_device(model)
        self.vocabulary = int(embedding.weight.shape[0])
        kinds = getattr(self.config, "layer_types", None) or getattr(self.config, "attention_layers", None)
        self._kinds: set[str] = set(kinds or ())
        if self._kinds - _KINDS:
            raise ModelError(
                f"{self.config.model_type} has layers of a kind that cannot be taken back or masked row by row: "
                f"{', '.join(sorted(self._kinds - _KINDS))}",
                hint="use a model whose layers are all full or sliding attention",
            )
        self.layers = int(self.config.num_hidden_layers)
        self._window = getattr(self.config, "sliding_window", None)
        self._additive = model.config._attn_implementation == "eager"
        accepted = inspect.signature(model.forward).parameters
        self._keeps = "logits_to_keep" in accepted
        # Where the last layers are on another device, so must be what says which of their outputs are kept.
        head = model.get_output_embeddings()
        self.picks = self._keeps and (head is None or head.weight.device in (self.device, torch.device("meta")))
        self.positions = _positions(self.config)
        self._cache = "cache" if "cache" in accepted else "past_key_values"  # before transformers 5.24
        if "position_ids" not in accepted:
            raise ModelError(
                f"{self.config.model_type} takes no positions", hint="use a model with rotary or learned positions"
            )
        self.cache = SlotCache(self.layers, slots=2, capacity=8)
        block(model)
        self._prove()
        token_bytes = self.cache.nbytes // (self.cache.slots * self.cache.capacity)
        self.cache = SlotCache(self.layers, room=None if memory is None else _room(memory, token_bytes))

    @torch.inference_mode()
    def run(
        self,
        slots: Sequence[int],
        starts: Sequence[int],
        rows: Sequence[Sequence[int]],
        wanted: Sequence[int] | None = None,
    ) -> Tensor:
        """Compute new tokens of some rows, and keep their keys and values.

        Args:
            slots: slot of each row.
            starts: how many tokens of each row are cached already.
            rows: the new tokens of each row, at least one.
            wanted: the rows whose logits are wanted; all by default.

        Returns:
            `[wanted, vocabulary]` float32: the logits behind each wanted row's last token.
        """
        longest = max(len(row) for row in rows)
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=self.device)
        # Padding follows a row's tokens: it writes beyond the row's length, where nobody looks.
        positions = torch.tensor(starts, device=self.device)[:, None] + torch.arange(longest, device=self.device)
        view = max(starts) + longest
        self.cache.begin(list(slots), positions, view)
        wanted = range(len(rows)) if wanted is None else wanted
        last = [len(rows[row]) - 1 for row in wanted]
        kept = sorted(set(last)) if self.picks else list(range(min(last), longest))
        extra: dict[str, Any] = {self._cache: self.cache}
        if self._keeps:
            extra["logits_to_keep"] = torch.tensor(kept, device=self.device) if self.picks else len(kept)
        else:
            kept = list(range(longest))
        # Made before the pass: to copy them behind it would wait for it.
        row = torch.tensor(list(wanted), device=self.device)
        column = torch.tensor([kept.index(position) for position in last], device=self.device)
        output = self.model(
            input_ids=ids,
            attention_mask=self._masks(positions, view),
            # Padding must not ask for a position that the model has not learned.
            position_ids=positions.clamp(max=self.positions - 1),
            use_cache=True,
            **extra,
        )
        logits: Tensor = output.logits[row, column]
        return logits.float()

    @torch.inference_mode()
    def _prove(self) -> None:
        """Compute ragged rows and compare them with plain passes: what we tell the model must mean the same to it."""
        rows = [[token % self.vocabulary for token in row] for row in ([1, 2, 3, 4, 5, 6], [7, 8, 9])]
        try:
            plain = [
                self.model(input_ids=torch.tensor([row], device=self.device), use_cache=False).logits[0, -1].float()
                for row in rows
            ]
            self.run([0, 1], [0, 0], [rows[0][:4], rows[1][:1]])
            self.run([1, 0], [1, 4], [rows[1][1:2], rows[0][4:5]])
            ragged = self.run([0, 1], [5, 2], [rows[0][5:], rows[1][2:]])
        except Exception as error:
            raise ModelError(
                f"{self.config.model_type} cannot be run over ragged rows: {error!r}",
                hint="use a model with rotary or learned positions whose layers are all full or sliding attention",
            ) from error
        tolerance = 1e-3 if self.model.dtype in (torch.float32, torch.float64) else 0.1
        for alone, together in zip(plain, ragged, strict=True):
            off = float((alone - together).abs().mean() / alone.std().clamp(min=1e-9))
            if off > tolerance:
                raise ModelError(
                    f"{self.config.model_type} computes something else over ragged rows (off by {off:.2g} deviations)",
                    hint="load it with another attn_implementation, or use another model",
                )

    def _masks(self, positions: Tensor, view: int) -> Tensor | dict[str, Tensor]:
        additive = self.model.dtype if self._additive else None
        full = attention_mask(positions, view, additive=additive)
        if self._window is None or ("sliding_attention" not in self._kinds and self._kinds):
            return full
        sliding = attention_mask(positions, view, window=int(self._window), additive=additive)
        if len(self._kinds) <= 1:
            return sliding
        return {"full_attention": full, "sliding_attention": sliding}


def _positions(config: Any) -> int:
    """How many positions a model has learned.

    Where the rotation's frequencies change with the longest row of a batch (LongRoPE), as many as it was trained on
    first: beyond those a row's result would depend on who else is in the batch, and on what was cached before.
    """
    learned = int(getattr(config, "max_position_embeddings", 4096))
    ropes = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    for rope in [ropes, *ropes.values()]:
        if isinstance(rope, Mapping) and "longrope" in (rope.get("rope_type"), rope.get("type")):
            own = getattr(config, "original_max_position_embeddings", None)
            learned = min(learned, int(rope.get("original_max_position_embeddings") or own or learned))
    return learned


def _room(memory: int, token_bytes: int) -> int:
    room = memory // max(1, token_bytes)
    if room < _LEAST_ROOM:
        raise ConfigurationError(
            f"{memory} bytes of cache hold {room} tokens of this model, {token_bytes} bytes each",
            hint=f"allow at least {_LEAST_ROOM * token_bytes} bytes: Limits(memory=...)",
        )
    return room
