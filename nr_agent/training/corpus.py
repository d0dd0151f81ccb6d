"""Teacher's traces as packed rows of token ids with labels, drawn deterministically."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nr_agent.tasks import TRAINING_SEEDS, draw, held_out
from nr_agent.tokens import ANSWER_LEAD, CLOSING_SENTENCE, END_THINK, RECHECK, STEP_END
from nr_agent.training.traces import Habits, Span, Trace, teach
from nr_agent.training.traces.scratchpad import REDO

IGNORED = -100
"""Label of a token that does not count in the loss."""

Example = tuple[list[int], list[int]]
"""Token ids and their labels, equally long."""

_POOL = 24


class Corpus:
    """An endless stream of packed training rows; batch `k` depends on the seed, `k` and the families' weights alone.

    Args:
        tokenizer: the LRM's tokenizer, with a chat template.
        row_tokens: length of a row. Whole traces are packed into rows; longer ones are drawn again.
        seed: seed of the stream.
        habits: the teacher's habits.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        row_tokens: int = 640,
        seed: int = 0,
        habits: Habits | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.row_tokens = row_tokens
        self.seed = seed
        self.habits = habits or Habits()

    def batch(self, index: int, rows: int, weights: Mapping[str, float]) -> tuple[Tensor, Tensor]:
        """Batch `index`: ids and labels, each `[rows, row_tokens]`, int64.

        Args:
            index: number of the batch.
            rows: number of rows.
            weights: how often each family is drawn, relative to each other.
        """
        rng = random.Random(f"{self.seed}:{index}")
        return pack(lambda: self._example(rng, weights), rows, self.row_tokens, self.tokenizer.pad_token_id)

    def _example(self, rng: random.Random, weights: Mapping[str, float]) -> Example:
        family = rng.choices(list(weights), list(weights.values()))[0]
        while True:
            problem = draw(family, rng.choice(TRAINING_SEEDS))
            if held_out(problem.text):
                continue
            example = encode_trace(self.tokenizer, problem.text, teach(family, problem.text, rng, self.habits))
            if len(example[0]) <= self.row_tokens:
                return example


def pack(draw_example: Callable[[], Example], rows: int, row_tokens: int, padding: int) -> tuple[Tensor, Tensor]:
    """Fill rows with whole examples.

    Args:
        draw_example: draws the next example, no longer than a row.
        rows: number of rows.
        row_tokens: tokens a row.
        padding: id that fills what is left of a row.

    Returns:
        Ids and labels, each `[rows, row_tokens]`, int64.
    """
    ids = torch.full((rows, row_tokens), padding)
    labels = torch.full((rows, row_tokens), IGNORED)
    pool = [draw_example() for _ in range(_POOL)]
    for row in range(rows):
        start = 0
        # The first trace of a row is the next one drawn, the others are those that fill it best.
        example: Example | None = pool.pop()
        while example is not None:
            end = start + len(example[0])
            ids[row, start:end] = torch.tensor(example[0])
            labels[row, start:end] = torch.tensor(example[1])
            start = end
            example = _best_fit(pool, row_tokens - start)
        pool.extend(draw_example() for _ in range(_POOL - len(pool)))
    return ids, labels


def encode_trace(tokenizer: Any, question: str, trace: Trace, *, triggered: str | None = None) -> Example:
    """A whole trace as ids and labels: the problem and planted slips do not count in the loss.

    Args:
        tokenizer: the LRM's tokenizer.
        question: the problem.
        trace: the teacher's trace.
        triggered: second thoughts begin with `<|recheck|>`, masked from the loss, and this text instead of their own.
    """
    ids = prompt_ids(tokenizer, question)
    labels = [IGNORED] * len(ids)
    for step in trace.steps:
        opening = next((phrase for phrase in REDO if step[0].text.startswith(phrase)), None)
        if triggered is not None and opening is not None:
            _append(tokenizer, ids, labels, RECHECK, False)
            step = [Span(triggered + step[0].text.removeprefix(opening)), *step[1:]]
        for text, trained in step:
            _append(tokenizer, ids, labels, text, trained)
        _append(tokenizer, ids, labels, STEP_END, True)
    closing: Sequence[str] = (END_THINK, STEP_END)
    if trace.stopped:
        closing = (CLOSING_SENTENCE, STEP_END, *closing)
    for text in closing:
        _append(tokenizer, ids, labels, text, not trace.stopped)
    for text in (ANSWER_LEAD, trace.answer, "}", tokenizer.eos_token):
        _append(tokenizer, ids, labels, text, True)
    return ids, labels


def prompt_ids(tokenizer: Any, question: str) -> list[int]:
    """The chat template around a problem, the thinking opened; control tokens in the text stay text."""
    encoded = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        sanitize_control_tokens=True,
        return_dict=True,
    )
    return list(encoded["input_ids"])


def _best_fit(pool: list[Example], room: int) -> Example | None:
    """Take the longest example that fits out of the pool."""
    fitting = [i for i, (ids, _) in enumerate(pool) if len(ids) <= room]
    return pool.pop(max(fitting, key=lambda i: len(pool[i][0]))) if fitting else None


def _append(tokenizer: Any, ids: list[int], labels: list[int], text: str, trained: bool) -> None:
    piece = tokenizer.encode(text, add_special_tokens=False)
    ids.extend(piece)
    labels.extend(piece if trained else [IGNORED] * len(piece))
