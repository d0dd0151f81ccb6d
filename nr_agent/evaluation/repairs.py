"""Whether a correction token is obeyed: what follows it at the places where the model itself failed.

A recheck is put in the place of the slipped step, which is taken back, and behind it; a branch in the place of the
circling step, left free and kept from writing what stands there (`fresh`, as the branch policy does it). Beside it
stands what the model does there without one: the slipped step taken back and drawn again, or one more step.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nr_agent.detection.grounding import is_second_look
from nr_agent.detection.labels import label_trace, results, slip, wrong_comparison, wrong_equation
from nr_agent.detection.traces import Traced
from nr_agent.engine.fresh import pieces
from nr_agent.engine.protocol import ExtendRequest, Sampling, StopSpec
from nr_agent.equations import comparisons, equations
from nr_agent.evaluation.statistics import wilson
from nr_agent.tokens import BRANCH, IN_DETAIL, RECHECK, REDO, STEP_END

_REMEDIES = ("recheck in place", "recheck behind", "branch", "fresh branch")
STEP_TOKENS = 512
"""As long as a graph lets a step become before it cuts it."""
_COUNT = re.compile(r"(?:(\S+): \S(?: \S)*|So (\S+)) has \d+")
_ASKED = re.compile(r'letter "(\w)"')
_TIMES = re.compile(r"\d+ is \d+\*\d+")


@dataclass(frozen=True)
class Repairs:
    """How often a remedy worked, beside what happens without it.

    Attributes:
        family: of the problems.
        remedy: `recheck in place`, `recheck behind`, `branch` or `fresh branch`.
        n: places.
        repaired: share that the remedy repaired.
        repaired_95: its interval.
        without: share that is repaired without it: the step drawn again, or one more step thought.
        without_95: its interval.
    """

    family: str
    remedy: str
    n: int
    repaired: float
    repaired_95: tuple[float, float]
    without: float
    without_95: tuple[float, float]


def measure_repairs(
    engine: Any, traces: Sequence[Traced], *, sampling: Sampling, a_family: int = 60, seed: int = 0
) -> list[Repairs]:
    """Put the right correction token behind the first slip, and the first circling step, of each trace.

    Args:
        engine: the model.
        traces: its own traces, labelled here.
        sampling: how the remedy is drawn.
        a_family: most places a family and remedy.
        seed: of the draws.
    """
    places: dict[tuple[str, str], list[tuple[Traced, int]]] = {}
    for traced in traces:
        labels = label_trace(traced)
        slipped = next((i for i, label in enumerate(labels) if label.intra_step and _plain(traced, i)), None)
        circling = next((i for i, label in enumerate(labels) if label.inter_step and i and _plain(traced, i)), None)
        for remedy in _REMEDIES:
            place = circling if "branch" in remedy else slipped
            cell = places.setdefault((traced.problem.task or "", remedy), [])
            if place is not None and len(cell) < a_family:
                cell.append((traced, place))
    return asyncio.run(_measure(engine, places, sampling, seed))


async def _measure(
    engine: Any, places: dict[tuple[str, str], list[tuple[Traced, int]]], sampling: Sampling, seed: int
) -> list[Repairs]:
    recheck, branch = engine.codec.control(RECHECK), engine.codec.control(BRANCH)
    spoken = {
        "recheck in place": [recheck, *engine.codec.encode(IN_DETAIL)],
        "recheck behind": [recheck, *engine.codec.encode(REDO)],
        "branch": [branch],
        "fresh branch": [branch],
    }

    async def step(ids: Sequence[int], force: Sequence[int], number: int, avoid: Sequence[Any] = ()) -> str:
        ref = engine.open(ids, seed=seed + number)
        stop = StopSpec(engine.codec.end_ids, (STEP_END,), STEP_TOKENS)
        drawn = replace(sampling, avoid=(*sampling.avoid, *avoid))
        segment = await asyncio.wrap_future(engine.submit(ExtendRequest(ref, stop, drawn, force, readings=False)))
        engine.close(segment.ref)
        text: str = engine.codec.decode(segment.ids[len(force[:1]) :])  # the words stay, the token goes
        return text

    found = []
    for (family, remedy), cell in sorted(places.items()):
        if not cell:
            continue
        told, alone = [], []
        for number, (traced, place) in enumerate(cell):
            kept = traced.steps[place]
            upto = kept.end if remedy == "recheck behind" else kept.start
            told.append(step(traced.ids[:upto], spoken[remedy], number, _written(traced, place, remedy)))
            alone.append(step(traced.ids[: kept.end if "branch" in remedy else kept.start], [], number))
        drawn_well = _leads_out if "branch" in remedy else _right
        worked = _mends if remedy == "recheck behind" else drawn_well
        with_it = [worked(t, p, text) for (t, p), text in zip(cell, await asyncio.gather(*told), strict=True)]
        without = [drawn_well(t, p, text) for (t, p), text in zip(cell, await asyncio.gather(*alone), strict=True)]
        n, a, b = len(cell), sum(with_it), sum(without)
        found.append(Repairs(family, remedy, n, a / n, wilson(a, n), b / n, wilson(b, n)))
    return found


def _written(traced: Traced, place: int, remedy: str) -> list[list[int]]:
    """What a fresh branch must not write again."""
    if remedy != "fresh branch":
        return []
    return pieces([(traced.ids[step.start : step.end], step.logprobs) for step in traced.steps[: place + 1]])


def as_markdown(rows: Sequence[Repairs]) -> str:
    """The rows as a table."""
    lines = ["| remedy | family | n | repaired | without it |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        told = f"{row.repaired:.0%} [{row.repaired_95[0]:.0%}, {row.repaired_95[1]:.0%}]"
        alone = f"{row.without:.0%} [{row.without_95[0]:.0%}, {row.without_95[1]:.0%}]"
        lines.append(f"| {row.remedy} | {row.family} | {row.n} | {told} | {alone} |")
    return "\n".join(lines)


def _plain(traced: Traced, place: int) -> bool:
    """Whether a step is no second look at another one, and not cut off by the end of the thinking."""
    text = traced.steps[place].text
    return text.endswith(STEP_END) and not any(word in text for word in ("redo", "double-check"))


def _mends(traced: Traced, place: int, text: str) -> bool:
    """The new step holds no slip, and says what the wrong claim should have been.

    What came after that claim in the wrong step may rest on it, and is not asked for.
    """
    before = traced.steps[place].text
    if not _right(traced, place, text):
        return False
    misjudged = wrong_comparison(before)
    if misjudged is not None and misjudged in comparisons(before)[:1]:
        pair = {misjudged.left, misjudged.right}
        return any(made.holds and {made.left, made.right} == pair for made in comparisons(text))
    wrong = wrong_equation(before)
    if wrong is not None:
        if wrong.value.denominator != 1:
            return f"{wrong.left} does not come out even" in text
        return wrong.left in {equation.left for equation in equations(text)}
    counted = _COUNT.search(before)
    if counted is None:
        return bool(equations(text))
    word, letter = counted[1] or counted[2], _ASKED.search(traced.problem.text)
    claims = re.findall(rf"{re.escape(word)}:? (?:[^,]* )?has (\d+)", text)
    return bool(claims) and letter is not None and int(claims[-1]) == word.lower().count(letter[1].lower())


def _right(traced: Traced, place: int, text: str) -> bool:
    """The step claims something, and no slip is in it."""
    says = _COUNT.search(text) or _TIMES.search(text) or "come out even" in text
    return bool(says or equations(text) or comparisons(text)) and _sound(traced, place, text)


def _leads_out(traced: Traced, place: int, text: str) -> bool:
    """The new step brings a result that was not there before."""
    seen = set().union(*(results(step.text) for step in traced.steps[: place + 1]))
    return bool(results(text) - seen) and _sound(traced, place, text)


def _sound(traced: Traced, place: int, text: str) -> bool:
    """Whether a step in the place of one, or behind it, holds no slip."""
    upto = place + 1 if is_second_look(text) else place
    return slip(text, traced.problem.text, [step.text for step in traced.steps[:upto]]) is None
