"""Conversations in parts, each with its `train` flag: the only text that carries a mask inside a message."""

from __future__ import annotations

from typing import TypedDict

from nr_agent.episode import Episode
from nr_agent.errors import ConfigurationError
from nr_agent.export.masks import Mask, Span
from nr_agent.export.rows import (
    Codec,
    Refused,
    Row,
    kept_spans,
    lineage_of,
    question_of,
    span_text,
    spell,
    without_turn_end,
)
from nr_agent.tokens import THINK


class Part(TypedDict):
    """A part of a turn. `train` is None where the turn's role decides."""

    type: str
    text: str
    train: bool | None


class PartedTurn(TypedDict):
    """A turn in parts. A user's has one: a column of a data set has one type."""

    role: str
    content: list[Part]


class AxolotlRow(TypedDict):
    """A conversation of a question and its answer, in parts."""

    messages: list[PartedTurn]


def build(episode: Episode, mask: Mask, codec: Codec | None) -> list[Row]:
    """The problem, and what was thought and answered, in one row."""
    kept = kept_spans(episode, mask, codec)
    question = question_of(episode)
    said = [span for span in kept if span.step.kind != "prompt"]
    parts = _parts(said, codec)
    if "".join(part["text"] for part in parts) != "".join(spell(episode, said, codec)):
        raise Refused("a border of the mask runs through a character")
    parts = _without_turn_end(parts)
    if not parts[0]["text"].startswith(THINK):
        # The template opens the thinking in the prompt, where it is not trained.
        parts = _merge([{"type": "text", "text": f"{THINK}\n", "train": False}, *parts])
    # Not False: Axolotl trains the end of every turn that has a flag. Without one, it goes by the role.
    asked: Part = {"type": "text", "text": question, "train": None}
    fields: AxolotlRow = {"messages": [{"role": "user", "content": [asked]}, {"role": "assistant", "content": parts}]}
    trained = sum(len(span.ids) for span in said if span.treatment == "train")
    tokens = sum(len(span.ids) for span in kept)
    return [Row(dict(fields), lineage_of(episode, dict(fields)), tokens=tokens, trained=trained)]


def _parts(said: list[Span], codec: Codec | None) -> list[Part]:
    parts: list[Part] = []
    for span in said:
        text = span_text(span, codec)
        if text is None:
            raise ConfigurationError(
                "format 'axolotl' cuts steps at the borders of the mask, which needs the model's tokenizer",
                hint="give --tokenizer (or `codec=`), or choose another format",
            )
        parts.append({"type": "text", "text": text, "train": span.treatment == "train"})
    return _merge(parts)


def _merge(parts: list[Part]) -> list[Part]:
    merged: list[Part] = []
    for part in parts:
        if merged and merged[-1]["train"] == part["train"]:
            merged[-1] = {**merged[-1], "text": merged[-1]["text"] + part["text"]}
        elif part["text"]:
            merged.append(part)
    return merged


def _without_turn_end(parts: list[Part]) -> list[Part]:
    *head, last = parts
    text = without_turn_end(last["text"])
    return [*head, {**last, "text": text}] if text else head
