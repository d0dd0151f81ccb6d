"""What the teacher writes on: paragraphs (steps), calculations, and second thoughts about them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from nr_agent.tokens import IN_DETAIL
from nr_agent.training.traces.arithmetic import apply, compared, compared_by_digits, named, near_miss, work_out

REDO = ("Wait, let me redo that: ", "Hold on, let me redo that: ", "Let me double-check that: ")
CHECK_ALL = ("Let me check the whole thing again.", "Let me verify this once more.", "I should go through it again.")
WORK_OUT = ("Let me work it out in detail.", "Let me go through the details once more.")
FINISHED = "Okay, I have finished thinking."

# What may be written once more: a calculation. A count would be added again.
_CLAIM = re.compile(r"(?!Wait|Hold|Let|So |.* has ).*\d=-?\d")


class Check(NamedTuple):
    """A way to verify an answer: what is done, and whether every claim in it is worked out at length."""

    work: Callable[[], str]
    worked: bool = False


class Span(NamedTuple):
    """A piece of text.

    Attributes:
        text: the text.
        trained: whether its tokens count in the loss.
        wrong: whether a slip shows in it, from its first character on.
    """

    text: str
    trained: bool = True
    wrong: bool = False


@dataclass(frozen=True)
class Habits:
    """How the teacher behaves, whatever the problem.

    Attributes:
        redo: share of calculations that are worked out again although they were right.
        slip: share of calculations with a planted slip (noticed at once, masked from the loss).
        astray: share of those slips that are made in what is calculated, not in its result; where two
            numbers are compared, so many are compared wrongly.
        careful: share of calculations that are worked out at length at once.
        repeat: share of calculations before the answer behind which an earlier step is written once more, masked
            from the loss.
        passes: weights of 0, 1, 2, ... verification passes after the answer.
        closing: share of traces that end in the closing sentence.
        stopped: share of traces that are closed from outside, anywhere from where the answer is known. The
            closing itself is masked from the loss; the answer behind it is not.
    """

    redo: float = 0.06
    slip: float = 0.1
    astray: float = 0.3
    careful: float = 0.1
    repeat: float = 0.03
    passes: tuple[float, ...] = (0.2, 0.35, 0.3, 0.15)
    closing: float = 0.3
    stopped: float = 0.2


@dataclass
class Trace:
    """A thought-through problem.

    Attributes:
        steps: the steps, each a list of spans.
        answer: the answer.
        stopped: the thinking was closed from outside.
        slips: numbers of the steps with a planted slip.
        repeats: numbers of the steps that bring nothing new before the answer is known.
        careful: numbers of the steps that are worked out at length at once, though nothing asks for it.
        known: number of the first step after which the answer is known.
    """

    steps: list[list[Span]] = field(default_factory=list)
    answer: str = ""
    stopped: bool = False
    slips: set[int] = field(default_factory=set)
    repeats: set[int] = field(default_factory=set)
    careful: set[int] = field(default_factory=set)
    known: int | None = None

    @property
    def thinking(self) -> str:
        """The thinking as text, a blank line after each step."""
        return "".join("".join(span.text for span in step) + "\n\n" for step in self.steps)


class Scratchpad:
    """Writes a trace step by step.

    Args:
        rng: source of every choice; the same state gives the same trace.
        habits: how often to doubt, to slip and to verify.
    """

    def __init__(self, rng: random.Random, habits: Habits) -> None:
        self.rng = rng
        self.habits = habits
        self.trace = Trace()
        self._leads = rng.choice(((("",), ("",)), (("First ",), ("Then ", "Next ", "Now ")), (("Now ",), ("Now ",))))
        self._begun = False
        self._worked = False
        self._working = True

    def say(self, text: str) -> None:
        """Write one step without a calculation."""
        self.trace.steps.append([Span(text)])

    def lead(self) -> str:
        """How the next calculation begins: in one voice through the whole trace."""
        words = self._leads[1] if self._begun else self._leads[0]
        self._begun = True
        return self.rng.choice(words)

    def calculate(self, a: int, op: str, b: int, about: str = "", at_length: str | None = None) -> int:
        """Write `a op b=c` as a step of its own, perhaps with second thoughts.

        Args:
            a: the first operand.
            op: the operation.
            b: the second operand.
            about: what is said before it.
            at_length: how it is worked out in its place; by default in columns.
        """
        careful = self._carefully()
        lead = "" if careful else self.lead() + about
        asked, worked = f"{a}{op}{b}", named(a, op, b)
        if not careful and op != "/" and self.rng.random() < self.habits.slip * self.habits.astray:
            self._go_astray(lead, a, op, b)
            self.say(f"{self.rng.choice(REDO)}{worked}. So {asked}={apply(a, op, b)}, not what I had")
            return apply(a, op, b)
        return int(
            self.claim(
                before=f"{lead}{asked}=",
                value=str(apply(a, op, b)),
                wrong=lambda: str(near_miss(apply(a, op, b), self.rng)),
                redo=work_out(a, op, b),
                restate=f"So {asked}=",
                careful=at_length or about + worked,
                at_length=careful,
            )
        )

    def misjudge(self, a: int, b: int) -> None:
        """Now and then take the smaller one of two numbers for the larger one, and notice it at once."""
        if a == b or self._worked or self.rng.random() >= self.habits.slip * self.habits.astray:
            return
        x, y = sorted((a, b))
        wrong = f"{a}{'<' if a > b else '>'}{b}: {x}, {y}: {x}-{y}={x - y}"
        self._slip(self.lead(), wrong, compared(a, b), "")
        self.say(f"{self.rng.choice(REDO)}{compared_by_digits(a, b)}. So {compared(a, b)}, not what I had")

    def claim(
        self,
        *,
        before: str,
        value: str,
        wrong: Callable[[], str],
        redo: str,
        restate: str,
        after: str = "",
        verdict: str = "",
        careful: str | None = None,
        at_length: bool | None = None,
    ) -> str:
        """Write a step that claims a value, and now and then look at it again.

        Args:
            before: the step's text up to the value.
            value: the right value.
            wrong: gives a plausible wrong value.
            redo: how the value is worked out at length.
            restate: the claim's first half as it is repeated after that.
            after: the step's text after the value; after a slip it is said once the value is mended.
            verdict: what is said of the value, in the step and whenever it was looked at again.
            careful: how the value is worked out at length in the claim's place; by default as it is redone.
            at_length: whether it is; by default by the habits.
        """
        if self._carefully() if at_length is None else at_length:
            if not self._worked:
                self.trace.careful.add(len(self.trace.steps))
            self.say(f"{IN_DETAIL}{careful or redo}. {restate}{value}{after}{verdict}")
        elif self.rng.random() < self.habits.slip:
            self._slip(before, wrong(), value, verdict)
            self.say(f"{self.rng.choice(REDO)}{redo}. {restate}{value}, not what I had{after}{verdict}")
        else:
            self.trace.steps.append([Span(f"{before}{value}{after}{verdict}")])
            if self.rng.random() < self.habits.redo:
                self.say(f"{self.rng.choice(REDO)}{redo}. {restate}{value}, as I had{verdict}")
            self._repeat()
        return value

    def _carefully(self) -> bool:
        return self._worked or self.rng.random() < self.habits.careful

    def know(self) -> None:
        """The answer is known, though the work may go on."""
        if self.trace.known is None:
            self.trace.known = len(self.trace.steps) - 1

    def solve(self, work: Callable[[], str], checks: Sequence[Check], most: int | None = None) -> Trace:
        """Do the work, state the answer, and verify as often as the habits say.

        Args:
            work: writes the steps and gives the answer.
            checks: ways to verify it that are not the first way over again: a pass that repeats what stands
                above it teaches a model to copy its own slips, with confidence.
            most: verification passes, where the work is long.
        """
        answer = work()
        while (last := len(self.trace.steps) - 1) in self.trace.repeats:  # what repeats here verifies the answer
            self.trace.repeats.remove(last)
            self.trace.steps.pop()
        reached = len(self.trace.steps)
        self.know()
        self._working = False
        self.say(f"So the answer is {answer}.")
        passes = self.rng.choices(range(len(self.habits.passes)), self.habits.passes)[0]
        passes = passes if most is None else min(passes, most)
        order = self.rng.sample(list(checks), len(checks))
        for number in range(passes):
            check = order[number % len(order)]
            self.say(self.rng.choice(WORK_OUT if check.worked else CHECK_ALL))
            self._begun, self._worked = False, check.worked
            answer = check.work()
            self.say(f"So the answer is still {answer}.")
        self._worked = False
        if self.rng.random() < self.habits.closing:
            self.say(FINISHED)
        if self.rng.random() < self.habits.stopped:
            self.trace.stopped = True
            end = self.rng.choice((reached, reached + 1, self.rng.randint(reached, len(self.trace.steps))))
            del self.trace.steps[end:]
        self.trace.answer = answer
        return self.trace

    def _slip(self, before: str, wrong: str, value: str, verdict: str) -> None:
        """A claim with a wrong value; the slip shows from the first character in which it differs."""
        same = next(
            (i for i, (x, y) in enumerate(zip(wrong, value, strict=False)) if x != y), min(map(len, (wrong, value)))
        )
        self.trace.slips.add(len(self.trace.steps))
        spans = [
            Span(before),
            Span(wrong[:same], trained=False),
            Span(wrong[same:] + verdict, trained=False, wrong=True),
        ]
        self.trace.steps.append([span for span in spans if span.text])

    def _go_astray(self, lead: str, a: int, op: str, b: int) -> None:
        """A calculation that holds, with an operand from nowhere."""
        x, y = a, b
        while (x, y) == (a, b):  # what is one off the other way is the same again without its sign
            x, y = (near_miss(a, self.rng), b) if self.rng.random() < 0.5 else (a, abs(near_miss(b, self.rng)))
        self._slip(lead, f"{x}{op}{y}={apply(x, op, y)}", f"{a}{op}{b}=", "")

    def _repeat(self) -> None:
        """Now and then the claim just written, or one before it, once more: nothing new, and the work goes on."""
        share = self.habits.repeat * (3 if "Try " in self.trace.steps[-1][0].text else 1)
        if not self._working or self._worked or self.trace.known is not None or self.rng.random() >= share:
            return
        sound = [
            step
            for number, step in enumerate(self.trace.steps)
            if number not in self.trace.slips and len(step) == 1 and _CLAIM.match(step[0].text)
        ]
        if sound:
            self.trace.repeats.add(len(self.trace.steps))
            self.trace.steps.append([Span(self.rng.choice(sound)[0].text, trained=False)])
