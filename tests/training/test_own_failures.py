import random

import pytest

from nr_agent.detection.labels import slip
from nr_agent.detection.traces import Traced, TracedStep
from nr_agent.episode import Problem
from nr_agent.training.corpus import IGNORED
from nr_agent.training.own_failures import another_way, own_examples, redo

COUNTDOWN = "Find a way to make 31 using all of these numbers: 4, 7, 3.\nFinal answer format instructions: none"
DIVISOR = "Find the Greatest Common Divisor (GCD) of these numbers: 143, 69. Give only the GCD as your final answer."
LETTERS = 'How many times does the letter "e" appear in the text: "the terms here"?'


def traced(problem, *texts):
    family = {COUNTDOWN: "countdown", DIVISOR: "gcd"}.get(problem)
    trace = Traced(Problem(text=problem, task=family), 0, [])
    for number, text in enumerate(texts):
        trace.steps.append(TracedStep(number, number + 1, text + "\n\n", [0.0], [0.0]))
    return trace


@pytest.mark.parametrize(
    ("problem", "steps", "ends"),
    [
        ("Sum", ["12+35=48"], "So 12+35=47, not what I had"),
        ("Sum", ["12+35=47"], "So 12+35=47, as I had"),
        ("Sum", ["Now 328-351=7"], "So 328-351=-23, not what I had"),
        ("Sum", ["Try 4*7=27, 27+3=30. Not 31."], "So 4*7=28, not what I had"),  # written where nothing is searched for
        ("GCD", ["165 is 8*14"], "So 8*14=112, not what I had"),
        ("GCD", ["112 is 8*14"], "So 112 is 8*14, as I had"),
        (COUNTDOWN, ["Try 4+7=11, 11*3=31. That is 31."], "So 4+7=11, 11*3=33, not what I had. Not 31."),
        (COUNTDOWN, ["Try 4*7=27, 27+3=30. Not 31."], "So 4*7=28, 28+3=31, not what I had. That is 31."),
        (COUNTDOWN, ["Try 7/3=2, 2*4=8. Not 31."], "7/3 does not come out even, not what I had. Not 31."),
        (LETTERS, ["the: t h e has 1, 0+1=1", "terms: t e r m s has 0"], "So terms has 1, not what I had, 1+1=2"),
        (LETTERS, ["the: t h e has 1, 0+1=1"], "So the has 1, as I had, 0+1=1"),
        (LETTERS, ["e in t no, e yes 1, r no, m no. So term has 1, 0+1=1"], "So terms has 1, not what I had, 0+1=1"),
        (COUNTDOWN, ["Try 4*7=28, 28+3=31. That is 33."], "So 4*7=28, 28+3=31, not what I had. That is 31."),
        (COUNTDOWN, ["Try 4*7=28, 28+3=31. Not 31."], "So 4*7=28, 28+3=31, not what I had. That is 31."),
        (COUNTDOWN, ["Try 4*7=28, 28+4=32. Not 31."], "So 4*7=28, 28+3=31, not what I had. That is 31."),
        ("Sum", ["12+35=48", "Wait, let me redo that: 2+5=7. So 12+35=57, not what I had"], "35=47, not what I had"),
        ("Sum", ["12+35=48", "Wait, let me redo that: 2+5=7. So 12+35=47, not what I had"], "35=47, as I had"),
        ("Sum", ["12+35=47", "Wait, let me redo that: 2+5=7. So 12+35=48, as I had"], "35=47, not what I had"),
        ("Sum", ["8*7=56, 8*8+7=71, 1+1=3. So 87*8=706"], "So 87*8=696, not what I had"),
    ],
)
def test_a_remedy_works_the_step_out_and_holds_no_slip(problem, steps, ends):
    trace = traced(problem, *steps)
    remedy = redo(trace, len(steps) - 1)
    assert remedy.startswith("Let me redo that: ")
    assert remedy.endswith(ends)
    assert slip(remedy, problem) is None


@pytest.mark.parametrize("text", ["0 is 3*0", "0 is 0*5", "12 is 4*0", "So 0 is 0*0"])
@pytest.mark.parametrize("steps", [["69*2=138", "143-138=5", "69-69=0"], ["143-143=0"]])
def test_a_division_by_nothing_or_of_nothing_is_not_redone(text, steps):
    assert redo(traced(DIVISOR, *steps, text), len(steps)) is None


@pytest.mark.parametrize("text", ["So the answer is 5.", "Let me see.", "Let me try another way. 2+5=7"])
def test_what_claims_nothing_of_its_own_is_not_redone(text):
    assert redo(traced("Sum", text), 0) is None


def test_outside_a_search_another_way_is_what_is_still_missing():
    trace = traced(DIVISOR, "143-69=74", "So 143-69=74", "143-69=74")
    ways = {another_way(trace, 2, random.Random(seed)) for seed in range(20)}
    assert ways == {"Let me try another way. 143>69: 143, 69: 69*2=138"}
    trace = traced(DIVISOR, "69*2=138", "143-138=5", "69*2=138")
    assert another_way(trace, 2, random.Random(0)) == "Let me try another way. 69, 5: 5*13=65"


TWICE = "143/69: 2*69=138, 4*69=276>143, 143-138: 13-8=5, 4-3-1=0, 1-1=0, 143-138=5, 69>5"


@pytest.mark.parametrize(
    ("steps", "remedy"),
    [
        (  # a multiple that is too large leads below zero: one that fits
            ["69*3=207", "143-207=4"],
            f"{TWICE}. So 69*2=138, not what I had\n\n143-138=5\n\n",
        ),
        (  # the wrong one taken for the larger one
            ["143<69: 69, 143: 69-143=-74"],
            "1>0. So 143>69, not what I had\n\n143>69: 143, 69: 69*2=138\n\n",
        ),
        (  # the same, with what would have been right
            ["143<69: 143, 69: 69*2=138"],
            "1>0. So 143>69, not what I had\n\n143>69: 143, 69: 69*2=138\n\n",
        ),
        (  # a number from nowhere: what should stand there
            ["69*2=138", "143-138=5", "6*15=90"],
            "69/5: 2*5=10, 4*5=20, 8*5=40, 16*5=80>69, 69-40=29, 20<29, 8+4=12, 29-20=9, 10>9, 5<9, 12+1=13, 9-5=4, "
            "69-4=65. So 5*13=65, not what I had\n\n69-65=4\n\n",
        ),
    ],
)
def test_a_step_that_leads_astray_is_answered_by_the_one_that_was_due(tokenizer, steps, remedy):
    trace, ids = Traced(Problem(text=DIVISOR, task="gcd"), 0, []), tokenizer.encode(DIVISOR)
    for text in steps:
        step = tokenizer.encode(f"{text}\n\n")
        placed = TracedStep(len(ids), len(ids) + len(step), f"{text}\n\n", [-0.1] * len(step), [0.0] * len(step))
        trace.steps.append(placed)
        ids += step
    trace.ids = ids
    examples = own_examples(tokenizer, [trace])
    assert remedy in [tokenizer.decode([label for label in labels if label != IGNORED]) for _, labels, _ in examples]


def test_another_way_is_an_attempt_that_was_not_made_yet():
    trace = traced(COUNTDOWN, "Try 4+7=11, 11+3=14. Not 31.", "Try 4+7=11, 11+3=14. Not 31.")
    ways = {another_way(trace, 1, random.Random(seed)) for seed in range(60)}
    assert "Let me try another way. Try 4*7=28, 28+3=31. That is 31." in ways
    assert not any("4+7=11, 11+3=14" in way for way in ways)
    assert all(slip(way) is None for way in ways)
