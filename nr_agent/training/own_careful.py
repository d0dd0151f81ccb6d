"""What should stand in the place of a step that was taken back: the same step, right, and worked out at length."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nr_agent.answers import states_answer
from nr_agent.detection.grounding import grounded, is_second_look, numbers_left
from nr_agent.detection.labels import label_trace, slip
from nr_agent.detection.traces import Traced
from nr_agent.tasks import held_out
from nr_agent.tokens import IN_DETAIL, RECHECK, REDO, STEP_END
from nr_agent.training.corpus import IGNORED, UNTOLD, Example
from nr_agent.training.following import following
from nr_agent.training.own_failures import RIGHT, WRONG, needless, redo
from nr_agent.training.own_tells import told_example
from nr_agent.training.traces.families import parse_gcd, round_at_length

_ONE = re.compile(r"So (-?\d+[-+*/]-?\d+)=-?\d+$")
_NAMED = re.compile(r"-?\d+[-+*/]-?\d+: ")
_NOTHING_ADDED = re.compile(r", (\d+)\+0=\1$")
_TIMES = re.compile(r"\d+ is \d+\*\d+")


def careful_examples(tokenizer: Any, traces: Sequence[Traced], seed: int = 0) -> list[Example]:
    """A slip, taken back and answered by `<|recheck|>` and the careful step; and as many sound steps that are, too.

    Half of the sound ones are those of which the model was least sure, as a detector's false alarms are. Only the
    careful step counts in the loss, and the step that follows from it where that is known.

    Args:
        tokenizer: the model's, with the correction tokens.
        traces: the model's own.
        seed: of what is drawn.
    """
    rng = random.Random(seed)
    slips: list[Example] = []
    sound: list[tuple[float, Example]] = []
    for traced in traces:
        if held_out(traced.problem.text):
            continue
        labels = label_trace(traced)
        told = told_example(tokenizer, traced)
        for number, label in enumerate(labels):
            if label.intra_step is None:  # cut before its end
                break
            known = not any(earlier.intra_step for earlier in labels[:number])
            careful = careful_step(traced, number, bool(label.intra_step), known, rng)
            if careful is None:
                continue
            after = following(traced.problem, [*_texts(traced, number), careful], rng) if known else None
            remedy = careful if after is None else f"{careful}{STEP_END}{after}"
            example = _example(tokenizer, told, traced.steps[number].start, remedy)
            if label.intra_step:
                slips.append(example)
            else:
                sound.append((min(traced.steps[number].logprobs), example))
    return slips + needless(sound, max(len(slips), 1), rng)


def careful_step(traced: Traced, number: int, slipped: bool, known: bool, rng: random.Random) -> str | None:
    """The step that should stand there, worked out at length; None where there is none to be worked out.

    Args:
        traced: a trace.
        number: of the step.
        slipped: whether it holds a slip.
        known: whether no step before it does.
        rng: the teacher has several ways.
    """
    text, before = traced.steps[number].text, _texts(traced, number)
    if is_second_look(text) or states_answer(text):
        return None
    if slipped and (_TIMES.search(text) or not grounded(text, traced.problem.text, before)):
        # What it worked with was wrong already: what the teacher would go on with stands in its place; or, where the
        # work stands elsewhere, what is due there.
        text = (following(traced.problem, before, rng) if known else None) or _due(traced.problem.text, before)
    step = replace(traced.steps[number], text=text + STEP_END)
    again = redo(replace(traced, steps=[*traced.steps[:number], step]), number)
    if again is None:
        return None
    careful = again.removeprefix(REDO).replace(f", {RIGHT}", "", 1).replace(f", {WRONG}", "", 1)
    careful = _NOTHING_ADDED.sub("", careful)
    if (named := _ONE.search(careful)) and not _NAMED.match(careful):
        careful = f"{named[1]}: {careful}"
    left = numbers_left(traced.problem.text, before)
    if left is not None and left.multiple is None:  # a round of Euclid's begins
        asked = parse_gcd(traced.problem.text)
        worked = round_at_length(left.larger, left.smaller, asked, turned=left.turned)
        careful = f"{worked}. So {careful.rpartition('So ')[2]}"
    return None if slip(careful, traced.problem.text, before) else careful


def _due(problem: str, before: Sequence[str]) -> str:
    """What Euclid goes on with from the two numbers that are left, wherever they are from; empty for other problems."""
    left = numbers_left(problem, before)
    if left is None or left.smaller < 1:
        return ""
    larger, smaller = left.larger, left.smaller
    if left.multiple is not None:
        return f"{larger}-{left.multiple}={larger - left.multiple}" if left.multiple <= larger else ""
    times = larger // smaller
    return f"{larger}-{smaller}={larger - smaller}" if times == 1 else f"{smaller}*{times}={smaller * times}"


def _texts(traced: Traced, number: int) -> list[str]:
    return [step.text for step in traced.steps[:number]]


def _example(tokenizer: Any, told: Example, start: int, remedy: str) -> Example:
    words = tokenizer.encode(IN_DETAIL, add_special_tokens=False)
    inserted = [tokenizer.convert_tokens_to_ids(RECHECK), *words]
    body = tokenizer.encode(remedy + STEP_END, add_special_tokens=False)
    return Example(
        [*told.ids[:start], *inserted, *body],
        [*[IGNORED] * (start + len(inserted)), *body],
        [*told.tells[:start], *[UNTOLD] * (len(inserted) + len(body))],
    )
