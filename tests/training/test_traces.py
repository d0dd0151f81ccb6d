import itertools
import math
import random
import re

import pytest

from nr_agent.detection.labels import results, slip
from nr_agent.equations import equations
from nr_agent.tasks import FAMILIES, draw, score
from nr_agent.tokens import IN_DETAIL
from nr_agent.training.traces import Habits, teach
from nr_agent.training.traces.arithmetic import apply, by_doubling, compared, compared_by_digits, near_miss, work_out
from nr_agent.training.traces.families import round_at_length

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
        (96, 8, "2*8=16, 4*8=32, 8*8=64, 16*8=128>96, 96-64=32, 32=32, 8+4=12, 32-32=0"),
        (464, 58, "2*58=116, 4*58=232, 8*58=464, 16*58=928>464, 464-464=0"),
        (
            140,
            28,
            "2*28=56, 4*28=112, 8*28=224>140, 140-112: 10-2=8, 4-1-1=2, 1-1=0, 140-112=28, 56>28, 28=28, "
            "4+1=5, 28-28=0",
        ),
        (7, 7, "2*7=14>7, 1*7=7, 7-7=0"),
        (0, 5, "1*5=5>0"),
    ],
)
def test_a_long_division_doubles_until_it_is_too_much_and_says_what_it_takes_away(a, b, columns):
    assert work_out(a, "/", b) == columns


@pytest.mark.parametrize(
    ("a", "op", "b", "columns"),
    [
        (45, "-", 51, "4<5, 51-45: 11-5=6, 5-4-1=0"),
        (93, "-", 45, "9>4, 13-5=8, 9-4-1=4"),
        (412, "-", 478, "4=4, 1<7, 478-412: 8-2=6, 7-1=6, 4-4=0"),
        (57, "-", 961, "0<9, 961-57: 11-7=4, 6-5-1=0, 9-0=9"),
        (-5, "+", 12, "0<1, 12-5: 12-5=7, 1-0-1=0"),
        (1002, "-", 384, "1>0, 12-4=8, 10-8-1=1, 10-3-1=6, 1-0-1=0"),
        (63, "-", 63, "6=6, 3=3"),
    ],
)
def test_of_a_difference_the_digits_that_decide_are_compared_first(a, op, b, columns):
    assert work_out(a, op, b) == columns
    assert slip(columns) is None


@pytest.mark.parametrize(
    ("a", "b", "worked"),
    [
        (
            95,
            10,
            "95/10: 2*10=20, 4*10=40, 8*10=80, 16*10=160>95, 95-80=15, 40>15, 20>15, 10<15, 8+1=9, 15-10=5, 95-5=90",
        ),
        (90, 46, "90/46: 2*46=92>90, 1*46=46, 90-46=44"),
        (60, 20, "60/20: 2*20=40, 4*20=80>60, 60-40=20, 20=20, 2+1=3, 20-20=0"),
    ],
)
def test_the_largest_multiple_is_found_by_doubling(a, b, worked):
    assert by_doubling(a, b) == worked
    assert slip(worked) is None


