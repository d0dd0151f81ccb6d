"""Text to ids and back with a Hugging Face tokenizer; what a user writes never becomes a control token."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from nr_agent.errors import ModelError, ProblemError
from nr_agent.tokens import END_THINK, THINK


class TokenizerCodec:
    """A codec over a tokenizer and its chat template.

    Args:
        tokenizer: a `PreTrainedTokenizer`; its `chat_control_tokens` are completed here.
        end_ids: ids that end an answer, as the model's generation settings have them.

    Raises:
        ModelError: the tokenizer has no chat template.
    """

    def __init__(self, tokenizer: Any, end_ids: frozenset[int]) -> None:
        if not tokenizer.chat_template:
            raise ModelError(
                "this checkpoint's tokenizer has no chat template", hint="use an instruction-tuned checkpoint"
            )
        self.tokenizer = tokenizer
        # The engine knows the context and refuses what exceeds it; the tokenizer would only warn.
        tokenizer.model_max_length = sys.maxsize
        self._end_ids = end_ids
        self._added: dict[str, int] = tokenizer.get_added_vocab()
        known = list(getattr(tokenizer, "chat_control_tokens", None) or [])
        tokenizer.chat_control_tokens = [*known, *(token for token in self._added if token not in known)]
        self._control_ids = frozenset(self._added.values())
        self._frame = self._count_control(self._render([{"role": "user", "content": "x"}]))

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end an answer."""
        return self._end_ids

    def render(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Messages through the chat template, the thinking opened.

        Raises:
            ProblemError: a control token would come out of the messages' text.
        """
        ids = self._render(messages)
        if len(messages) == 1 and self._count_control(ids) != self._frame:
            raise ProblemError(
                "the problem's text would become a control token of this model",
                hint="remove the model's own control tokens from the text",
            )
        return ids

    def encode(self, text: str) -> list[int]:
        """Ids of text that the controller writes; control tokens in it are meant."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """Ids as text, control tokens visible."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=False))

    def control(self, token: str) -> int | None:
        """Id of a control token, None where the tokenizer has none by that name."""
        return self._added.get(token)

    def _render(self, messages: Sequence[dict[str, str]]) -> list[int]:
        encoded = self.tokenizer.apply_chat_template(
            list(messages),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            sanitize_control_tokens=True,
        )
        ids = list(encoded["input_ids"])
        opening, closing = self.control(THINK), self.control(END_THINK)
        if opening is None or closing is None:
            return ids
        turn = ids[::-1]
        opened = opening in turn and (closing not in turn or turn.index(opening) < turn.index(closing))
        return ids if opened else [*ids, opening, *self.encode("\n")]

    def _count_control(self, ids: Sequence[int]) -> int:
        return sum(token in self._control_ids for token in ids)
