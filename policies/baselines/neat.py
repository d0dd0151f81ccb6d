"""NEAT: a few neurons that rise when the thinking is done end it, or hush second thoughts (arXiv 2602.02010)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from nr_agent.engine.protocol import TapPlan
from nr_agent.policies.baselines.protocol import Line
from nr_agent.policies.baselines.texts import word_ids
from nr_agent.tokens import END_THINK


class Listed(Protocol):
    """A tensor, as far as it matters here: policies do without torch."""

    def tolist(self) -> list[Any]:
        """Its values."""
        ...


@dataclass(frozen=True)
class Neat:
    """Close where the neurons look as they do at the end; where they almost do, suppress words of reflection.

    Attributes:
        channels: addresses of the neurons (found by `nr_agent.evaluation.neat`).
        reference: what they are at the end of a thinking, on average.
        plan: reads them, in this order.
        similarity: cosine to the reference above which the thinking ends (`tau_sim`).
        almost: above which, until then, reflection is suppressed (`tau_sup`).
        magnitude: least length beside the reference's (`tau_mag`); half of the prompt's, if that is more.
        words: of reflection, suppressed at the beginning of a paragraph.
    """

    channels: tuple[str, ...]
    reference: tuple[float, ...]
    plan: TapPlan = field(metadata={"record": False})
    similarity: float = 0.6
    almost: float = 0.4
    magnitude: float = 0.2
    words: tuple[str, ...] = ("Wait", "But", "Alternatively", "However", "Hmm")
    name: str = "neat"

    def think(self, line: Line) -> None:
        """Watch every token."""
        watch = Watch(self, prompt=line.position)
        banned = word_ids(line.codec, self.words)
        hushed = replace(line.sampling, suppress=(*line.sampling.suppress, *banned))
        one: int | None = None
        while True:
            # The state behind a blank line decides about the next word, so the last token is read at once.
            sampling = hushed if one else line.sampling
            if line.think(monitor=watch, flush=True, max_new=one, sampling=sampling) is None:
                return
            if watch.done and not line.over:
                line.close(f"{END_THINK}\n\n")
                return
            one = 1 if one is None and watch.almost_done else None


class Watch:
    """Looks at the neurons of one line, token by token.

    Args:
        rule: what to look for.
        prompt: length of the prompt.
    """

    def __init__(self, rule: Neat, prompt: int) -> None:
        self.rule = rule
        self.prompt = prompt
        self.before: list[float] = []
        self.done = False
        self.almost_done = False

    def __call__(self, positions: Listed, values: Listed) -> bool:
        """Whether the thinking is done, by the newest readings."""
        rows: list[tuple[int, list[Any]]] = list(zip(positions.tolist(), values.tolist(), strict=True))
        for position, row in rows:
            similarity, magnitude = alike(row, self.rule.reference)
            if position < self.prompt - 1:
                self.before.append(magnitude)
                continue
            usual = sum(self.before) / len(self.before) if self.before else 0.0
            enough = magnitude > max(self.rule.magnitude, 0.5 * usual)
            self.done = self.done or (enough and similarity > self.rule.similarity)
            self.almost_done = enough and similarity > self.rule.almost
        return self.done


def alike(row: list[float], reference: tuple[float, ...]) -> tuple[float, float]:
    """Cosine and relative length of readings beside a reference, each neuron measured by its own reference."""
    scaled = [value / end for value, end in zip(row, reference, strict=True)]
    length = math.sqrt(sum(value * value for value in scaled))
    full = math.sqrt(len(scaled))
    return (sum(scaled) / (length * full) if length else 0.0), length / full