@pytest.mark.parametrize(("a", "b"), [(384, 46), (250, 46), (700, 50), (399, 2), (157, 104)])
def test_a_worked_multiple_says_what_it_comes_to(a, b):
    worked = equations(by_doubling(a, b))
    assert all(equation.holds for equation in worked)
    assert not a % b or any(equation.claimed == a // b * b for equation in worked)


def test_every_round_of_euclid_says_first_which_two_numbers_are_left():
    for seed in range(60):
        problem = draw("gcd", seed)
        trace = teach("gcd", problem.text, random.Random(seed), Habits(slip=0.0, redo=0.0, repeat=0.0, careful=0.0))
        rounds = [re.findall(r"(\d+), (\d+): ", step[0].text) for step in trace.steps]
        left = [tuple(map(int, stated)) for found in rounds for stated in found]
        assert left
        assert all(larger >= smaller for larger, smaller in left)
        first_pass = list(dict.fromkeys(left))
        assert all(b == c for (_, b), (c, _) in itertools.pairwise(first_pass))
        assert first_pass[-1][1] == math.gcd(*first_pass[0])


def test_the_numbers_of_a_divisor_are_compared_as_they_are_given_before_the_first_round():
    plain = Habits(slip=0.0, redo=0.0, repeat=0.0, careful=0.0, stopped=0.0)
    for seed in range(60):
        problem = draw("gcd", seed)
        first, second = re.findall(r"\d+", problem.text)[:2]
        text = teach("gcd", problem.text, random.Random(seed), plain).thinking
        every = re.findall(r"(\d+)([<>=])(\d+): (\d+), ", text)
        found = [one for one in every if one[0] in (first, second) and one[2] in (first, second)]
        assert found
        assert {(a, b) for a, _, b, _ in found} == {(first, second)}
        assert all(int(larger) == max(int(first), int(second)) for *_, larger in found)
        # Later rounds are compared where they are worked out at length: what was taken away, and what is left.
        later = [one for one in every if one not in found]
        assert all(sign == ">" and larger == a for a, sign, _, larger in later)
        assert bool(later) <= (IN_DETAIL in text)
        assert len(found) == 1 + text.count("Let me go through") + text.count("Let me work it out")


def test_two_numbers_that_were_compared_wrongly_are_noticed_at_once():
    compared = 0
    for seed in range(60):
        problem = draw("gcd", seed)
        trace = teach("gcd", problem.text, random.Random(seed), Habits(slip=1.0, astray=1.0, stopped=0.0, careful=0.0))
        first, second = re.findall(r"\d+", problem.text)[:2]
        if first == second:
            continue
        compared += 1
        text = "".join(span.text for span in trace.steps[0])
        assert 0 in trace.slips
        assert slip(text) == "calculation"
        assert trace.steps[0][-1].wrong and trace.steps[0][-1].text[0] in "<>"
        assert "not what I had" in trace.steps[1][0].text and slip(trace.steps[1][0].text, problem.text, [text]) is None
    assert compared > 50


def test_partial_products_are_added_column_by_column():
    assert work_out(44, "*", 16).endswith("44*10=440, 264+440: 4+0=4, 6+4=10, 2+4+1=7, 264+440=704")


@pytest.mark.parametrize(
    ("a", "b", "columns"),
    [
        (594, 90, "9*4=36, 9*9=81, 81+3=84, 9*5=45, 45+8=53, 594*90=53460"),
        (594, 600, "6*4=24, 6*9=54, 54+2=56, 6*5=30, 30+5=35, 594*600=356400"),
        (600, 594, "594*600: 6*4=24, 6*9=54, 54+2=56, 6*5=30, 30+5=35, 594*600=356400"),
        (0, 7, "7*0: 0*7=0"),
    ],
)
def test_a_product_is_split_by_the_factor_with_fewer_digits_to_split(a, b, columns):
    assert work_out(a, "*", b) == columns


def test_careful_rounds_of_euclid_look_at_nothing_in_one_glance():
    careful = Habits(slip=0.0, redo=0.0, repeat=0.0, careful=1.0, stopped=0.0)
    for seed in range(40):
        problem = draw("gcd", seed)
        asked = tuple(map(int, re.findall(r"\d+", problem.text)[:2]))
        steps = teach("gcd", problem.text, random.Random(seed), careful).steps
        a, b, order, rounds = max(asked), min(asked), asked, 0
        for step in steps:
            text = "".join(span.text for span in step)
            decided = f"{IN_DETAIL}{compared_by_digits(*order)}, {compared(*order)}: {a}, {b}: {by_doubling(a, b)}. So "
            if text.startswith(decided):
                rounds += 1
                a, b = b, a % b
                order = a, b
            if not b:
                break
        assert not b and rounds > 0


def test_what_is_left_may_be_the_larger_one_and_is_compared_as_it_stands():
    assert round_at_length(62, 46, (384, 46), turned=True) == f"4<6, 46<62: 62, 46: {by_doubling(62, 46)}"
    assert round_at_length(46, 16, (384, 46)) == f"4>1, 46>16: 46, 16: {by_doubling(46, 16)}"
    assert round_at_length(384, 46, (46, 384)) == f"0<3, 46<384: 384, 46: {by_doubling(384, 46)}"


@pytest.mark.parametrize("family", ["chain_sum", "products", "simple_equations", "countdown"])
def test_what_is_worked_out_at_length_is_named_first(family):
    worked = 0
    for seed in range(60):
        problem = draw(family, seed)
        trace = teach(family, problem.text, random.Random(seed), Habits(slip=0.0, careful=0.5, stopped=0.0))
        for number in trace.careful:
            text = "".join(span.text for span in trace.steps[number])
            named = text.removeprefix(IN_DETAIL).partition(": ")[0]
            assert text.startswith(IN_DETAIL) and text.rpartition("So ")[2].startswith(f"{named}="), text
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
        problem = draw("chain_sum", seed)
        trace = teach("chain_sum", problem.text, random.Random(seed), Habits(slip=0.3, astray=0.0))
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
    assert passes == ({0, 1} if family == "gcd" else {0, 1, 2, 3})  # Euclid's way is long


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
