"""One forward pass over ragged rows: positions, masks, and the logits of each row's last token."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from nr_agent.engine.cache import SlotCache, attention_mask
from nr_agent.errors import ModelError

_RECURRENT = {"linear_attention", "mamba", "conv", "recurrent"}


class Runner:
    """Runs a model over rows of different lengths.

    Args:
        model: a decoder with rotary or learned positions and plain or sliding attention.

    Raises:
        ModelError: the architecture keeps state that cannot be rolled back, or takes no mask of ours.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.config = model.config.get_text_config()
        self.device: torch.device = model.get_input_embeddings().weight.device  # type: ignore[assignment]
        kinds = list(getattr(self.config, "layer_types", None) or [])
        if _RECURRENT & set(kinds):
            raise ModelError(
                f"{self.config.model_type} has recurrent layers, which cannot be rolled back",
                hint="use a model whose layers are all attention",
            )
        self.layers = int(self.config.num_hidden_layers)
        self.cache = SlotCache(self.layers)
        self._kinds = set(kinds)
        self._window = getattr(self.config, "sliding_window", None)
        self._additive = model.config._attn_implementation == "eager"
        accepted = inspect.signature(model.forward).parameters
        self._keeps = "logits_to_keep" in accepted
        if "position_ids" not in accepted:
            raise ModelError(
                f"{self.config.model_type} takes no positions", hint="use a model with rotary or learned positions"
            )

    @torch.inference_mode()
    def run(self, slots: Sequence[int], starts: Sequence[int], rows: Sequence[Sequence[int]]) -> Tensor:
        """Compute new tokens of some rows, and keep their keys and values.

        Args:
            slots: slot of each row.
            starts: how many tokens of each row are cached already.
            rows: the new tokens of each row, at least one.

        Returns:
            `[rows, vocabulary]` float32: the logits behind each row's last token.
        """
        longest = max(len(row) for row in rows)
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=self.device)
        # Padding follows a row's tokens: it writes beyond the row's length, where nobody looks.
        positions = torch.tensor(starts, device=self.device)[:, None] + torch.arange(longest, device=self.device)
        view = max(starts) + longest
        self.cache.begin(list(slots), positions, view)
        last = [len(row) - 1 for row in rows]
        kept = sorted(set(last)) if self._keeps else list(range(longest))
        extra = {"logits_to_keep": torch.tensor(kept, device=self.device)} if self._keeps else {}
        output = self.model(
            input_ids=ids,
            attention_mask=self._masks(positions, view),
            # Padding must not ask for a position that the model has not learned.
            position_ids=positions.clamp(max=self.config.max_position_embeddings - 1),
            past_key_values=self.cache,
            use_cache=True,
            **extra,
        )
        column = torch.tensor([kept.index(position) for position in last], device=self.device)
        logits: Tensor = output.logits[torch.arange(len(rows), device=self.device), column]
        return logits.float()

    def _masks(self, positions: Tensor, view: int) -> Tensor | dict[str, Tensor]:
        additive = self.model.dtype if self._additive else None
        full = attention_mask(positions, view, additive=additive)
        if self._window is None or ("sliding_attention" not in self._kinds and self._kinds):
            return full
        sliding = attention_mask(positions, view, window=int(self._window), additive=additive)
        if len(self._kinds) <= 1:
            return sliding
        return {"full_attention": full, "sliding_attention": sliding}
