"""What the rows of every training format are made of."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nr_agent.episode import NOT_KEPT, Episode, Step
from nr_agent.errors import ConfigurationError
from nr_agent.export.masks import Mask, Span, spans
from nr_agent.tokens import CORRECTION_TOKENS, END_THINK, TURN_START

# Whatever some tokenizer may read as one control token, once this text is training data.
# (U+FF5C is the bar of DeepSeek's tokens.)
_NAMED = r"<[|\uff5c][^<>|\uff5c\s]{1,40}[|\uff5c]>"
_LOOK_ALIKE = re.compile(rf"{_NAMED}|</?think>|</?s>|<(?:start|end)_of_turn>")
_TURN_END = re.compile(rf"(?:{_NAMED}|</s>|<end_of_turn>)\s*$")
_BROKEN = "\ufffd"


class Codec(Protocol):
    """Ids as text, by the tokenizer of the model that thought them. Every engine's codec is one."""

    def decode(self, ids: Sequence[int]) -> str:
        """Ids as text, control tokens visible."""
        ...

    def control(self, token: str) -> int | None:
        """Id of a control token, or None where the tokenizer has none by that name."""
        ...


class Refused(Exception):  # noqa: N818 - no error: an episode that makes no row
    """An episode makes no row of this format; the message is the reason, as the manifest counts it."""


@dataclass(frozen=True)
class Row:
    """A row of training data and where it comes from.

    Attributes:
        fields: what is trained on.
        lineage: `nr_*` fields: the episode, a hash of the content alone, the domain, the outcome.
        tokens: length of the row.
        trained: tokens that are trained on; in `messages`, those of the assistant's turn.
    """

    fields: dict[str, Any]
    lineage: dict[str, Any]
    tokens: int
    trained: int


def kept_spans(episode: Episode, mask: Mask, codec: Codec | None) -> list[Span]:
    """The spans of an episode that stay in a row, after the checks that every format makes.

    Raises:
        Refused: the episode makes no row.
        ConfigurationError: the mask cuts steps apart, which needs the model's tokenizer, and there is none.
    """
    check_whole(episode)
    end_think = codec.control(END_THINK) if codec is not None else None
    if mask == "clean" and codec is None and any(_is_mixed(span) for span in spans(episode, "full")):
        raise ConfigurationError(
            "mask 'clean' cuts inserted tokens out of steps, which needs the model's tokenizer",
            hint="give --tokenizer (or `codec=`), or choose another mask",
        )
    stay = [span for span in spans(episode, mask, end_think=end_think) if span.treatment != "remove"]
    if not any(span.treatment == "train" for span in stay):
        raise Refused("nothing to train on")
    return stay


def step_text(step: Step, codec: Codec | None, *, inserted: bool) -> str:
    """The text of a step, with or without what the controller inserted; a closing `</think>` always stays.

    Raises:
        ConfigurationError: the step must be cut apart, which needs the model's tokenizer, and there is none.
    """
    forced = step.count("inserted")
    if inserted or not forced:
        return step.text
    if forced == len(step.ids) and END_THINK not in step.text:
        return ""
    if codec is None:
        raise ConfigurationError(
            "inserted tokens are cut out of steps, which needs the model's tokenizer",
            hint="give --tokenizer (or `codec=`), or choose another mask",
        )
    end_think, start, kept = codec.control(END_THINK), 0, list[int]()
    for provenance, length in step.provenance:
        ids = step.ids[start : start + length]
        start += length
        if provenance != "inserted":
            kept += ids
        elif end_think in ids:
            kept += ids[ids.index(end_think) :]
    return _decode(codec, kept)


def span_text(span: Span, codec: Codec | None) -> str | None:
    """The text of a span; None where only a tokenizer could tell."""
    if span.whole:
        return span.step.text
    return None if codec is None else _decode(codec, span.ids)


def spell(episode: Episode, kept: list[Span], codec: Codec | None) -> list[str]:
    """The texts of spans, step by step: a step that is kept whole has the text that was stored."""
    texts = []
    for step in episode.kept:
        own = [span for span in kept if span.step is step]
        if sum(len(span.ids) for span in own) == len(step.ids):
            texts.append(step.text)
        else:
            texts.extend(_decode(codec, span.ids) for span in own if codec is not None)
    return texts


def question_of(episode: Episode) -> str:
    """The problem as a user's turn.

    Raises:
        Refused: as text it would become something else.
    """
    if _LOOK_ALIKE.search(episode.problem.text):
        raise Refused("the problem's text looks like a control token")
    if episode.kept[0].text.count(TURN_START) > 2:
        raise Refused("a conversation before the problem")
    return episode.problem.text


def without_turn_end(content: str) -> str:
    """What was said, without the token that ends the turn: templates write it themselves."""
    ending = _TURN_END.search(content)
    if ending and ending.group().strip() not in CORRECTION_TOKENS:
        return content[: ending.start()]
    return content


def lineage_of(episode: Episode, fields: dict[str, Any]) -> dict[str, Any]:
    """Where a row comes from."""
    content = json.dumps(fields, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return {
        "nr_episode_id": episode.id,
        # Of the content alone: two episodes that make the same row have the same hash.
        "nr_content_hash": hashlib.sha256(content.encode()).hexdigest(),
        "nr_domain": episode.problem.domain,
        "nr_task": episode.problem.task,
        "nr_outcome": {True: "correct", False: "wrong", None: "unknown"}[episode.correct],
        "nr_model": episode.model,
        "nr_fingerprint": episode.fingerprint,
        "nr_interventions": len(episode.interventions),
    }


def check_ids(ids: Sequence[int]) -> None:
    """See that tokens were kept.

    Raises:
        Refused: a redactor changed their text.
    """
    if any(token < 0 for token in ids):
        raise Refused("tokens were redacted")


def check_whole(episode: Episode) -> None:
    """See that an episode is all there.

    Raises:
        Refused: it is not.
    """
    kept = episode.kept
    if not kept or kept[0].kind != "prompt":
        raise Refused("the prompt is missing")
    position = 0
    for step in kept:
        if step.start != position or sum(length for _, length in step.provenance) != len(step.ids):
            raise Refused("steps are missing")
        position += len(step.ids)
    if any(step.text == NOT_KEPT for step in kept):
        raise Refused("the text was not kept")
    if any(_BROKEN in step.text for step in kept):
        raise Refused("the text cannot be written as Unicode")
    if not any(END_THINK in step.text for step in kept if step.kind != "prompt"):
        raise Refused("the thinking was not closed")


def _decode(codec: Codec, ids: list[int]) -> str:
    check_ids(ids)
    return codec.decode(ids)


def _is_mixed(span: Span) -> bool:
    return span.provenance == "inserted" and (not span.whole or END_THINK in span.step.text)
