"""Labels of steps that no judge is needed for, each with its limits.

* Slips: every equation in a step is checked in exact rationals, every comparison (`4<5`), every `a is b*c`, and every
  count of letters. An operand that was copied wrongly is seen where the problem says what there is to work with
  (`grounding`); a wrong operand elsewhere is not: that is a limit of the label.
* Circling: a step whose results were all there before, while the answer was never reached. Verification after
  the answer was first reached is not circling but overthinking. Of a trace that was cut, the right answer counts.
* Overthinking: a trial answer after the step already equals the final answer, and stays so to the end. Of a trace that
  was cut before it ended there is no final answer, only the last trial's: what it would have come to is not known.

A step that was cut before its end has no label: `10*6=6` may have been going to be `10*6=60`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nr_agent.answers import same_answer
from nr_agent.detection.grounding import grounded
from nr_agent.detection.traces import Traced
from nr_agent.episode import Problem
from nr_agent.equations import Comparison, Equation, comparisons, equations
from nr_agent.events import LEVELS, Level
from nr_agent.tasks import score
from nr_agent.tokens import STEP_END

_SPELLED = re.compile(r"(?P<word>\S+): (?P<letters>\S(?: \S)*) has (?P<count>\d+)")
_LOOKED = re.compile(
    r"(?P<letter>\w) in (?P<looks>\w (?:no|yes \d+)(?:, \w (?:no|yes \d+))*)\. So (?P<word>\S+) has (?P<count>\d+)"
)
_ASKED_LETTER = re.compile(r'letter "(\w)"')
_SEARCH = re.compile(r"numbers:? \d")
_VERDICT = re.compile(r"=(?P<result>-?\d+)\. (?P<verdict>Not|That is) (?P<target>-?\d+)")
_MULTIPLE = re.compile(r"(?P<whole>\d+) is (?P<times>\d+)\*(?P<divisor>\d+)(?!\s*[*\d])")
_RESULT = re.compile(r"[-+*/()\d]+=-?\d+")
_OPERATOR = re.compile(r"[-+*/]")


@dataclass
class StepLabels:
    """What is true of a step, None where it does not apply.

    Attributes:
        intra_step: it holds a slip; None where it was cut before its end.
        kind: which slip.
        inter_step: it brings nothing new, and the answer was not reached before it; None where it was cut.
        instance: the final answer was already there when it ended; None where the trace did not come to one.
    """

    intra_step: bool | None
    kind: Literal["calculation", "derivation"] | None
    inter_step: bool | None
    instance: bool | None

    def of(self, level: Level) -> bool | None:
        """The label for a level."""
        return {"intra_step": self.intra_step, "inter_step": self.inter_step, "instance": self.instance}[level]


def slip(
    text: str, problem: str = "", before: Sequence[str] | None = None
) -> Literal["calculation", "derivation"] | None:
    """The slip in a step's text, if it holds one that can be checked.

    Args:
        text: the step.
        problem: the problem's text, for counts of what it asks for, and for what is said in a search; without one,
            what looks like either is taken for it.
        before: the steps before it, for what it may calculate with; None: that is not asked.
    """
    if wrong_comparison(text) is not None or any(not equation.holds for equation in equations(text)):
        return "calculation"
    asked = _ASKED_LETTER.search(problem)
    for match in _SPELLED.finditer(text) if asked or not problem else ():
        letters = match["letters"].replace(" ", "")
        if letters != match["word"].lower():
            return "derivation"
        if asked and letters.count(asked.group(1).lower()) != int(match["count"]):
            return "calculation"
    for match in _LOOKED.finditer(text):
        if kind := _looked_wrong(match, asked):
            return kind
    for match in _MULTIPLE.finditer(text):
        if int(match["whole"]) != int(match["times"]) * int(match["divisor"]):
            return "calculation"
    for match in _VERDICT.finditer(text) if _SEARCH.search(problem) or not problem else ():
        if (match["result"] == match["target"]) != (match["verdict"] == "That is"):
            return "derivation"
    return None if before is None or grounded(text, problem, before) else "derivation"


def wrong_equation(text: str) -> Equation | None:
    """The equation in which a step went wrong: the first one, or the claim itself where it was worked out before."""
    wrong = [equation for equation in equations(text) if not equation.holds]
    return (wrong[-1] if "So " in text else wrong[0]) if wrong else None


def wrong_comparison(text: str) -> Comparison | None:
    """The first comparison in a step that does not hold."""
    return next((comparison for comparison in comparisons(text) if not comparison.holds), None)


def results(text: str) -> set[str]:
    """What a step calculates, as `expression=number` without spaces; a comparison (`4=4`) calculates nothing."""
    found = _RESULT.findall(text.replace(" ", ""))
    return {result for result in found if _OPERATOR.search(result, 1, result.index("="))}


def label_trace(traced: Traced) -> list[StepLabels]:
    """Label every step of a trace."""
    final = first_final(traced)
    answered = traced.closed and traced.answer is not None
    reached = first_reached(traced)
    labels: list[StepLabels] = []
    seen: set[str] = set()
    for number, step in enumerate(traced.steps):
        if number == len(traced.steps) - 1 and not traced.closed and not step.text.endswith(STEP_END):
            labels.append(StepLabels(None, None, None, None))
            continue
        kind = slip(step.text, traced.problem.text, [earlier.text for earlier in traced.steps[:number]])
        own = results(step.text)
        thinking = reached is None or number <= reached
        labels.append(
            StepLabels(
                intra_step=kind is not None,
                kind=kind,
                inter_step=thinking and bool(own) and own <= seen,
                instance=final is not None and number >= final if answered else None,
            )
        )
        seen |= own
    return labels


def first_final(traced: Traced) -> int | None:
    """Number of the first step from which on every trial answer is the final answer."""
    if traced.answer is None:
        return None
    first = None
    for number in range(len(traced.steps) - 1, -1, -1):
        if not _same(traced, traced.steps[number].trial):
            break
        first = number
    return first


def first_reached(traced: Traced) -> int | None:
    """Number of the first step after which a trial answer is the final answer, whether or not it stays so.

    Of a trace that was cut it is the first after which the trial answer is right: its last trial may be any guess, one
    that it made from the first step on.
    """
    if traced.answer is None:
        return None
    if traced.closed:
        there = (number for number, step in enumerate(traced.steps) if _same(traced, step.trial))
    else:
        there = (number for number, step in enumerate(traced.steps) if _right(traced.problem, step.trial))
    return next(there, None)


def is_right(traced: Traced) -> bool:
    """Whether the trace ends in the right answer, by the task's own scorer; without one by the answer that is known."""
    return _right(traced.problem, traced.answer)


