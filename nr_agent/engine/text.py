"""Text to ids and back with a Hugging Face tokenizer; what a user writes never becomes a control token."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from nr_agent.engine import prompts
from nr_agent.errors import ModelError, ProblemError, ToolsUnsupportedError
from nr_agent.tokens import END_THINK, THINK


class TokenizerCodec:
    """A codec over a tokenizer and its chat template.

    Args:
        tokenizer: a `PreTrainedTokenizer`.
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
        self._hidden = prompts.control_tokens(tokenizer)
        self._control_ids = frozenset(self._hidden.values())
        self._anchor = _anchor(tokenizer)
        template = tokenizer.chat_template
        texts = template.values() if isinstance(template, Mapping) else [template]
        self._takes_tools = any(prompts.takes_tools(text) for text in texts)

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end an answer."""
        return self._end_ids

    @property
    def takes_tools(self) -> bool:
        """Whether the chat template presents tools to the model."""
        return self._takes_tools

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """Messages through the chat template, the thinking opened.

        Raises:
            ProblemError: the template refuses the messages, or a control token would come out of their text.
            ToolsUnsupportedError: there are tools, and the template does not present any.
        """
        if tools and not self.takes_tools:
            raise ToolsUnsupportedError(
                "this model's chat template knows no tools",
                hint="use a checkpoint whose chat template presents tools, such as Qwen3's",
            )
        ids = prompts.render(self.tokenizer, messages, tools, control=self._hidden)
        if self._count_control(ids) != self._count_control(prompts.frame(self.tokenizer, messages, tools)):
            raise ProblemError(
                "text of the conversation would become a control token of this model",
                hint="remove the model's own control tokens from the text",
            )
        return self._open_thinking(ids)

    def encode(self, text: str) -> list[int]:
        """Ids of text that the controller writes; control tokens in it are meant."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """Ids as text, control tokens visible."""
        if not self._anchor or not ids or ids[0] in self._control_ids:
            return str(self.tokenizer.decode(ids, skip_special_tokens=False))
        lead = str(self.tokenizer.decode(self._anchor, skip_special_tokens=False))
        text = str(self.tokenizer.decode([*self._anchor, *ids], skip_special_tokens=False))
        return text[len(lead) :] if text.startswith(lead) else text

    def control(self, token: str) -> int | None:
        """Id of a control token, None where the tokenizer has none by that name."""
        return self._added.get(token)

    def _open_thinking(self, ids: list[int]) -> list[int]:
        opening, closing = self.control(THINK), self.control(END_THINK)
        if opening is None or closing is None:
            return ids
        turn = ids[::-1]
        opened = opening in turn and (closing not in turn or turn.index(opening) < turn.index(closing))
        return ids if opened else [*ids, opening, *self.encode("\n")]

    def _count_control(self, ids: Sequence[int]) -> int:
        return sum(token in self._control_ids for token in ids)


def _anchor(tokenizer: Any) -> list[int]:
    """A token to decode behind, where a decoder takes the space before a text's first word for its own.

    Those of SentencePiece do; the space that a step begins with would be lost.
    """
    ids = list(tokenizer.encode("x x", add_special_tokens=False))
    whole, last = (str(tokenizer.decode(part, skip_special_tokens=False)) for part in (ids, ids[-1:]))
    return ids[-1:] if whole.endswith(f" {last}") and not last.startswith(" ") and len(ids) > 1 else []
