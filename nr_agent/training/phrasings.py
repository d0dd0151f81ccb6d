"""The same problem in other words: what people type, beside what a benchmark asks.

A model that saw one phrasing a family takes the numbers of a question that is put otherwise for another family's.
"""

from __future__ import annotations

import random
import re

from nr_agent.episode import Problem
from nr_agent.training.traces.families import parse_countdown

_QUOTED = re.compile(r'"([^"]*)"')
_NUMBER = re.compile(r"\d+")

_ASKED: dict[str, tuple[str, ...]] = {
    "chain_sum": ("What is {0}?", "Calculate {0}.", "Compute {0}", "{0} = ?", "How much is {0}?", "{0}"),
    "products": (
        "What is {0} * {1}?",
        "Calculate {0} * {1}.",
        "Compute {0}*{1}",
        "{0} * {1} = ?",
        "{0} x {1}",
        "What is {0} times {1}?",
        "Multiply {0} by {1}.",
    ),
    "simple_equations": (
        "Solve {0}",
        "Solve {0} for {1}.",
        "What is {1} if {0}?",
        "{0}. What is {1}?",
        "Find {1}: {0}",
    ),
    "gcd": (
        "What is the greatest common divisor of {0} and {1}?",
        "What is the gcd of {0} and {1}?",
        "Find the GCD of {0} and {1}.",
        "gcd({0}, {1})",
        "What is the largest number that divides both {0} and {1}?",
    ),
    "countdown": (
        "Use the numbers {0} to make {1}.",
        "Make {1} out of {0}. Use each number once.",
        "How can you reach {1} with the numbers {0}?",
        "Numbers: {0}. Target: {1}.",
    ),
    "letter_counting": (
        'How often is the letter "{0}" in "{1}"?',
        'How many times does "{0}" appear in "{1}"?',
        'Count the letter "{0}" in the text "{1}".',
        'How many letters "{0}" are there in "{1}"?',
    ),
}


def asked_otherwise(problem: Problem, rng: random.Random) -> str:
    """A problem of one of the teacher's families, asked in other words.

    Args:
        problem: as its task asks it.
        rng: of which words are drawn.
    """
    family, text = problem.task or "", problem.text
    return rng.choice(_ASKED[family]).format(*_PARTS[family](text, rng))


def _sum(text: str, rng: random.Random) -> list[str]:
    told = text.partition(":")[2].strip().rstrip("=").strip()
    return [told if rng.random() < 0.5 else told.replace(" ", "")]


def _two_numbers(text: str, _: random.Random) -> list[str]:
    return _NUMBER.findall(text)[:2]


def _equation(text: str, rng: random.Random) -> list[str]:
    told = text.rpartition(":")[2].strip()
    name = next(char for char in told if char.isalpha())
    if rng.random() < 0.3:
        told = told.replace(f"*{name}", name)
    return [told if rng.random() < 0.5 else told.replace(" ", ""), name]


def _target(text: str, _: random.Random) -> list[str]:
    numbers, target = parse_countdown(text)
    return [", ".join(map(str, numbers)), str(target)]


def _letters(text: str, _: random.Random) -> list[str]:
    return _QUOTED.findall(text)


_PARTS = {
    "chain_sum": _sum,
    "products": _two_numbers,
    "simple_equations": _equation,
    "gcd": _two_numbers,
    "countdown": _target,
    "letter_counting": _letters,
}
