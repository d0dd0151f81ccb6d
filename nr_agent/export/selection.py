"""Which episodes an export looks at, and which of their rows stay: outcome, share of clean ones, copies, splits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nr_agent.episode import Episode
from nr_agent.errors import ConfigurationError
from nr_agent.export.contamination import NGRAM
from nr_agent.export.files import Files, check_files, default_files
from nr_agent.export.formats import FORMATS, Format
from nr_agent.export.masks import MASKS, Mask

if TYPE_CHECKING:
    from nr_agent.store import EpisodeFilter, EpisodeStore, EpisodeSummary

Outcome = Literal["correct", "wrong", "unknown", "recovered", "any"]
OUTCOMES: tuple[Outcome, ...] = ("correct", "wrong", "unknown", "recovered", "any")
"""`recovered`: a right answer after at least one intervention."""

Split = Literal["train", "validation"]

_RIGHT: dict[Outcome, bool | None] = {"correct": True, "recovered": True, "wrong": False, "unknown": None}


@dataclass(frozen=True)
class Choices:
    """Everything that an export depends on besides the episodes.

    Attributes:
        format: of the rows.
        mask: what is trained on.
        outcome: which outcomes are let in.
        filter: which episodes; completed ones unless it names a status.
        files: `jsonl` or `parquet`; None is what the format is usually kept in.
        validation: share of the problems whose rows are put aside for validation.
        mix_clean: at most this share of the rows is from episodes without any intervention; None lets all in.
        dedupe: of rows with the same content, only the first stays.
        against: benchmark files; problems that overlap one of theirs are left out.
        ngram: how many neighbouring words make an overlap.
    """

    format: Format = "messages"
    mask: Mask = "respond"
    outcome: Outcome = "correct"
    filter: EpisodeFilter | None = None
    files: Files | None = None
    validation: float = 0.0
    mix_clean: float | None = None
    dedupe: bool = False
    against: Sequence[str | Path] = field(default=())
    ngram: int = NGRAM

    @property
    def kept_in(self) -> Files:
        """What the rows are kept in."""
        return self.files or default_files(self.format)

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that are written."""
        return ("train", "validation") if self.validation else ("train",)

    def check(self) -> None:
        """See that the choices are there, and go together.

        Raises:
            ConfigurationError: they are not, or do not.
            MissingExtraError: Parquet without pyarrow.
        """
        check_choices(self.format, self.mask, self.outcome)
        check_files(self.format, self.kept_in)
        for name, share in (("validation", self.validation), ("mix_clean", self.mix_clean or 0.0)):
            if not 0 <= share < 1:
                raise ConfigurationError(f"{name} {share} is no share", hint="give a number from 0 to below 1")
        if self.ngram < 1:
            raise ConfigurationError(f"{self.ngram} neighbouring words are none", hint="give 1 or more; 13 is usual")


def select_episodes(
    store: EpisodeStore,
    outcome: Outcome = "correct",
    filter: EpisodeFilter | None = None,
) -> Iterator[Episode]:
    """The episodes that an export would look at, by id."""
    # Ids first: an episode that is added meanwhile does not change what is exported.
    ids = sorted(summary.id for summary in _find(store, outcome, filter))
    return (store.get(episode_id) for episode_id in ids)


def find_newest(
    store: EpisodeStore, outcome: Outcome = "correct", filter: EpisodeFilter | None = None
) -> EpisodeSummary | None:
    """The newest of the episodes that an export would look at."""
    return next(_find(store, outcome, filter), None)


def split_of(problem: str, validation: float) -> Split:
    """The split of a problem, by a hash of its text: all its episodes are in one split, in every export."""
    digest = hashlib.sha256(" ".join(problem.split()).encode(errors="replace")).digest()
    return "validation" if int.from_bytes(digest[:6], "big") < validation * 2**48 else "train"


def choose_clean(hashes: Sequence[str], intervened: int, share: float) -> Counter[str]:
    """Which rows of episodes without an intervention stay.

    Args:
        hashes: their content hashes, which also decide: the choice depends on nothing else.
        intervened: rows of episodes with an intervention, which all stay.
        share: of the clean rows among all, at most.

    Returns:
        Their hashes, each as often as it may be written.
    """
    most = int(share * intervened / (1 - share) + 1e-9)
    return Counter(sorted(hashes)[:most])


def check_choices(format: str, mask: str, outcome: str) -> None:
    """See that there is such a format, mask and outcome.

    Raises:
        ConfigurationError: there is not.
    """
    choices: tuple[tuple[str, str, list[str]], ...] = (
        ("format", format, list(FORMATS)),
        ("mask", mask, list(MASKS)),
        ("outcome", outcome, list(OUTCOMES)),
    )
    for name, value, known in choices:
        if value not in known:
            raise ConfigurationError(f"there is no {name} {value!r}", hint=f"choose from: {', '.join(known)}")


def _find(store: EpisodeStore, outcome: Outcome, filter: EpisodeFilter | None) -> Iterator[EpisodeSummary]:
    from nr_agent.store import EpisodeFilter  # noqa: PLC0415 - imports SQLAlchemy

    wanted = filter or EpisodeFilter()
    wanted = wanted if wanted.status is not None else wanted.model_copy(update={"status": "completed"})
    if outcome in ("correct", "wrong", "recovered"):
        wanted = wanted.model_copy(update={"correct": _RIGHT[outcome]})
    return (summary for summary in store.find(wanted) if _fits(summary, outcome))


def _fits(summary: EpisodeSummary, outcome: Outcome) -> bool:
    if outcome == "unknown":
        return summary.correct is None
    return outcome != "recovered" or summary.interventions > 0
