import itertools
import random

import pytest

from nr_agent.detection.labels import slip
from nr_agent.tasks import FAMILIES, draw, score
from nr_agent.training.traces import Habits, teach
from nr_agent.training.traces.arithmetic import apply, near_miss, work_out

CAREFUL = Habits(slip=0.0, redo=0.3)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_teacher_is_right_on_every_problem(family):
    for seed in range(150):
        problem = draw(family, seed)
        assert score(problem, teach(family, problem.text, random.Random(seed)).answer), problem.text


@pytest.mark.parametrize("family", FAMILIES)
def test_a_careful_teacher_makes_no_slip_that_can_be_checked(family):
    for seed in range(150):
        problem = draw(family, seed)
        for step in teach(family, problem.text, random.Random(seed), CAREFUL).steps:
            text = "".join(span.text for span in step)
            assert slip(text, problem.text) is None, text


@pytest.mark.parametrize("family", ["chain_sum", "gcd", "letter_counting"])
def test_a_planted_slip_is_masked_and_noticed_at_once(family):
    planted = 0
    for seed in range(60):
        problem = draw(family, seed)
        steps = teach(family, problem.text, random.Random(seed), Habits(slip=0.3)).steps
        for step, following in itertools.pairwise(steps):
            if any(not span.trained for span in step):
                planted += 1
                assert "not what I had" in following[0].text
                assert slip("".join(span.text for span in step), problem.text) is not None
    assert planted > 20


@pytest.mark.parametrize("family", FAMILIES)
def test_verification_does_not_depend_on_need(family):
    problem = draw(family, 5)
    passes = {
        sum("still" in step[0].text for step in teach(family, problem.text, random.Random(seed)).steps)
        for seed in range(60)
    }
    assert passes == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "text", ["859 + 467", "-41 + 7", "412 - 961", "-5 - 8", "34 * 27", "990 / 55", "-220 / -11", "7 * 3", "100 * 40"]
)
def test_every_column_of_a_calculation_holds(text):
    left, op, right = text.split()
    a, b = int(left), int(right)
    columns = work_out(a, op, b)
    assert slip(columns) is None, columns
    assert apply(a, op, b) is not None


def test_a_near_miss_is_never_the_value():
    rng = random.Random(0)
    assert all(near_miss(value, rng) != value for value in range(-50, 50) for _ in range(20))
