import random

import pytest

from nr_agent.detection.labels import slip
from nr_agent.episode import Problem
from nr_agent.tasks import FAMILIES, draw
from nr_agent.training.following import following, missing_step
from nr_agent.training.traces import Habits, teach

COUNTDOWN = "Find a way to make 31 using all of these numbers: 4, 7, 3.\nFinal answer format instructions: none"
DIVISOR = "Find the Greatest Common Divisor (GCD) of these numbers: 143, 69. Give only the GCD as your final answer."
LETTERS = 'How many times does the letter "e" appear in the text: "the terms here"?'
TWICE = 'How many times does the letter "e" appear in the text: "the the end"?'
SUM = "State the final answer to the following arithmetic problem: 12 + 35 - 7 ="


@pytest.mark.parametrize(
    ("task", "problem", "steps", "expected"),
    [
        ("chain_sum", SUM, ["12+35=48", "Let me redo that: 2+5=7. So 12+35=47, not what I had"], "47-7=40"),
        ("chain_sum", SUM, ["Now 12+35=47"], "Now 47-7=40"),
        ("chain_sum", SUM, ["12+35=47", "47-7=40"], "So the answer is 40."),
        ("chain_sum", SUM, ["12+35=47", "47-7=40", "So the answer is 40."], None),
        ("gcd", DIVISOR, ["69*2=138", "143-138=5"], "69, 5: 5*13=65"),
        ("gcd", DIVISOR, ["143, 69: 69*2=138", "Now 143-138=5"], "Now 69, 5: 5*13=65"),
        (
            "letter_counting",
            LETTERS,
            ["the: t h e has 0", "So the has 1, not what I had, 0+1=1"],
            "terms: t e r m s has 1, 1+1=2",
        ),
        ("letter_counting", TWICE, ["the: t h e has 1, 0+1=1"], "the: t h e has 1, 1+1=2"),
        (
            "letter_counting",
            TWICE,
            ["the: t h e has 2, 0+2=2", "Wait, let me redo that: e yes 1. So the has 1, not what I had, 0+1=1"],
            "the: t h e has 1, 1+1=2",
        ),
        (  # what a division takes away on its way is no step of its own
            "gcd",
            "Find the Greatest Common Divisor (GCD) of these numbers: 68, 14. Give only the GCD as your final answer.",
            ["In detail: 6>1, 68>14: 68, 14: 68/14: 4*14=56, 8*14=112>68, 68-56=12, 28>12, 14>12. So 14*4=56"],
            "68-56=12",
        ),
        ("countdown", COUNTDOWN, ["So 4*7=28, 28+3=31, not what I had. That is 31."], "So the answer is (4*7)+3."),
        (None, SUM, ["12+35=47"], None),
    ],
)
def test_the_teacher_goes_on_from_what_stands_there_now(task, problem, steps, expected):
    thought = [f"{step}\n\n" for step in steps]
    assert following(Problem(text=problem, task=task), thought, random.Random(0)) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_what_follows_is_sound_and_new(family):
    for seed in range(40):
        problem, rng = draw(family, seed), random.Random(seed)
        steps = [
            "".join(span.text for span in step) for step in teach(family, problem.text, rng, Habits(slip=0.0)).steps
        ]
        kept = steps[: rng.randrange(1, len(steps) + 1)]
        after = following(problem, kept, rng)
        if after is not None:
            assert slip(after, problem.text, kept) is None, (kept, after)
            again = max(1, problem.text.split().count(after.partition(":")[0]))  # a word may be there twice
            assert kept.count(after) < again, (kept, after)


def test_of_a_strange_family_nothing_is_missing():
    assert missing_step(Problem(text="Half of 48?"), [], random.Random(0)) is None
