"""Teacher's traces as packed rows of token ids with labels, drawn deterministically."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nr_agent.episode import Problem
from nr_agent.tasks import TRAINING_SEEDS, draw, held_out
from nr_agent.tokens import (
    ANSWER_LEAD,
    BRANCH,
    CLOSING_SENTENCE,
    END_THINK,
    IN_DETAIL,
    OTHER_WAY,
    RECHECK,
    REDO,
    STEP_END,
)
from nr_agent.training.phrasings import asked_otherwise
from nr_agent.training.traces import Habits, Span, Trace, teach
from nr_agent.training.traces.scratchpad import REDO as OPENINGS

IGNORED = -100
"""Label of a token that does not count in the loss."""

_OTHERWISE = 0.35
"""Share of the problems that are asked in other words than their task does."""

PARTS = 5
"""Parts of a batch, each of examples of about one length."""
_ROUND = 64
"""Rows are filled up to a multiple of this: for every new shape a CPU's kernels are made anew, which takes longer."""


class Example(NamedTuple):
    """Token ids with what is learned of them, all equally long.

    Attributes:
        ids: the tokens.
        labels: what counts in the language model's loss: the token, or `IGNORED`.
        tells: what the telltale neurons are to tell at each token, in the order of `LEVELS`: 1 where the failure is
            there, 0 where it is not, `IGNORED` where that is unknown.
    """

    ids: list[int]
    labels: list[int]
    tells: list[tuple[int, int, int]]


class Batch(NamedTuple):
    """Examples of about one length, filled up on the right.

    Attributes:
        ids: `[rows, tokens]`, int64.
        labels: `[rows, tokens]`, int64, `IGNORED` where filled up.
        tells: `[rows, tokens, 3]`, int64, `IGNORED` where filled up.
    """

    ids: Tensor
    labels: Tensor
    tells: Tensor


UNTOLD = (IGNORED, IGNORED, IGNORED)


