"""What should follow a correction token at the places where a model itself failed.

The places are found by the labels on the model's own traces; the remedies are written by the teacher's rules, so
that they look like what the model has practised.
"""

from __future__ import annotations

import difflib
import random
import re
from collections.abc import Sequence
from typing import Any

from nr_agent.answers import states_answer
from nr_agent.detection.euclid import Pair
from nr_agent.detection.grounding import grounded, is_second_look, numbers_left
from nr_agent.detection.labels import label_trace, slip, wrong_comparison, wrong_equation
from nr_agent.detection.traces import Traced
from nr_agent.equations import Comparison, Equation, equations
from nr_agent.tasks import held_out
from nr_agent.tokens import BRANCH, OTHER_WAY, RECHECK, REDO, STEP_END
from nr_agent.training.corpus import IGNORED, UNTOLD, Example
from nr_agent.training.following import attempt, following, missing_step, verdict, written
from nr_agent.training.own_tells import told_example
from nr_agent.training.traces import TEACHERS
from nr_agent.training.traces.arithmetic import apply, by_doubling, compared, compared_by_digits, named, work_out
from nr_agent.training.traces.families import Attempt, countdown_attempts, look_through, parse_countdown

RIGHT, WRONG = "as I had", "not what I had"

_ATTEMPT = re.compile(r"(-?\d+)([-+*/])(-?\d+)=(-?\d+), (-?\d+)([-+*/])(-?\d+)=(-?\d+)\. (?:Not|That is) (-?\d+)")
_COUNTED = re.compile(r"(?:(\S+): \S(?: \S)*|So (\S+)) has \d+")
_TOTAL = re.compile(r"\d+\+\d+=(\d+)")
_TIMES = re.compile(r"\d+\*\d+=\d+")
_MULTIPLE = re.compile(r"(\d+) is (\d+)\*(\d+)(?!\s*[*\d])")
_ASKED = re.compile(r'letter "(\w)"')
_COMPARES = re.compile(r"(?:(?:First|Then|Next|Now) )?(\d+)[<>=]\d+: ")
_TOTAL_AGAIN = re.compile(r"(, as I had), \d+\+\d+=\d+$")


def own_examples(tokenizer: Any, traces: Sequence[Traced], seed: int = 0) -> list[Example]:
    """Examples of what to do after a trigger.

    A slip is followed by `<|recheck|>` and the step worked out; a step that circles (kept, or taken back first) by
    `<|branch|>` and one that was not written yet, and some slips, taken back, are too. As many sound steps as slips
    get a needless `<|recheck|>`, answered by a confirmation: a model that saw mostly slips there would "correct" what
    is right. Half of them are those of which the model was least sure, as a detector's false alarms are. Only the
    remedy counts in the loss, and the step that follows from it where that is known.

    Args:
        tokenizer: the model's, with the correction tokens.
        traces: the model's own.
        seed: of what is drawn.
    """
    rng = random.Random(seed)
    branches: list[Example] = []
    slips: list[Example] = []
    sound: list[tuple[float, Example]] = []
    for traced in traces:
        if held_out(traced.problem.text):
            continue
        before: list[str] = []
        labels = label_trace(traced)
        told = told_example(tokenizer, traced)
        for number, label in enumerate(labels):
            # A step that was cut, or that the thinking ends with: nothing is ever put behind it.
            if label.intra_step is None or _is_last(traced, number):
                break
            # What follows from a remedy is known where nothing else went wrong before it.
            known = not any(earlier.intra_step for earlier in labels[:number])
            # What repeats after an answer verifies it, with or without trial answers to tell.
            circles = label.inter_step and not label.intra_step and not any(map(states_answer, before))
            before.append(traced.steps[number].text)
            if circles:
                remedy = another_way(traced, number, rng)
                kept = number + 1 if rng.random() < 0.5 else number
                if remedy and kept:
                    branches.append(
                        _example(tokenizer, traced, told, kept, BRANCH, _on(traced, kept, remedy, known, rng))
                    )
                continue
            redone = _total_said_once(redo(traced, number))
            text, problem = traced.steps[number].text, traced.problem.text
            # A claim that holds, behind digits that were compared wrongly, is not answered by another one.
            unmended = WRONG not in (redone or "") and wrong_comparison(text) is None
            if label.intra_step and _misjudged(text) is None and (unmended or not grounded(text, problem, before[:-1])):
                redone = _redo_otherwise(traced, number, rng) or redone
            if redone is None or (WRONG in redone) != label.intra_step or slip(redone, problem, before):
                continue
            redone = _on(traced, number + 1, redone, known, rng)
            example = _example(tokenizer, traced, told, number + 1, RECHECK, redone)
            if label.intra_step:
                slips.append(example)
                given_up = another_way(traced, number - 1, rng) if number and rng.random() < 0.4 else None
                if given_up:
                    given_up = _on(traced, number, given_up, known, rng)
                    branches.append(_example(tokenizer, traced, told, number, BRANCH, given_up))
            else:
                sound.append((min(traced.steps[number].logprobs), example))
    return branches + slips + needless(sound, max(len(slips), 1), rng)


