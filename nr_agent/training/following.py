"""What the teacher would write next, given what stands there already."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from nr_agent.answers import states_answer
from nr_agent.episode import Problem
from nr_agent.training.traces import TEACHERS, Habits, teach
from nr_agent.training.traces.arithmetic import apply
from nr_agent.training.traces.families import Attempt, countdown_attempts, parse_countdown

_LEAD = re.compile(r"^(First|Then|Next|Now) ")
_PAIR = re.compile(r"^\d+, \d+: ")
_CALCULATED = re.compile(r"^(?:\d+, \d+: )?-?\d+[-+*/]")
_SPELLED = re.compile(r"^(\S+): \S(?: \S)* has ")
_PLAIN = Habits(redo=0.0, slip=0.0, careful=0.0, repeat=0.0, passes=(1.0,), closing=0.0, stopped=0.0)
_LATER = ("Then ", "Next ", "Now ")


def missing_step(problem: Problem, before: str, rng: random.Random) -> str | None:
    """The first step of the teacher's way that was not written yet, without its lead; None if all were.

    Args:
        problem: of one of the teacher's families; of another one, nothing is known.
        before: what was thought so far.
        rng: the teacher has several ways.
    """
    if problem.task not in TEACHERS:
        return None
    way = teach(problem.task, problem.text, rng, _PLAIN)
    steps = (_LEAD.sub("", "".join(span.text for span in step)) for step in way.steps)
    return next((step for step in steps if not _stands(step, before)), None)


def attempt(problem: Problem, before: str, rng: random.Random) -> str | None:
    """An attempt at a countdown problem that was not made yet, far more often than not one that solves it."""
    numbers, target = parse_countdown(problem.text)
    fresh: list[Attempt] = []
    solving: list[Attempt] = []
    for made in countdown_attempts(numbers):
        if written(made) not in before:
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
    before = "".join(steps)
    if any(map(states_answer, steps)):
        return None
    if problem.task == "countdown":
        solved = _solved(problem, steps[-1]) if steps else None
        return attempt(problem, before, rng) if solved is None else f"So the answer is {solved}."
    missing = missing_step(problem, before, rng)
    return f"{_voice(steps, rng)}{missing}" if missing and _CALCULATED.match(missing) else missing


def written(made: Attempt) -> str:
    """An attempt's two calculations as they are written."""
    (a, op, b), (x, op2, y) = made.first, made.second
    return f"{a}{op}{b}={apply(a, op, b)}, {x}{op2}{y}={made.result}"


def verdict(result: int, target: int) -> str:
    """What is said of where an attempt ends."""
    return f"That is {target}." if result == target else f"Not {target}."


def _stands(step: str, before: str) -> bool:
    """Whether a step was written, or what it claims was, in a second look."""
    spelled = _SPELLED.match(step)
    return _PAIR.sub("", step) in before or (spelled is not None and f"So {spelled[1]} has " in before)


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
