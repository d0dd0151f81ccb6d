import itertools
import random

import pytest

from nr_agent.detection.labels import results, slip
from nr_agent.equations import equations
from nr_agent.tasks import FAMILIES, draw, score
from nr_agent.training.traces import Habits, teach
from nr_agent.training.traces.arithmetic import apply, by_doubling, near_miss, work_out

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


@pytest.mark.parametrize(
    ("a", "b", "columns"),
    [
        (207, 9, "2*9=18, 4*9=36, 8*9=72, 7-0=7, 10-8=2, 1-1=0, 207-180=27, 27-18=9, 9-9=0, 20+2+1=23"),
        (464, 58, "2*58=116, 4*58=232, 8*58=464, 464-464=0"),
        (96, 8, "2*8=16, 4*8=32, 8*8=64, 96-80=16, 16-16=0, 10+2=12"),
    ],
)
def test_a_long_division_takes_doubles_away_and_guesses_no_digit(a, b, columns):
    assert work_out(a, "/", b) == columns


@pytest.mark.parametrize(
    ("a", "b", "worked"),
    [
        (384, 46, "384/46: 2*46=92, 4*46=184, 8*46=368"),
        (250, 46, "250/46: 2*46=92, 4*46=184, 184+46=230"),
        (90, 46, "90/46: 1*46=46"),
        (700, 50, "700/50: 2*50=100, 4*50=200, 8*50=400, 400+200=600, 600+100=700"),
    ],
)
def test_the_largest_multiple_is_found_by_doubling(a, b, worked):
    assert by_doubling(a, b) == worked
    assert slip(worked) is None


def test_partial_products_are_added_column_by_column():
    assert work_out(44, "*", 16).endswith("44*10=440, 4+0=4, 6+4=10, 2+4+1=7, 264+440=704")


@pytest.mark.parametrize("family", ["chain_sum", "products", "simple_equations", "countdown"])
def test_what_is_worked_out_at_length_is_named_first(family):
    worked = 0
    for seed in range(60):
        problem = draw(family, seed)
        trace = teach(family, problem.text, random.Random(seed), Habits(slip=0.0, careful=0.5, stopped=0.0))
        for number in trace.careful:
            text = "".join(span.text for span in trace.steps[number])
            assert text.rpartition("So ")[2].startswith(f"{text.partition(': ')[0]}="), text
            worked += 1
    assert worked > 60


@pytest.mark.parametrize("family", ["chain_sum", "gcd", "letter_counting"])
def test_a_planted_slip_is_masked_and_noticed_at_once(family):
    planted = 0
    for seed in range(60):
        problem = draw(family, seed)
        trace = teach(family, problem.text, random.Random(seed), Habits(slip=0.3, astray=0.0, repeat=0.0))
        masked = {number for number, step in enumerate(trace.steps) if any(not span.trained for span in step)}
        assert masked == {number for number in trace.slips if number < len(trace.steps)}
        for number, (step, following) in enumerate(itertools.pairwise(trace.steps)):
            if number in masked:
                planted += 1
                assert "not what I had" in following[0].text
                before = ["".join(span.text for span in earlier) for earlier in trace.steps[:number]]
                assert slip("".join(span.text for span in step), problem.text, before) is not None
    assert planted > 20


def test_a_planted_slip_shows_from_the_first_character_that_is_wrong():
    shown = 0
    for seed in range(60):
        problem = draw("products", seed)
        trace = teach("products", problem.text, random.Random(seed), Habits(slip=0.3, astray=0.0))
        for number in trace.slips & set(range(len(trace.steps))):
            step = trace.steps[number]
            right = "".join(span.text for span in step if not span.wrong)
            wrong = next((span.text for span in step if span.wrong), "")
            (equation,) = equations("".join(span.text for span in step))
            value = str(equation.value)
            kept = right.rpartition("=")[2]
            assert value.startswith(kept)
            assert wrong[:1] != value[len(kept) :][:1]
            shown += 1
    assert shown > 20


def test_a_step_that_goes_astray_holds_in_itself_and_not_with_what_is_known():
    astray = seen = 0
    for seed in range(150):
        problem = draw("chain_sum", seed)
        trace = teach("chain_sum", problem.text, random.Random(seed), Habits(slip=0.5, astray=1.0))
        texts = ["".join(span.text for span in step) for step in trace.steps]
        for number in trace.slips & set(range(len(texts))):
            if slip(texts[number]) is None:
                astray += 1
                seen += slip(texts[number], problem.text, texts[:number]) is not None
    assert astray > 60
    assert seen > 0.9 * astray


def test_what_repeats_is_masked_and_brings_nothing_new_before_the_answer_is_known():
    repeats = 0
    for seed in range(60):
        for family in FAMILIES:
            problem = draw(family, seed)
            trace = teach(family, problem.text, random.Random(seed), Habits(repeat=0.3))
            texts = ["".join(span.text for span in step) for step in trace.steps]
            for number in trace.repeats:
                repeats += 1
                assert number <= trace.known
                assert not any(span.trained for span in trace.steps[number])
                assert results(texts[number]) <= set().union(*map(results, texts[:number]))
    assert repeats > 40


@pytest.mark.parametrize("family", FAMILIES)
def test_the_answer_is_known_before_it_is_said(family):
    for seed in range(40):
        problem = draw(family, seed)
        trace = teach(family, problem.text, random.Random(seed))
        said = next((n for n, step in enumerate(trace.steps) if step[0].text.startswith("So the answer")), None)
        assert trace.known is not None
        assert said is None or trace.known < said


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
