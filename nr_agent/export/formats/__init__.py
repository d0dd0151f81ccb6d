"""The training formats: a module each, and the list of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from nr_agent.episode import Episode
from nr_agent.export.formats import axolotl, messages, pretokenized
from nr_agent.export.masks import Mask
from nr_agent.export.rows import Codec, Row

Format = Literal["messages", "pretokenized", "axolotl"]
Build = Callable[[Episode, Mask, Codec | None], list[Row]]

FORMATS: Final[dict[Format, str]] = {
    "messages": "conversations, as TRL and OpenAI read them; text, without masks inside a message",
    "pretokenized": "input_ids, attention_mask and labels; the form that carries the mask token by token",
    "axolotl": "conversations in parts with a train flag each, as Axolotl reads them; text that carries the mask",
}
"""What each format is, in a line."""

_BUILDERS: Final[dict[Format, Build]] = {
    "messages": messages.build,
    "pretokenized": pretokenized.build,
    "axolotl": axolotl.build,
}


def build_rows(episode: Episode, format: Format, mask: Mask, codec: Codec | None = None) -> list[Row]:
    """The rows of an episode, at least one.

    Raises:
        Refused: the episode makes no row.
        ConfigurationError: the mask cuts steps apart, which needs the model's tokenizer, and there is none.
    """
    return _BUILDERS[format](episode, mask, codec)
