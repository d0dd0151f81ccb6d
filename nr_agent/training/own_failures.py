"""What should follow a correction token at the places where a model itself failed.

The places are found by the labels on the model's own traces; the remedies are written by the teacher's rules, so
that they look like what the model has practised.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

from nr_agent.detection.labels import label_trace, slip
from nr_agent.detection.traces import Traced
from nr_agent.equations import Equation, equations
from nr_agent.tasks import held_out
from nr_agent.tokens import BRANCH, RECHECK, STEP_END
from nr_agent.training.corpus import IGNORED, Example
from nr_agent.training.traces.arithmetic import apply, work_out
from nr_agent.training.traces.families import countdown_attempts, look_through, parse_countdown

REDO = "Let me redo that: "
OTHER_WAY = "Let me try another way."
RIGHT, WRONG = "as I had", "not what I had"

_ATTEMPT = re.compile(r"(-?\d+)([-+*/])(-?\d+)=(-?\d+), (-?\d+)([-+*/])(-?\d+)=(-?\d+)\. (?:Not|That is) (-?\d+)")
_COUNTED = re.compile(r"(?:(\S+): \S(?: \S)*|So (\S+)) has \d+")
_TOTAL = re.compile(r"\d+\+\d+=(\d+)")
_MULTIPLE = re.compile(r"(\d+) is (\d+)\*(\d+)")
_ASKED = re.compile(r'letter "(\w)"')
_SECOND_LOOK = ("redo", "double-check", OTHER_WAY)


def own_examples(tokenizer: Any, traces: Sequence[Traced], seed: int = 0) -> list[Example]:
    """Examples of what to do after a trigger.

    A slip is followed by `<|recheck|>` and the step worked out; a repeated attempt in a countdown problem (kept, or
    taken back first) by `<|branch|>` and an attempt that was not made yet. As many sound steps as slips get a needless
    `<|recheck|>`, answered by a confirmation: a model that saw mostly slips there would "correct" what is right. Half
    of them are those of which the model was least sure, as a detector's false alarms are. Only the remedy counts in
    the loss.

    Args:
        tokenizer: the model's, with the correction tokens.
        traces: the model's own.
        seed: of what is drawn.
    """
    rng = random.Random(seed)
    circling: list[Example] = []
    slips: list[Example] = []
    sound: list[tuple[float, Example]] = []
    for traced in traces:
        if held_out(traced.problem.text):
            continue
        for number, label in enumerate(label_trace(traced)):
            if label.inter_step and not label.intra_step and traced.problem.task == "countdown":
                remedy = another_way(traced, number, rng)
                kept = number + 1 if rng.random() < 0.5 else number
                circling += [_example(tokenizer, traced, kept, BRANCH, remedy)] if remedy and kept else []
                continue
            redone = redo(traced, number)
            if redone is None or (WRONG in redone) != label.intra_step:
                continue
            example = _example(tokenizer, traced, number + 1, RECHECK, redone)
            if label.intra_step:
                slips.append(example)
            else:
                sound.append((min(traced.steps[number].logprobs), example))
    sound.sort(key=lambda entry: entry[0])
    wanted = max(len(slips), 1)
    unsure, others = sound[: (wanted + 1) // 2], sound[(wanted + 1) // 2 :]
    needless = unsure + rng.sample(others, min(wanted // 2, len(others)))
    return circling + slips + [example for _, example in needless]


def redo(traced: Traced, number: int) -> str | None:
    """What should follow a `<|recheck|>` after a step; None where the step claims nothing that can be redone."""
    text = traced.steps[number].text
    if any(phrase in text for phrase in _SECOND_LOOK):
        return None
    if match := _ATTEMPT.search(text):
        return _redo_attempt(*match.groups())
    if match := _COUNTED.search(text):
        return _redo_count(traced, number, match[1] or match[2], text)
    if match := _MULTIPLE.search(text):
        whole, times, divisor = map(int, match.groups())
        worked, product = work_out(times, "*", divisor), times * divisor
        if product == whole:
            return f"{REDO}{worked}. So {whole} is {times}*{divisor}, {RIGHT}"
        return f"{REDO}{worked}. So {times}*{divisor}={product}, {WRONG}"
    simple = [(equation, pair) for equation in equations(text) if (pair := _pair(equation)) is not None]
    if not simple:
        return None
    equation, (a, op, b) = next((entry for entry in simple if not entry[0].holds), simple[-1])
    verdict = RIGHT if equation.holds else WRONG
    return f"{REDO}{work_out(a, op, b)}. So {equation.left}={equation.value}, {verdict}"


def another_way(traced: Traced, number: int, rng: random.Random) -> str | None:
    """An attempt at a countdown problem that was not made before; the solution, far more often than not."""
    numbers, target = parse_countdown(traced.problem.text)
    before = "".join(step.text for step in traced.steps[: number + 1])
    fresh: list[tuple[str, int]] = []
    solving: list[tuple[str, int]] = []
    for attempt in countdown_attempts(numbers):
        (a, op, b), (x, op2, y) = attempt.first, attempt.second
        written = f"{a}{op}{b}={apply(a, op, b)}, {x}{op2}{y}={attempt.result}"
        if written not in before:
            (solving if attempt.result == target else fresh).append((written, attempt.result))
    pool = solving if solving and (rng.random() < 0.85 or not fresh) else fresh
    if not pool:
        return None
    written, result = rng.choice(pool)
    return f"{OTHER_WAY} Try {written}. {_verdict(result, target)}"


def _redo_attempt(a: str, op: str, b: str, inner: str, x: str, op2: str, y: str, result: str, target: str) -> str:
    """Both calculations of an attempt; the second one with the inner value as it really is."""
    try:
        first = apply(int(a), op, int(b))
    except (ValueError, ZeroDivisionError):
        return f"{REDO}{a}{op}{b} does not come out even, {WRONG}. Not {target}."
    second = [first if operand == inner and first != int(inner) else int(operand) for operand in (x, y)]
    head = f"{REDO}{work_out(int(a), op, int(b))}"
    try:
        value = apply(second[0], op2, second[1])
    except (ValueError, ZeroDivisionError):
        return (
            f"{head}. So {a}{op}{b}={first}, {second[0]}{op2}{second[1]} does not come out even, {WRONG}. Not {target}."
        )
    right = (first, value) == (int(inner), int(result))
    return (
        f"{head}, {work_out(second[0], op2, second[1])}. So {a}{op}{b}={first}, {second[0]}{op2}{second[1]}={value}, "
        f"{RIGHT if right else WRONG}. {_verdict(value, int(target))}"
    )


def _redo_count(traced: Traced, number: int, word: str, text: str) -> str | None:
    asked = _ASKED.search(traced.problem.text)
    if asked is None:
        return None
    letter, spelled = asked[1].lower(), word.lower()
    count, total = spelled.count(letter), 0
    for step in traced.steps[:number]:
        if "answer is" in step.text:
            total = 0
        elif found := _TOTAL.findall(step.text):
            total = int(found[-1])
    claim = f"{REDO}{look_through(spelled, letter)}. So {word} has {count}"
    added = f", {total}+{count}={total + count}" if count else ""
    if slip(text, traced.problem.text) is None and text.strip().endswith(f" has {count}{added}"):
        return f"{claim}, {RIGHT}"
    return f"{claim}, {WRONG}{added}"


def _verdict(result: int, target: int) -> str:
    return f"That is {target}." if result == target else f"Not {target}."


def _pair(equation: Equation) -> tuple[int, str, int] | None:
    """The operands of `a op b`, where both and the result are whole."""
    for place in range(1, len(equation.left)):
        op = equation.left[place]
        if op in "+-*/" and equation.left[place - 1].isdigit():
            a, b = equation.left[:place], equation.left[place + 1 :]
            if equation.value.denominator == 1 and _whole(a) and _whole(b):
                return int(a), op, int(b)
            return None
    return None


def _whole(text: str) -> bool:
    return text.removeprefix("-").isdigit()


def _example(tokenizer: Any, traced: Traced, kept: int, trigger: str, remedy: str) -> Example:
    prefix = traced.ids[: traced.steps[kept - 1].end]
    body = tokenizer.encode(remedy + STEP_END, add_special_tokens=False)
    ids = [*prefix, tokenizer.convert_tokens_to_ids(trigger), *body]
    return ids, [*[IGNORED] * (len(prefix) + 1), *body]
