"""The episode: one problem, thought through once, with everything that happened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from nr_agent.errors import ProblemError
from nr_agent.events import AnyFailureEvent

Provenance = Literal["prompt", "model", "inserted", "template"]
"""Where a token came from: the problem, the model, the controller, or the chat template."""

Run = tuple[Provenance, int]
"""A run of tokens with one provenance: what it is, and how many tokens."""

EpisodeStatus = Literal["running", "waiting", "completed", "failed", "interrupted", "abandoned"]
"""`waiting` is for a human's answer; `abandoned` is what a crashed process left running."""

StopReason = Literal[
    "finished",  # the model closed its thinking itself
    "early_stop",  # a policy closed it
    "token_budget",
    "step_budget",
    "time_budget",
    "context",
    "human",
    "error",
]

NOT_KEPT = "[not kept]"
"""Stands for a text that a store was not to keep; the ids of its tokens are negative."""


class Record(BaseModel):
    """Base of the records that cross a border (store, graph, command line): immutable and closed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Problem(Record):
    """What is to be solved.

    Attributes:
        text: the problem as the user states it.
        reference: the right answer, where it is known.
        domain: math, code, medicine, finance, ...; policies may look at it, it chooses none.
        task: the benchmark family that it was drawn from.
        seed: its seed in that family.
        metadata: anything else that should travel with it.
    """

    text: Annotated[str, StringConstraints(min_length=1)]
    reference: str | None = None
    domain: str = "general"
    task: str | None = None
    seed: int | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)

    @field_validator("text", mode="before")
    @classmethod
    def _is_text(cls, text: Any) -> Any:
        """No tokenizer and no database takes half a character.

        Raises:
            ProblemError: the text has a lone surrogate.
        """
        try:
            if isinstance(text, str):
                text.encode()
        except UnicodeEncodeError as error:
            raise ProblemError(
                f"the problem is not text: it has a lone surrogate at {error.start}",
                hint='decode its bytes with errors="replace"',
            ) from error
        return text


class ReadingSummary(Record):
    """What a step's readings amounted to, for one failure level's channels.

    Attributes:
        level: the failure level whose channels these are.
        tokens: readings in the step.
        mean: mean over tokens and channels of the standardised values.
        maximum: largest standardised value.
        minimum: smallest standardised value.
        std: standard deviation over tokens, averaged over the channels.
        score: the detector's score for the step, 0 to 1.
    """

    level: str
    tokens: int
    mean: float
    maximum: float
    minimum: float
    std: float
    score: float


class Step(Record):
    """A span of tokens that ends at a delimiter, a forced stop or a budget.

    Attributes:
        index: running number in the episode, from 0 (the prompt); never reused, also not after a rollback.
        kind: `prompt`, `think`, or `answer` (everything from the closing of the thinking on).
        branch: which line of thought it belongs to; `main` unless the episode was forked.
        start: absolute position of its first token in its branch.
        ids: token ids.
        provenance: run-length coded, the runs' lengths add up to `len(ids)`.
        logprobs: log-probability of each token that the model sampled, None for the others.
        text: the ids as text, for people; the ids are the truth.
        stop: why the engine stopped here: `stop_id`, `stop_string`, `length`, `context`, `forced`, `monitor`.
        discarded: rolled back, or on a branch that was given up: not part of the final sequence.
        readings: summaries of its readings, one a level.
    """

    index: int = Field(ge=0)
    kind: Literal["prompt", "think", "answer"] = "think"
    branch: str = "main"
    start: int = Field(ge=0)
    ids: list[int]
    provenance: list[Run]
    logprobs: list[float | None] = Field(default_factory=list)
    text: str = ""
    stop: str = ""
    discarded: bool = False
    readings: list[ReadingSummary] = Field(default_factory=list)

    def count(self, provenance: Provenance) -> int:
        """How many of its tokens have this provenance."""
        return sum(length for kind, length in self.provenance if kind == provenance)


class Intervention(Record):
    """An action carried out: what was inserted, rolled back or forked, and what came of it.

    Attributes:
        id: its identifier.
        kind: which remedy.
        event_id: the failure event that it answers, if one did.
        policy: the policy that decided it.
        step: index of the step after which it was carried out.
        position: absolute position at which tokens were inserted, or to which the sequence was rolled back.
        mode: `token` (a correction token) or `prompted` (plain text).
        inserted: the inserted token ids.
        rolled_back: how many tokens were taken back.
        branches: names of the branches that were opened.
        kept: the branch that was kept.
        outcome: what came of it, in a word: `changed`, `confirmed`, `unclear`, `closed`, `answered`.
    """

    id: str
    kind: Literal["recheck", "branch", "stop", "ask_human"]
    event_id: str | None = None
    policy: str
    step: int
    position: int
    mode: Literal["token", "prompted"] = "token"
    inserted: list[int] = Field(default_factory=list)
    rolled_back: int = 0
    branches: list[str] = Field(default_factory=list)
    kept: str | None = None
    outcome: str = "unclear"


class Usage(Record):
    """Where the tokens went. Every token that was generated or inserted is counted once.

    Attributes:
        prompt: tokens of the rendered problem.
        thinking: tokens that the model thought, on the line that was kept.
        answer: tokens of the answer.
        inserted: tokens that the controller inserted.
        discarded: tokens thought and given up: rolled back, or on a branch that lost.
    """

    prompt: int = 0
    thinking: int = 0
    answer: int = 0
    inserted: int = 0
    discarded: int = 0

    @property
    def output(self) -> int:
        """All tokens that were generated or inserted: the cost."""
        return self.thinking + self.answer + self.inserted + self.discarded

    @property
    def total(self) -> int:
        """Prompt and output together."""
        return self.prompt + self.output


class Episode(Record):
    """One problem, thought through once, with everything that happened."""

    id: str
    problem: Problem
    status: EpisodeStatus = "running"
    stop_reason: StopReason | None = None
    answer: str | None = None
    correct: bool | None = None
    model: str = ""
    fingerprint: str = ""
    detector: str | None = None
    policy: str | None = None
    seed: int = 0
    settings: dict[str, Any] = Field(default_factory=dict)
    usage: Usage = Usage()
    steps: list[Step] = Field(default_factory=list)
    events: list[AnyFailureEvent] = Field(default_factory=list)
    interventions: list[Intervention] = Field(default_factory=list)
    error: str | None = None
    thread_id: str | None = None
    created_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def kept(self) -> list[Step]:
        """The steps of the final sequence, in order."""
        return [step for step in self.steps if not step.discarded]

    @property
    def ids(self) -> list[int]:
        """The final sequence: prompt, thinking and answer."""
        return [token for step in self.kept for token in step.ids]


def measure_usage(steps: Iterable[Step]) -> Usage:
    """Count where the tokens of an episode went."""
    prompt = thinking = answer = inserted = discarded = 0
    for step in steps:
        if step.kind == "prompt":
            prompt += len(step.ids)
            continue
        if step.discarded:
            discarded += len(step.ids)
            continue
        forced = len(step.ids) - step.count("model")
        inserted += forced
        if step.kind == "answer":
            answer += len(step.ids) - forced
        else:
            thinking += len(step.ids) - forced
    return Usage(prompt=prompt, thinking=thinking, answer=answer, inserted=inserted, discarded=discarded)


def runs(provenances: Sequence[Provenance]) -> list[Run]:
    """Run-length code a provenance a token."""
    coded: list[Run] = []
    for kind in provenances:
        if coded and coded[-1][0] == kind:
            coded[-1] = (kind, coded[-1][1] + 1)
        else:
            coded.append((kind, 1))
    return coded
