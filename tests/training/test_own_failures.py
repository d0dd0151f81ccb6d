import random

import pytest

from nr_agent.detection.labels import slip
from nr_agent.detection.traces import Traced, TracedStep
from nr_agent.episode import Problem
from nr_agent.training.own_failures import another_way, redo

COUNTDOWN = "Find a way to make 31 using all of these numbers: 4, 7, 3.\nFinal answer format instructions: none"
LETTERS = 'How many times does the letter "e" appear in the text: "the terms here"?'


def traced(problem, *texts):
    trace = Traced(Problem(text=problem, task="countdown" if "31" in problem else None), 0, [])
    for number, text in enumerate(texts):
        trace.steps.append(TracedStep(number, number + 1, text + "\n\n", [0.0], [0.0]))
    return trace


@pytest.mark.parametrize(
    ("problem", "steps", "ends"),
    [
        ("Sum", ["12+35=48"], "So 12+35=47, not what I had"),
        ("Sum", ["12+35=47"], "So 12+35=47, as I had"),
        ("Sum", ["Now 328-351=7"], "So 328-351=-23, not what I had"),
        ("GCD", ["165 is 8*14"], "So 8*14=112, not what I had"),
        ("GCD", ["112 is 8*14"], "So 112 is 8*14, as I had"),
        (COUNTDOWN, ["Try 4+7=11, 11*3=31. That is 31."], "So 4+7=11, 11*3=33, not what I had. Not 31."),
        (COUNTDOWN, ["Try 4*7=27, 27+3=30. Not 31."], "So 4*7=28, 28+3=31, not what I had. That is 31."),
        (COUNTDOWN, ["Try 7/3=2, 2*4=8. Not 31."], "7/3 does not come out even, not what I had. Not 31."),
        (LETTERS, ["the: t h e has 1, 0+1=1", "terms: t e r m s has 0"], "So terms has 1, not what I had, 1+1=2"),
        (LETTERS, ["the: t h e has 1, 0+1=1"], "So the has 1, as I had"),
    ],
)
def test_a_remedy_works_the_step_out_and_holds_no_slip(problem, steps, ends):
    trace = traced(problem, *steps)
    remedy = redo(trace, len(steps) - 1)
    assert remedy.startswith("Let me redo that: ")
    assert remedy.endswith(ends)
    assert slip(remedy, problem) is None


@pytest.mark.parametrize("text", ["So the answer is 5.", "Let me redo that: 2+5=7. So 2+5=7, as I had", "Let me see."])
def test_what_claims_nothing_of_its_own_is_not_redone(text):
    assert redo(traced("Sum", text), 0) is None


def test_another_way_is_an_attempt_that_was_not_made_yet():
    trace = traced(COUNTDOWN, "Try 4+7=11, 11+3=14. Not 31.", "Try 4+7=11, 11+3=14. Not 31.")
    ways = {another_way(trace, 1, random.Random(seed)) for seed in range(60)}
    assert "Let me try another way. Try 4*7=28, 28+3=31. That is 31." in ways
    assert not any("4+7=11, 11+3=14" in way for way in ways)
    assert all(slip(way) is None for way in ways)
