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
from nr_agent.export.masks import Closes, Mask, Span, spans
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
    for span in spans(episode, "full") if mask == "clean" else ():
        if not _is_mixed(span):
            continue
        if codec is None:
            raise ConfigurationError(
                "mask 'clean' cuts inserted tokens out of steps, which needs the model's tokenizer",
                hint="give --tokenizer (or `codec=`), or choose another mask",
            )
        _check_made_by(codec, span.step)
    stay = [span for span in spans(episode, mask, closes=closes_by(codec)) if span.treatment != "remove"]
    if not any(span.treatment == "train" for span in stay):
        raise Refused("nothing to train on")
    return stay


def closes_by(codec: Codec | None) -> Closes | None:
    """Finds where ids close the thinking: at `</think>`, or at the first token of it where a model spells it out."""
    if codec is None:
        return None
    end_think = codec.control(END_THINK)

    def closes(ids: Sequence[int]) -> int | None:
        if end_think is not None:
            return ids.index(end_think) if end_think in ids else None
        end = next((end for end in range(1, len(ids) + 1) if END_THINK in codec.decode(ids[:end])), None)
        if end is None:
            return None
        return max(at for at in range(end) if END_THINK in codec.decode(ids[at:end]))

    return closes


def step_text(step: Step, codec: Codec | None, *, inserted: bool) -> str:
    """The text of a step, with or without what the controller inserted; a closing `</think>` always stays.

    Raises:
        Refused: the step must be cut apart, and the tokenizer is another model's.
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
    _check_made_by(codec, step)
    closes, start, kept = closes_by(codec), 0, list[int]()
    for provenance, length in step.provenance:
        ids = step.ids[start : start + length]
        start += length
        at = 0 if provenance != "inserted" or closes is None else closes(ids)
        kept += [] if at is None else ids[at:]
    return codec.decode(kept)


def made_by(codec: Codec, step: Step) -> bool:
    """Whether a step's text is what a tokenizer makes of its ids: only then can it cut the step apart."""
    return all(token >= 0 for token in step.ids) and codec.decode(step.ids) == step.text


def span_text(span: Span, codec: Codec | None) -> str | None:
    """The text of a span; None where only a tokenizer could tell.

    Raises:
        Refused: the step must be cut apart, and was redacted, or the tokenizer is another model's.
    """
    if span.whole:
        return span.step.text
    return None if codec is None else _decode(codec, span.ids, span.step)


def spell(episode: Episode, kept: list[Span], codec: Codec | None) -> list[str]:
    """The texts of spans, step by step: a step that is kept whole has the text that was stored."""
    texts = []
    for step in episode.kept:
        own = [span for span in kept if span.step is step]
        if sum(len(span.ids) for span in own) == len(step.ids):
            texts.append(step.text)
        else:
            texts.extend(_decode(codec, span.ids, step) for span in own if codec is not None)
    return texts


def question_of(episode: Episode) -> str:
    """The problem as a user's turn.

    Raises:
        Refused: as text it would become something else.
    """
    if _LOOK_ALIKE.search(episode.problem.text):
        raise Refused("the problem's text looks like a control token")
    if _is_conversation(episode):
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


def _decode(codec: Codec, ids: list[int], step: Step) -> str:
    """Some ids of a step as text, by the tokenizer that made its text."""
    _check_made_by(codec, step)
    return codec.decode(ids)


def _check_made_by(codec: Codec, step: Step) -> None:
    check_ids(step.ids)
    if not made_by(codec, step):
        raise Refused("thought with another tokenizer than the one that is to cut it")


def _is_conversation(episode: Episode) -> bool:
    """Whether the model saw more than the problem: an instruction, earlier turns, tools, turns of its own."""
    if episode.kept[0].index:
        return True  # no prompt of the run, but one that was made of what was thought before
    turns = episode.settings.get("turns")
    if isinstance(turns, int):
        return turns > 1 or bool(episode.settings.get("tools"))
    # An episode from before this was kept: a ChatML prompt has the problem's turn, and the one that is begun.
    return episode.kept[0].text.count(TURN_START) > 2


def _is_mixed(span: Span) -> bool:
    return span.provenance == "inserted" and (not span.whole or END_THINK in span.step.text)