class Corpus:
    """An endless stream of training batches; batch `k` depends on the seed, `k` and what it is drawn from alone.

    Args:
        tokenizer: the LRM's tokenizer, with a chat template.
        longest: longer traces are drawn again.
        seed: seed of the stream.
        habits: the teacher's habits.
        parts: parts of a batch, at most, each of examples of about one length.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        longest: int = 640,
        seed: int = 0,
        habits: Habits | None = None,
        parts: int = PARTS,
    ) -> None:
        self.tokenizer = tokenizer
        self.longest = longest
        self.seed = seed
        self.habits = habits or Habits()
        self.parts = parts

    def batch(
        self, index: int, tokens: int, weights: Mapping[str, float], own: Sequence[Example] = (), share: float = 0.0
    ) -> list[Batch]:
        """Batch `index`, in parts of about one length each.

        Args:
            index: number of the batch.
            tokens: tokens of all examples together, at least.
            weights: how often each family is drawn, relative to each other.
            own: examples of the model's own traces.
            share: how many of the examples are such ones.
        """
        rng = random.Random(f"{self.seed}:{index}")

        def example() -> Example:
            return rng.choice(own) if own and rng.random() < share else self._example(rng, weights)

        return batches(example, tokens, self.tokenizer.pad_token_id, self.parts)

    def _example(self, rng: random.Random, weights: Mapping[str, float]) -> Example:
        family = rng.choices(list(weights), list(weights.values()))[0]
        while True:
            problem = draw(family, rng.choice(TRAINING_SEEDS))
            if held_out(problem.text):
                continue
            trace = teach(family, problem.text, rng, self.habits)
            example = encode_trace(self.tokenizer, asked(problem, rng), trace)
            if len(example.ids) <= self.longest:
                return example


def asked(problem: Problem, rng: random.Random) -> str:
    """How a problem is put: as its task does, or now and then otherwise."""
    return asked_otherwise(problem, rng) if rng.random() < _OTHERWISE else problem.text


def batches(draw_example: Callable[[], Example], tokens: int, padding: int, parts: int = PARTS) -> list[Batch]:
    """Examples of so many tokens in all, those of like length together: little is filled up, nothing is cut.

    Args:
        draw_example: draws the next example.
        tokens: tokens of all examples together, at least.
        padding: id that fills rows up.
        parts: how many, at most.
    """
    drawn: list[Example] = []
    while sum(len(example.ids) for example in drawn) < tokens:
        drawn.append(draw_example())
    drawn.sort(key=lambda example: len(example.ids))
    made, part, size = [], [], 0
    for example in drawn:
        part.append(example)
        size += len(example.ids)
        if size >= tokens / parts or example is drawn[-1]:
            made.append(_filled_up(part, padding))
            part, size = [], 0
    return made


def _filled_up(part: Sequence[Example], padding: int) -> Batch:
    longest = max(len(example.ids) for example in part)
    shape = len(part), -(-longest // _ROUND) * _ROUND
    batch = Batch(torch.full(shape, padding), torch.full(shape, IGNORED), torch.full((*shape, len(UNTOLD)), IGNORED))
    for row, example in enumerate(part):
        end = len(example.ids)
        batch.ids[row, :end] = torch.tensor(example.ids)
        batch.labels[row, :end] = torch.tensor(example.labels)
        batch.tells[row, :end] = torch.tensor(example.tells)
    return batch


def encode_trace(tokenizer: Any, question: str, trace: Trace, *, triggered: bool = False) -> Example:
    """A whole trace as an example: the problem and planted slips do not count in the loss.

    Args:
        tokenizer: the LRM's tokenizer.
        question: the problem.
        trace: the teacher's trace.
        triggered: second thoughts and careful steps are asked for by `<|recheck|>` and the words that go with it,
            and behind (or, every second time, in place of) a step that repeats stands `<|branch|>`; all are masked
            from the loss.
    """
    page = _Page(tokenizer, prompt_ids(tokenizer, question))
    for number, step in enumerate(trace.steps):
        opening = next((phrase for phrase in OPENINGS if step[0].text.startswith(phrase)), None)
        begun = opening or (IN_DETAIL if number in trace.careful else None)
        leads_out = triggered and number - 1 in trace.repeats
        if triggered and begun is not None and not leads_out:
            for inserted in (RECHECK, REDO if opening else IN_DETAIL):
                page.write(inserted, trained=False)
            step = [Span(step[0].text.removeprefix(begun)), *step[1:]]
        if triggered and number in trace.repeats and number % 2:
            continue
        if leads_out:
            page.write(BRANCH, trained=False)
            step = [Span(f"{OTHER_WAY} "), *step]
        slipped, known = False, trace.known is not None and number > trace.known
        for text, trained, wrong in step:
            slipped |= wrong
            page.write(text, trained=trained, tells=(int(slipped), 0, int(known) or IGNORED))
        page.end(int(number in trace.slips), int(number in trace.repeats), int(known or number == trace.known))
        page.write(STEP_END)
    closing: Sequence[str] = (END_THINK, STEP_END)
    if trace.stopped:
        closing = (CLOSING_SENTENCE, STEP_END, *closing)
    for text in closing:
        page.write(text, trained=not trace.stopped)
    for text in (ANSWER_LEAD, trace.answer, "}", tokenizer.eos_token):
        page.write(text)
    return page.example


class _Page:
    """An example that is being written."""

    def __init__(self, tokenizer: Any, prompt: list[int]) -> None:
        self.tokenizer = tokenizer
        self.example = Example(prompt, [IGNORED] * len(prompt), [UNTOLD] * len(prompt))

    def write(self, text: str, *, trained: bool = True, tells: tuple[int, int, int] = UNTOLD) -> None:
        piece = self.tokenizer.encode(text, add_special_tokens=False)
        self.example.ids.extend(piece)
        self.example.labels.extend(piece if trained else [IGNORED] * len(piece))
        self.example.tells.extend([tells] * len(piece))

    def end(self, *tells: int) -> None:
        """What is to be told at the last token of a step."""
        self.example.tells[-1] = (tells[0], tells[1], tells[2])


def prompt_ids(tokenizer: Any, question: str) -> list[int]:
    """The chat template around a problem, the thinking opened; control tokens in the text stay text."""
    encoded = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        sanitize_control_tokens=True,
        return_dict=True,
    )
    return list(encoded["input_ids"])
