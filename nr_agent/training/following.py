"""What the teacher would write next, given what stands there already."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence

from nr_agent.answers import states_answer
from nr_agent.detection.grounding import claims_of, counted_word, is_second_look
from nr_agent.detection.labels import slip, wrong_comparison
from nr_agent.episode import Problem
from nr_agent.tokens import OTHER_WAY
from nr_agent.training.traces import TEACHERS, Habits, teach
from nr_agent.training.traces.arithmetic import apply
from nr_agent.training.traces.families import Attempt, countdown_attempts, parse_countdown

_LEAD = re.compile(r"^(First|Then|Next|Now) ")
_PAIR = re.compile(r"^(?:\d+[<>=]\d+: )?\d+, \d+: ")
_CALCULATED = re.compile(rf"(?:{_PAIR.pattern})?-?\d+[-+*/]")
_BEGUN = re.compile(rf"^(?:{re.escape(OTHER_WAY)} )?(?:So )?(?:(?:First|Then|Next|Now) )?")
_VERDICT = re.compile(r", (?:as|not what) I had.*$")
_PLAIN = Habits(redo=0.0, slip=0.0, careful=0.0, repeat=0.0, passes=(1.0,), closing=0.0, stopped=0.0)
_LATER = ("Then ", "Next ", "Now ")


def missing_step(problem: Problem, before: Sequence[str], rng: random.Random) -> str | None:
    """The first step of the teacher's way that was not written yet, without its lead; None if all were.

    Args:
        problem: of one of the teacher's families; of another one, nothing is known.
        before: the steps that were thought so far.
        rng: the teacher has several ways.
    """
    if problem.task not in TEACHERS:
        return None
    way = teach(problem.task, problem.text, rng, _PLAIN)
    steps = (_LEAD.sub("", "".join(span.text for span in step)) for step in way.steps)
    claimed = {_claim(step) for step in before if wrong_comparison(step) is None}
    # A word that is there twice is counted twice; a second look at it counts it no more.
    counted = Counter(word for step in before if not is_second_look(step) and (word := counted_word(step)))
    for step in steps:
        word = counted_word(step)
        if not (_claim(step) in claimed if word is None else counted[word]):
            return step
        if word is not None:
            counted[word] -= 1
    return None


def attempt(problem: Problem, before: Sequence[str], rng: random.Random) -> str | None:
    """An attempt at a countdown problem that was not made yet, far more often than not one that solves it."""
    numbers, target = parse_countdown(problem.text)
    there = "".join(before)
    fresh: list[Attempt] = []
    solving: list[Attempt] = []
    for made in countdown_attempts(numbers):
        if written(made) not in there:
            (solving if made.result == target else fresh).append(made)
    pool = solving if solving and (rng.random() < 0.85 or not fresh) else fresh
    if not pool:
        return None
    chosen = rng.choice(pool)
    return f"Try {written(chosen)}. {verdict(chosen.result, target)}"


def following(problem: Problem, steps: Sequence[str], rng: random.Random) -> str | None:
    """The step that the teacher would go on with, in the voice of those that are there; None behind the answer.

    Args:
        problem: see `missing_step`.
        steps: what was thought so far, all of it without a slip that still counts.
        rng: of what is drawn.
    """
    if any(map(states_answer, steps)):
        return None
    if problem.task == "countdown":
        solved = _solved(problem, steps[-1]) if steps else None
        return attempt(problem, steps, rng) if solved is None else f"So the answer is {solved}."
    missing = missing_step(problem, steps, rng)
    if missing is None or slip(missing, problem.text, steps) is not None:
        return None  # where the work stands is not what the teacher's way takes it for
    return f"{_voice(steps, rng)}{missing}" if _CALCULATED.match(missing) else missing


def written(made: Attempt) -> str:
    """An attempt's two calculations as they are written."""
    (a, op, b), (x, op2, y) = made.first, made.second
    return f"{a}{op}{b}={apply(a, op, b)}, {x}{op2}{y}={made.result}"


def verdict(result: int, target: int) -> str:
    """What is said of where an attempt ends."""
    return f"That is {target}." if result == target else f"Not {target}."


def _claim(step: str) -> str:
    """What a step claims in the end, without what is said before and behind it."""
    return _PAIR.sub("", _VERDICT.sub("", _BEGUN.sub("", claims_of(step).strip())))


def _solved(problem: Problem, step: str) -> str | None:
    numbers, target = parse_countdown(problem.text)
    reached = (made for made in countdown_attempts(numbers) if made.result == target and written(made) in step)
    return next((made.expression for made in reached), None)


def _voice(steps: Sequence[str], rng: random.Random) -> str:
    """How the calculations of these steps begin."""
    leads = {match[1] for step in steps if (match := _LEAD.match(step))}
    if not leads:
        return ""
    return "Now " if leads == {"Now"} else rng.choice(_LATER)
