import random

import pytest

from nr_agent.detection.grounding import grounded
from nr_agent.detection.labels import label_trace, slip, wrong_equation
from nr_agent.detection.traces import Traced, TracedStep
from nr_agent.episode import Problem
from nr_agent.tasks import FAMILIES, draw
from nr_agent.training.traces import Habits, teach

SEARCH = "Find a way to make 31 using all of these numbers: 17, 12, 4.\nEach number can only be used once.\n"
DIVISOR = "Find the Greatest Common Divisor (GCD) of these numbers: 143, 69. Give only the GCD as your final answer."
LETTERS = 'How many times does the letter "e" appear in the text: "These terms here"?'


@pytest.mark.parametrize("family", FAMILIES)
def test_whatever_the_teacher_writes_rests_on_something(family):
    for seed in range(60):
        problem, rng = draw(family, seed), random.Random(seed)
        before: list[str] = []
        trace = teach(family, problem.text, rng, Habits(redo=0.3, slip=0.2, astray=0.0))
        for number, step in enumerate(trace.steps):
            text = "".join(span.text for span in step)
            planted = number in trace.slips
            assert planted or grounded(text, problem.text, before), (problem, text)
            assert not planted or slip(text, problem.text, before) is not None, (problem, text)
            before.append(text)


@pytest.mark.parametrize(
    ("problem", "before", "step", "rests"),
    [
        (SEARCH, [], "Try 17+12=29, 29-4=25. Not 31.", True),
        (SEARCH, [], "Try 12-17=-5, 4-5=-1. Not 31.", True),  # the inner value, taken as what is added
        (SEARCH, [], "Try 12+4=16, 16+17=33. That is 33.", False),  # not what was asked for
        (SEARCH, [], "Try 17+17=34, 34-4=30. Not 31.", False),  # a number twice
        (SEARCH, [], "Try 17+13=30, 30+4=34. Not 31.", False),  # a number that is not there
        (SEARCH, [], "Try 17+12=29, 28+4=32. Not 31.", False),  # another value than the one reached
        (DIVISOR, ["69*2=138"], "143-138=5", True),
        (DIVISOR, ["69*2=138", "143-138=5"], "69 is 13*5", True),
        (DIVISOR, ["69*2=138", "143-138=5"], "5*13=65", True),
        (DIVISOR, ["69*2=138", "143-138=5"], "Now 6*15=90", False),
        (DIVISOR, ["69*2=138", "143-138=5"], "Then 149-90=59", False),
        (DIVISOR, ["69*3=207"], "143-207=-64", False),
        (DIVISOR, ["69*2=138", "143-138=5"], "143-69=74", False),  # the round before
        (DIVISOR, [], "First 143>69: 143, 69: 69*2=138", True),
        (DIVISOR, [], "First 143>68: 143, 69: 69*2=138", False),
        (DIVISOR, [], "69*3=207", False),  # does not go into it
        (DIVISOR, [], "143-143=0", False),
        (DIVISOR, ["69*2=138"], "Wait, let me redo that: 9*2=18, 6*2+1=13. So 69*2=138, as I had", True),
        (DIVISOR, ["69*2=138"], "Wait, let me redo that: 9*2=18, 6*2+1=13. So 60-9=51, not what I had", False),
        (DIVISOR, ["69*2=138"], "13-8=5, 3-3=0, 1-1=0. So 143-138=5", True),  # columns are no claims
        (LETTERS, [], "These: t h e s e has 2, 0+2=2", True),
        (LETTERS, ["These: t h e s e has 2, 0+2=2"], "terms: t e r m s has 1, 2+1=3", True),
        (LETTERS, ["These: t h e s e has 2, 0+2=2"], "terms: t e r m s has 1, 0+1=1", False),
        (LETTERS, ["These: t h e s e has 2, 0+2=2"], "e in t no, e yes 1, a no, m no. So team has 1, 2+1=3", False),
        (LETTERS, ["These: t h e s e has 3, 0+3=3"], "Let me redo that: e in t no. So These has 2, 0+2=2", True),
        ("Half of 48?", [], "48/2=24", True),  # of other problems nothing is said
    ],
)
def test_an_operand_has_to_come_from_somewhere(problem, before, step, rests):
    assert grounded(step, problem, before) is rests
    if not rests:
        assert slip(step, problem) is None
        assert slip(step, problem, before) == "derivation"


