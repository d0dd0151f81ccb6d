"""Conversations, as TRL and OpenAI read them."""

from __future__ import annotations

from typing import TypedDict

from nr_agent.episode import Episode
from nr_agent.export.masks import Mask
from nr_agent.export.rows import Codec, Row, kept_spans, lineage_of, question_of, spell, without_turn_end
from nr_agent.tokens import THINK


class Turn(TypedDict):
    """A turn of a conversation."""

    role: str
    content: str


class MessagesRow(TypedDict):
    """A conversation of a question and its answer."""

    messages: list[Turn]


def build(episode: Episode, mask: Mask, codec: Codec | None) -> list[Row]:
    """The problem, and what was thought and answered, in one row."""
    kept = kept_spans(episode, mask, codec)
    question = question_of(episode)
    said = [span for span in kept if span.step.kind != "prompt"]
    content = without_turn_end("".join(spell(episode, said, codec)))
    # The template opens the thinking in the prompt.
    content = content if content.startswith(THINK) else f"{THINK}\n{content}"
    fields: MessagesRow = {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": content}]
    }
    trained = sum(len(span.ids) for span in said)
    tokens = sum(len(span.ids) for span in kept)
    return [Row(dict(fields), lineage_of(episode, dict(fields)), tokens=tokens, trained=trained)]