def _right(problem: Problem, answer: str | None) -> bool:
    if problem.seed is None and problem.reference is not None:
        return answer is not None and same_answer(answer, problem.reference)
    return score(problem, answer)


def base_rates(labelled: Sequence[Sequence[StepLabels]]) -> dict[str, float]:
    """Share of positive labels a level, over all steps that have one."""
    rates: dict[str, float] = {}
    for level in LEVELS:
        values = [label.of(level) for labels in labelled for label in labels if label.of(level) is not None]
        rates[level] = sum(map(bool, values)) / max(1, len(values))
    return rates


def _looked_wrong(match: re.Match[str], asked: re.Match[str] | None) -> Literal["calculation", "derivation"] | None:
    """The slip in a word that was looked through letter by letter."""
    word, letter = match["word"].lower(), match["letter"]
    looks = [look.split() for look in match["looks"].split(", ")]
    if "".join(look[0] for look in looks) != word or (asked and asked.group(1).lower() != letter):
        return "derivation"
    count = 0
    for look in looks:
        count += look[0] == letter
        if look[1:] != (["yes", str(count)] if look[0] == letter else ["no"]):
            return "calculation"
    return None if count == int(match["count"]) else "calculation"


def _same(traced: Traced, trial: str | None) -> bool:
    """Whether a trial answer is the final one: written alike, or both right (a search has several solutions).

    Where the task has no scorer, it is the same number that counts: one may stand alone, the other in a sentence.
    """
    if trial is None or traced.answer is None:
        return False
    if traced.problem.seed is None:
        return same_answer(trial, traced.answer)
    if trial.replace(" ", "") == traced.answer.replace(" ", ""):
        return True
    return score(traced.problem, trial) and score(traced.problem, traced.answer)
