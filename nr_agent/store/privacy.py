"""What of an episode is kept: everything, what a redactor lets through, or no text at all.

It is decided before anything is queued: what is left out is neither in the database, nor in the file of records that
wait beside it, nor in the log. Token ids are text in another form, so the ids of a changed text become `REDACTED`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nr_agent.episode import NOT_KEPT, Episode, Intervention, Problem, Step
from nr_agent.events import FailureEvent
from nr_agent.store.cleaning import clean_json

Redactor = Callable[[str], str]
"""Gives a text back without what must not be kept. It sees every text of an episode, one at a time."""

REDACTED = -1
"""Stands for a token whose id was not kept."""


class Privacy:
    """What a store keeps.

    Args:
        redact: what it changes in a text is not kept.
        keep_text: False keeps no text, no answer and no token id: numbers, kinds and hashes only.
    """

    def __init__(self, redact: Redactor | None = None, *, keep_text: bool = True) -> None:
        self.redact = redact
        self.keep_text = keep_text

    @property
    def kept(self) -> str | None:
        """As the episodes' column `kept` says it."""
        return "no_text" if not self.keep_text else "redacted" if self.redact is not None else None

    @property
    def keeps_everything(self) -> bool:
        """Whether nothing is left out."""
        return self.kept is None

    def head(self, episode: Episode) -> Episode:
        """An episode's head as it is kept."""
        if self.keeps_everything:
            return episode
        problem = episode.problem
        own = Problem(
            text=self.text(problem.text) or NOT_KEPT,
            reference=self.optional(problem.reference),
            domain=problem.domain,
            task=problem.task,
            # A seed says which problem it was.
            seed=problem.seed if self.keep_text else None,
            metadata=self.values(clean_json(problem.metadata)) if self.keep_text else {},
        )
        change = {"problem": own, "answer": self.optional(episode.answer), "error": self.optional(episode.error)}
        return episode.model_copy(update=change | {"settings": self.values(clean_json(episode.settings))})

    def record(self, record: Step | FailureEvent | Intervention) -> Step | FailureEvent | Intervention:
        """A record as it is kept."""
        if self.keeps_everything:
            return record
        if isinstance(record, Step):
            return self._step(record)
        if isinstance(record, FailureEvent):
            evidence = record.evidence.model_copy(update={"text": self.text(record.evidence.text)})
            channels = [_without_words(one) for one in evidence.channels] if not self.keep_text else evidence.channels
            return record.model_copy(update={"evidence": evidence.model_copy(update={"channels": channels})})
        if self.keep_text:
            return record
        # What a controller inserted is one of few texts, but a human's answer is inserted too.
        return record.model_copy(update={"inserted": [REDACTED] * len(record.inserted)})

    def text(self, text: str) -> str:
        """A text as it is kept."""
        if not text or self.keeps_everything:
            return text
        if not self.keep_text:
            return NOT_KEPT
        return self.redact(text) if self.redact is not None else text

    def optional(self, text: str | None) -> str | None:
        """A text that may be missing, as it is kept."""
        return None if text is None else self.text(text)

    def values(self, value: Any) -> Any:
        """Free-form values as they are kept: every text in them, keys excepted."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self.values(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.values(item) for item in value]
        return value

    def _step(self, step: Step) -> Step:
        text = self.text(step.text)
        if text == step.text and self.keep_text:
            return step
        return step.model_copy(update={"text": text, "ids": [REDACTED] * len(step.ids)})


def _without_words(channel: Any) -> Any:
    return channel.model_copy(update={"writes": []}) if "writes" in type(channel).model_fields else channel
