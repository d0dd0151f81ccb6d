"""The training formats: a module each, and the list of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from nr_agent.episode import Episode
from nr_agent.export.formats import atif, axolotl, inspect_log, messages, preference, pretokenized, stepwise
from nr_agent.export.masks import Mask
from nr_agent.export.rows import Codec, Row

Format = Literal["messages", "pretokenized", "axolotl", "preference", "stepwise", "atif", "inspect"]
Build = Callable[[Episode, Mask, Codec | None], list[Row]]

FORMATS: Final[dict[Format, str]] = {
    "messages": "conversations, as TRL and OpenAI read them; text, without masks inside a message",
    "pretokenized": "input_ids, attention_mask and labels; the form that carries the mask token by token",
    "axolotl": "conversations in parts with a train flag each, as Axolotl reads them; text that carries the mask",
    "preference": "pairs of what was kept and what was given up after the same beginning, as DPO reads them",
    "stepwise": "problem, steps and the index of the first wrong one, in the shape of ProcessBench",
    "atif": "trajectories in the Agent Trajectory Interchange Format 1.8, for other tools",
    "inspect": "an evaluation log for Inspect's viewer and data frames",
}
"""What each format is, in a line."""

APART: Final[frozenset[Format]] = frozenset({"pretokenized", "atif", "inspect"})
"""Formats whose readers take their own fields and no others: where a row comes from is told in a file beside them."""

UNTRAINED: Final[frozenset[Format]] = frozenset({"stepwise", "atif", "inspect"})
"""Formats that tell what happened and carry no mask."""

_BUILDERS: Final[dict[Format, Build]] = {
    "messages": messages.build,
    "pretokenized": pretokenized.build,
    "axolotl": axolotl.build,
    "preference": preference.build,
    "stepwise": stepwise.build,
    "atif": atif.build,
    "inspect": inspect_log.build,
}


def build_rows(episode: Episode, format: Format, mask: Mask, codec: Codec | None = None) -> list[Row]:
    """The rows of an episode, at least one.

    Raises:
        Refused: the episode makes no row.
        ConfigurationError: the mask cuts steps apart, which needs the model's tokenizer, and there is none.
    """
    return _BUILDERS[format](episode, mask, codec)
