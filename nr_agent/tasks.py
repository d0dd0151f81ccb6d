"""Families of verifiable problems, and how an answer to one of them is scored.

A family is a `reasoning-gym` task with the settings that the embedded LRM is trained for. Problem `i`
of a family is a pure function of its seed, so a range of seeds is a data set:

* `TRAINING_SEEDS`: models are trained and detectors are fitted on these.
* `DEVELOPMENT_SEEDS`: model cards and reports are measured on these.
* `RESERVED_FROM` and above: acceptance only. Nothing in this package draws from there.

`reasoning-gym` is needed to draw and to score (`pip install nr-agent[tasks]`), not to solve.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nr_agent.episode import Problem
from nr_agent.errors import MissingExtraError, TaskError

TRAINING_SEEDS = range(0, 1_000_000)
FITTED_FROM = 500_000
"""First of the training seeds whose problems detectors are fitted on."""
DEVELOPMENT_SEEDS = range(1_000_000, 2_000_000)
RESERVED_FROM = 9_000_000

HELD_OUT_SHARE = 8
"""One problem text in this many is never trained on, whatever its seed: small families repeat."""

_ARITHMETIC = re.compile(r"[\d\s+\-*/().]{1,200}")


@dataclass(frozen=True)
class Family:
    """One kind of problem: the `reasoning-gym` task behind it and its settings."""

    name: str
    settings: dict[str, Any]
    about: str


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("chain_sum", {"min_terms": 3, "max_terms": 5, "min_digits": 1, "max_digits": 3}, "sums and differences"),
        Family("products", {"min_digits": 2, "max_digits": 3}, "products of two numbers"),
        Family("simple_equations", {"min_terms": 2, "max_terms": 2, "max_value": 30}, "linear equations"),
        Family("gcd", {"min_value": 2, "max_value": 400}, "greatest common divisors"),
        Family(
            "countdown",
            {
                "min_numbers": 3,
                "max_numbers": 3,
                "min_value": 1,
                "max_value": 20,
                "min_target": 10,
                "max_target": 99,
            },
            "a search: reach a target with given numbers",
        ),
        Family("letter_counting", {"min_words": 3, "max_words": 7}, "letters in a text, without much arithmetic"),
    )
}


def family_names(names: str | None = None) -> list[str]:
    """The families in a comma-separated list, each once, or all of them.

    Raises:
        TaskError: a name is not a family.
    """
    chosen = list(dict.fromkeys(name.strip() for name in names.split(","))) if names else list(FAMILIES)
    for name in chosen:
        if name not in FAMILIES:
            raise TaskError(f"there is no task {name!r}", hint=f"choose from: {', '.join(FAMILIES)}")
    return chosen


def trained_on(seeds: range) -> bool:
    """Whether some of these seeds are among those that models are trained and detectors are fitted on."""
    return seeds.start < TRAINING_SEEDS.stop and seeds.stop > TRAINING_SEEDS.start


def draw(family: str, seed: int) -> Problem:
    """Problem `seed` of a family; the same problem for the same seed, always.

    Raises:
        TaskError: the family is unknown.
        MissingExtraError: `reasoning-gym` is not installed.
    """
    return _problem(family, seed, _dataset(family)[seed])


def draw_many(family: str, seeds: range) -> Iterator[Problem]:
    """The problems of a range of seeds, in order."""
    return (draw(family, seed) for seed in seeds)


def held_out(question: str) -> bool:
    """Whether a problem text belongs to the share that training never sees."""
    return int.from_bytes(hashlib.sha256(question.encode()).digest()[:4], "big") % HELD_OUT_SHARE == 0


def score(problem: Problem, answer: str | None) -> bool:
    """Whether an answer is right, by `reasoning-gym`'s own scorer.

    Some of its scorers evaluate what they are given; an answer reaches those only when it is
    plain arithmetic (digits, `+ - * /`, brackets, no powers).
    """
    if answer is None or problem.task is None or problem.seed is None:
        return False
    text = answer.strip()
    if problem.task == "countdown" and (not _ARITHMETIC.fullmatch(text) or "**" in text or "//" in text):
        return False
    dataset = _dataset(problem.task)
    return bool(dataset.score_answer(text, dataset[problem.seed]) >= 0.99)


def _problem(family: str, seed: int, entry: dict[str, Any]) -> Problem:
    return Problem(text=entry["question"].strip(), reference=entry["answer"], domain="math", task=family, seed=seed)


@functools.cache
def _dataset(family: str) -> Any:
    if family not in FAMILIES:
        raise TaskError(f"there is no task {family!r}", hint=f"choose from: {', '.join(FAMILIES)}")
    try:
        import reasoning_gym  # noqa: PLC0415 - optional, and slow to import
    except ImportError as error:
        raise MissingExtraError("reasoning-gym", extra="tasks") from error
    # Item `i` of a data set with seed 0 is drawn from `random.Random(i)`, so the index is the seed.
    return reasoning_gym.create_dataset(family, size=2**31, seed=0, **FAMILIES[family].settings)