def test_a_trace_is_labelled_with_what_its_steps_had_before_them():
    texts = ("69*2=138\n\n", "143-138=5\n\n", "Now 6*15=90\n\n")
    steps = [TracedStep(number, number + 1, text, [0.0], [0.0]) for number, text in enumerate(texts)]
    labels = label_trace(Traced(Problem(text=DIVISOR, task="gcd"), 0, [1, 2, 3], steps))
    assert [label.kind for label in labels] == [None, None, "derivation"]


@pytest.mark.parametrize(
    ("step", "left"),
    [
        ("12+35=48, 48+1=50", "12+35"),
        ("8*7=56, 8*8+5=61, 87*8=616. So 87*18=1566", "87*8"),
        ("3-3=1, 5-6=0. So 63-63=1", "63-63"),
        ("12+35=47", None),
    ],
)
def test_the_claim_is_at_fault_where_it_was_worked_out_in_columns(step, left):
    wrong = wrong_equation(step)
    assert (wrong and wrong.left) == left


SUM = "State the final answer to the following arithmetic problem: 15 - 43 - 75 ="
FOUR = "State the final answer to the following arithmetic problem: 15 + 43 + 75 + 20 ="
PRODUCT = "Solve the following multiplication: 15 * 43. Give only the result as your final answer."
EQUATION = "Find the value of m in the equation: 12*m + 7 = 91"


@pytest.mark.parametrize(
    ("problem", "before", "text", "known"),
    [
        (SUM, [], "15-43=-28", True),
        (SUM, ["15-43=-28"], "-28-75=-103", True),
        (SUM, [], "15-43: 1<4, 43-15: 13-5=8, 3-1=2. So 15-43=-28", True),
        (SUM, [], "15-34: 1<3, 34-15: 14-5=9, 2-1=1. So 15-34=-19", False),
        (SUM, [], "15+43=58", False),
        (SUM, [], "15-34=-19", False),
        (SUM, ["15-43=-28"], "-38-75=-113", False),
        (SUM, ["15-43=-28"], "-28-75: 28+75: 8+5=13, 2+7+1=10. So -28-75=-103", True),
        (SUM, [], "-43+15=-28", True),
        (PRODUCT, [], "15*40=600", True),
        (PRODUCT, ["15*40=600", "15*3=45"], "600+45=645", True),
        (PRODUCT, ["15*40=600", "15*3=45"], "600+54=654", False),
        (PRODUCT, [], "15*4=60", False),
        (PRODUCT, [], "43*20=860", True),
        (PRODUCT, [], "40*15=600", True),
        (PRODUCT, [], "3*15=45", True),
        (SUM, ["15-43=-28"], "-28+-28=-56", False),  # once added, it is used up
        (SUM, ["15-43=-28", "-28-75=-103"], "-103+-28=-131", False),
        (FOUR, ["15+43=58", "75+20=95"], "58+95=153", True),
        (FOUR, ["15+43=58", "75+20=95"], "95+58=153", True),
        (FOUR, ["15+43=58", "58+75=133"], "133+58=191", False),
        (EQUATION, [], "91-7=84", True),
        (EQUATION, [], "91-8=83", False),
        (EQUATION, ["91-7=84"], "12*m=84", True),
        (EQUATION, ["91-7=84"], "13*m=84", False),
        (EQUATION, ["91-7=84"], "84/12=7", True),
    ],
)
def test_sums_products_and_equations_are_worked_at_with_the_numbers_that_are_there(problem, before, text, known):
    assert grounded(text, problem, before) is known
    assert (slip(text, problem, before) is None) is known


def test_a_story_with_a_product_in_it_says_nothing_of_what_may_be_calculated():
    story = "A garden of 3 x 4 metres holds 5 plants a metre. How many plants is that?"
    assert grounded("12*5=60", story, [])
    assert slip("12*5=60", story, []) is None