def needless(sound: Sequence[tuple[float, Example]], wanted: int, rng: random.Random) -> list[Example]:
    """So many examples of sound steps: half of them those of which the model was least sure, the others by chance.

    Args:
        sound: each with the lowest log-probability in its step.
        wanted: how many.
        rng: of what is drawn.
    """
    ordered = [example for _, example in sorted(sound, key=lambda entry: entry[0])]
    unsure, others = ordered[: (wanted + 1) // 2], ordered[(wanted + 1) // 2 :]
    return unsure + rng.sample(others, min(wanted // 2, len(others)))


def _on(traced: Traced, kept: int, remedy: str, known: bool, rng: random.Random) -> str:
    """A remedy behind the kept steps, with the step that follows from it where that is known.

    Without it a model that has mended a value goes on with the one that it had before.
    """
    steps = [*(step.text for step in traced.steps[:kept]), remedy]
    after = following(traced.problem, steps, rng) if known and traced.problem.task in TEACHERS else None
    return remedy if after is None else f"{remedy}{STEP_END}{after}"


def redo(traced: Traced, number: int) -> str | None:
    """What should follow a `<|recheck|>` after a step; None where the step claims nothing that can be redone.

    A second look is redone as the step that it looked at, and judged against what it said itself.
    """
    text = traced.steps[number].text
    if OTHER_WAY in text:
        return None
    if is_second_look(text):
        looked_at = number
        while looked_at and is_second_look(traced.steps[looked_at].text):
            looked_at -= 1
        again = _redo_first(traced, looked_at)
        return None if again is None else _judged(traced, number, again)
    return _redo_first(traced, number)


def _total_said_once(redone: str | None) -> str | None:
    """As the teacher says it: what was counted right is not added up again."""
    return None if redone is None else _TOTAL_AGAIN.sub(r"\1", redone)


def _redo_first(traced: Traced, number: int) -> str | None:
    text = traced.steps[number].text
    if any(phrase in text for phrase in (OTHER_WAY, REDO)):
        return None
    # A model that is still half taught writes another family's steps, too.
    if traced.problem.task == "countdown" and (match := _ATTEMPT.search(text)):
        return _redo_attempt(traced, number, match)
    if match := _COUNTED.search(text):
        return _redo_count(traced, number, match[1] or match[2], text)
    if (wrong := _misjudged(text)) is not None:
        digits = compared_by_digits(wrong.left, wrong.right)
        return f"{REDO}{digits}. So {compared(wrong.left, wrong.right)}, {WRONG}"
    left = numbers_left(traced.problem.text, [step.text for step in traced.steps[:number]])
    return _redo_calculation(text) if left is None else _redo_multiple(left, text) or _redo_calculation(text)


def _misjudged(text: str) -> Comparison | None:
    """The comparison of two numbers with which a step begins, where it does not hold."""
    begins, wrong = _COMPARES.match(text), wrong_comparison(text)
    return wrong if begins is not None and wrong is not None and wrong.sign_at == begins.end(1) else None


def _redo_multiple(left: Pair, text: str) -> str | None:
    """The largest multiple that goes into what is left, by doubling; None where the step takes it away already."""
    a, b, taken = left[:3]
    if taken is not None or b < 1 or a < 2 * b or not (_MULTIPLE.search(text) or _TIMES.search(text)):
        return None
    claim = f"{b}*{a // b}={a // b * b}"
    said = re.search(rf"(?<!\d){re.escape(claim)}(?!\d)", text)
    return f"{REDO}{by_doubling(a, b)}. So {claim}, {RIGHT if said else WRONG}"


def _redo_calculation(text: str) -> str | None:
    if match := _MULTIPLE.search(text):
        whole, times, divisor = map(int, match.groups())
        if not times or not divisor:
            return None  # nobody divides by nothing: there is no way to work it out
        worked, product = work_out(times, "*", divisor), times * divisor
        if product == whole:
            return f"{REDO}{by_doubling(whole, divisor)}. So {whole} is {times}*{divisor}, {RIGHT}"
        return f"{REDO}{worked}. So {times}*{divisor}={product}, {WRONG}"
    simple = [(equation, pair) for equation in equations(text) if (pair := _pair(equation)) is not None]
    if not simple:
        return None
    wrong = wrong_equation(text)
    equation, (a, op, b) = next((entry for entry in simple if entry[0] == wrong), simple[-1])
    verdict = RIGHT if equation.holds else WRONG
    return f"{REDO}{work_out(a, op, b)}. So {equation.left}={equation.value}, {verdict}"


def another_way(traced: Traced, number: int, rng: random.Random) -> str | None:
    """A step that was not written before; None where there is none.

    Of a search it is an attempt (the solution, far more often than not), of anything else the first step of the
    teacher's way that is still missing.
    """
    before = [step.text for step in traced.steps[: number + 1]]
    searched = traced.problem.task == "countdown"
    step = (attempt if searched else missing_step)(traced.problem, before, rng)
    return None if step is None else f"{OTHER_WAY} {step}"


def _redo_otherwise(traced: Traced, number: int, rng: random.Random) -> str | None:
    """What should stand in place of a right calculation with a number from nowhere."""
    missing = missing_step(traced.problem, [step.text for step in traced.steps[: number + 1]], rng)
    searched = missing is None or _ATTEMPT.search(missing) or _COUNTED.search(missing)
    if searched:
        return None
    left = numbers_left(traced.problem.text, [step.text for step in traced.steps[:number]])
    again = (left and _redo_multiple(left, str(missing))) or _redo_calculation(str(missing))
    return None if again is None else again.replace(f", {RIGHT}", f", {WRONG}")


def _redo_attempt(traced: Traced, number: int, made: re.Match[str]) -> str | None:
    """Both calculations of an attempt; the second one with the inner value as it really is.

    An attempt with numbers that are not the problem's is answered by the one that is most like it.
    """
    a, op, b, inner, x, op2, y, result, claimed = made.groups()
    numbers, target = parse_countdown(traced.problem.text)
    other = y if x == inner else x
    if sorted(map(int, (a, b, other))) != sorted(numbers):
        return _nearest_attempt(traced, number, (a, op, b, op2))
    try:
        first = apply(int(a), op, int(b))
    except (ValueError, ZeroDivisionError):
        return f"{REDO}{a}{op}{b} does not come out even, {WRONG}. Not {target}."
    second = [first if operand == inner and first != int(inner) else int(operand) for operand in (x, y)]
    head = f"{REDO}{named(int(a), op, int(b))}"
    try:
        value = apply(second[0], op2, second[1])
    except (ValueError, ZeroDivisionError):
        return (
            f"{head}. So {a}{op}{b}={first}, {second[0]}{op2}{second[1]} does not come out even, {WRONG}. Not {target}."
        )
    judged = verdict(value, target) in traced.steps[number].text
    right = judged and (first, value, target) == (int(inner), int(result), int(claimed))
    return (
        f"{head}, {named(second[0], op2, second[1])}. So {a}{op}{b}={first}, {second[0]}{op2}{second[1]}={value}, "
        f"{RIGHT if right else WRONG}. {verdict(value, target)}"
    )


def _nearest_attempt(traced: Traced, number: int, like: tuple[str, str, str, str]) -> str | None:
    numbers, target = parse_countdown(traced.problem.text)
    before = "".join(step.text for step in traced.steps[:number])
    unmade = [attempt for attempt in countdown_attempts(numbers) if written(attempt) not in before]
    if not unmade:
        return None

    def alike(attempt: Attempt) -> int:
        (a, op, b), (_, op2, _) = attempt.first, attempt.second
        return sum(one == other for one, other in zip((str(a), op, str(b), op2), like, strict=True))

    chosen = max(unmade, key=alike)
    worked = ", ".join(named(*part) for part in (chosen.first, chosen.second))
    return f"{REDO}{worked}. So {written(chosen)}, {WRONG}. {verdict(chosen.result, target)}"


def _judged(traced: Traced, number: int, again: str) -> str | None:
    """What was redone, judged against a second look instead of the step that it looked at."""
    text = traced.steps[number].text
    claim = again.removeprefix(REDO).rpartition("So ")[2]
    verdict = RIGHT if RIGHT in claim else WRONG
    said = claim.partition(f", {verdict}")[0]
    return again.replace(f", {verdict}", f", {RIGHT if said in text else WRONG}")


def _redo_count(traced: Traced, number: int, word: str, text: str) -> str | None:
    asked = _ASKED.search(traced.problem.text)
    if asked is None:
        return None
    words = re.findall(r"\w+", traced.problem.text.rpartition("text: ")[2])
    there = word.lower() in map(str.lower, words)
    if not there:  # the one that was meant
        word = next(iter(difflib.get_close_matches(word, words, 1, 0.5)), "")
        if not word:
            return None
    letter, spelled = asked[1].lower(), word.lower()
    count, total = spelled.count(letter), 0
    for step in traced.steps[:number]:
        if "answer is" in step.text:
            total = 0
        elif found := _TOTAL.findall(step.text):
            total = int(found[-1])
    claim = f"{REDO}{look_through(spelled, letter)}. So {word} has {count}"
    added = f", {total}+{count}={total + count}"
    said = f" has {count}{added if count else ''}"
    right = there and slip(text, traced.problem.text) is None and text.strip().endswith(said)
    # A total that had been added up wrongly would be gone on with, were it not said again, whatever the verdict.
    return f"{claim}, {RIGHT if right else WRONG}{added}"


def _is_last(traced: Traced, number: int) -> bool:
    """Whether the thinking ended within a step."""
    return number == len(traced.steps) - 1 and traced.closed and not traced.steps[number].text.endswith(STEP_END)


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


def _example(tokenizer: Any, traced: Traced, told: Example, kept: int, trigger: str, remedy: str) -> Example:
    end = traced.steps[kept - 1].end
    # The words that the controller inserts with the token are not learned either.
    spoken = REDO if trigger == RECHECK else ""
    inserted = [tokenizer.convert_tokens_to_ids(trigger), *tokenizer.encode(spoken, add_special_tokens=False)]
    body = tokenizer.encode(remedy.removeprefix(spoken) + STEP_END, add_special_tokens=False)
    return Example(
        [*traced.ids[:end], *inserted, *body],
        [*[IGNORED] * (end + len(inserted)), *body],
        [*told.tells[:end], *[UNTOLD] * (len(inserted) + len(body))],
    )
