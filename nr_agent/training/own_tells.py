"""What a model's own traces teach its telltale neurons: the checkers' labels, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nr_agent.answers import extract_answer, states_answer
from nr_agent.detection.labels import StepLabels, label_trace, results, wrong_comparison, wrong_equation
from nr_agent.detection.traces import Traced
from nr_agent.tasks import held_out
from nr_agent.training.corpus import IGNORED, UNTOLD, Example


def told_examples(tokenizer: Any, traces: Sequence[Traced], longest: int) -> list[Example]:
    """An example a trace: nothing of it counts in the language model's loss, and each of its steps is told.

    Args:
        tokenizer: the model's.
        traces: the model's own; those of problems that training must never see are left out, as longer ones are.
        longest: tokens of an example.
    """
    chosen = (traced for traced in traces if not held_out(traced.problem.text) and len(traced.ids) <= longest)
    return [told_example(tokenizer, traced) for traced in chosen]


def told_example(tokenizer: Any, traced: Traced) -> Example:
    """A trace, told: from where its slips show, where it repeats itself, and whether its answer is known.

    A slip whose place in the step is not known is told at the step's end. Without trial answers, what lies between the
    last steps before the answer and the answer is not known.
    """
    ids = list(traced.ids)
    example = Example(ids, [IGNORED] * len(ids), [UNTOLD] * len(ids))
    labels = label_trace(traced)
    known = _known(traced, labels)
    answered, seen = False, set[str]()
    for step, label, there in zip(traced.steps, labels, known, strict=True):
        if label.intra_step is None:  # cut before its end
            break
        own = results(step.text)
        # Without trial answers the labels do not know where the answer was reached.
        repeats = int(bool(own) and own <= seen and not answered and not label.intra_step)
        answered |= states_answer(step.text)
        seen |= own
        last = step.end - 2  # before the blank line
        shows = _shows(tokenizer, ids[step.start : step.end], step.text) if label.intra_step else len(ids)
        for place in range(step.start, last):
            slipped = IGNORED if shows is None else int(place - step.start >= shows)
            example.tells[place] = (
                slipped,
                0 if not repeats else IGNORED,
                there if there == 1 and answered else IGNORED,
            )
        if last >= step.start:
            example.tells[last] = (int(bool(label.intra_step)), repeats, there)
    return example


def _known(traced: Traced, labels: Sequence[StepLabels]) -> list[int]:
    """Whether the answer is known after each step: 1, 0, or unknown."""
    if any(step.trial is not None for step in traced.steps):
        return [IGNORED if label.instance is None else int(label.instance) for label in labels]
    stated = [number for number, step in enumerate(traced.steps) if states_answer(step.text)]
    if not stated or traced.answer is None:
        return [IGNORED] * len(labels)
    settled = all(extract_answer(traced.steps[number].text) == traced.answer for number in stated)
    first = stated[0]
    if traced.problem.task == "letter_counting":  # words without the letter may come last
        first = max((n for n in range(first) if results(traced.steps[n].text)), default=0)
    return [
        1 if number >= stated[0] and settled else 0 if number < first - 1 else IGNORED for number in range(len(labels))
    ]


def _shows(tokenizer: Any, ids: Sequence[int], text: str) -> int | None:
    """Number of the step's token at which a claim first differs from the right one; None where that is unknown."""
    place = _place(text)
    if place is None:
        return None
    reached = 0
    for number, token in enumerate(ids):
        reached += len(tokenizer.decode([token]))
        if reached > place:
            return number
    return None


def _place(text: str) -> int | None:
    """Where the sign of a wrong comparison stands, or the first wrong digit of an equation; None where unknown."""
    wrong, misjudged = wrong_equation(text), wrong_comparison(text)
    if misjudged is not None and (wrong is None or misjudged.sign_at < wrong.end):
        return misjudged.sign_at
    if wrong is None or wrong.value.denominator != 1:
        return None
    claimed, right = text[wrong.start : wrong.end].rpartition("=")[2].strip(), str(wrong.value)
    same = next(
        (i for i, (x, y) in enumerate(zip(claimed, right, strict=False)) if x != y), min(len(claimed), len(right))
    )
    return wrong.end - len(claimed) + same
