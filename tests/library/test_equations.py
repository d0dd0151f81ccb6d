from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nr_agent.equations import comparisons, equations, evaluate

NUMBERS = st.integers(0, 999).map(str)
EXPRESSIONS = st.recursive(
    NUMBERS,
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda t: f"({t[0]}{t[1]}{t[2]})"),
    max_leaves=8,
)


@given(EXPRESSIONS)
def test_value_of_an_expression_is_what_python_says(expression):
    # The oracle may evaluate: the text is ours, made of digits, brackets and three operators.
    assert evaluate(expression) == Fraction(eval(expression))  # noqa: S307


@given(st.text(max_size=60))
def test_any_text_can_be_searched_for_equations(text):
    assert all(isinstance(equation.holds, bool) for equation in equations(text))


@given(st.integers(0, 9999), st.integers(1, 999), st.sampled_from("+-*"), st.integers(-5, 5))
def test_wrong_results_are_told_from_right_ones(a, b, op, off):
    right = {"+": a + b, "-": a - b, "*": a * b}[op]
    (equation,) = equations(f"Then {a}{op}{b}={right + off}\n\n")
    assert equation.holds == (off == 0)
    assert equation.value == right


@pytest.mark.parametrize(
    "text",
    [
        *("x=5", "7=7", "-11*l=-220", "12-3=9-1", "1/0=3", "5 = 2 + 3", "2**3=8", "3*4=12*1", "a1+2=3"),
        # The end of an expression that is no arithmetic, or the beginning of a right side.
        *("2^3 + 1 = 9", "x*2 + 3 = 11", "3x + 2*4 = 20", "20% * 50 + 3 = 13", "12 12*2 = 24"),
        *("1,200 + 300 = 1,500", "500 * 2 = 1,000", "3/4 = 75%", "3/4 = 75 %", "7/2 = 3 1/2"),
        *("17/5 = 3 remainder 2", "17 / 5 = 3 R2", "17/5 = 3 r 2", "3/4 = 75.5%"),
    ],
)
def test_what_is_no_checkable_equation_is_passed_over(text):
    assert equations(text) == []


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Try 1-1=0, 0*19=0. Not 19.", ["1-1", "0*19"]),
        ("So 3 * (4+1) = 15.", ["3*(4+1)"]),
        ("220/-11=-20", ["220/-11"]),
        ("66*4=264\n\n304-264=40", ["66*4", "304-264"]),
        ("1. 3 + 4 = 7\n2. 5*6=30", ["3+4", "5*6"]),
        ("There are 12. 12 * 2 = 24", ["12*2"]),
        ("- 3 + 4 = 7\n* 5 + 4 = 9", ["3+4", "5+4"]),
        ("Try 8*3=24 24/6=4.", ["8*3", "24/6"]),
        ("**3+4=8.**", ["3+4"]),
        ("5*3=15,15-4=12", ["5*3", "15-4"]),
        ("He has 5*3 = 15, 15-4=11 left", ["5*3", "15-4"]),
    ],
)
def test_equations_are_found_in_running_text(text, left):
    assert [equation.left for equation in equations(text)] == left


@pytest.mark.parametrize(
    ("text", "compared"),
    [
        ("412-478: 4=4, 1<7, 478-412: 8-2=6. So 412-478=-66", [(4, "=", 4), (1, "<", 7)]),
        ("First 119<135: 135, 119: 135-119=16", [(119, "<", 135)]),
        ("16*46=736>384, 384-368=16", [(736, ">", 384)]),
        ("10% of 50=5, 12 + 5=17 and x=5", []),
        ("Thus, 5=10/2, 3=1.5*2 and 3<4.5", []),
        ("Wait, 3>4? No.", []),
        ("Total: 10=2 tens. So 3<2 is impossible", []),
        ("so, 1=2^0, and 5<3 false", []),
        ("Wait: 1<3. So 144<336, not what I had\n\n", [(1, "<", 3), (144, "<", 336)]),
    ],
)
def test_comparisons_are_found_where_a_claim_begins_or_behind_a_result(text, compared):
    assert [(one.left, one.sign, one.right) for one in comparisons(text)] == compared


@pytest.mark.parametrize("hostile", ["__import__('os')", "9**9**9", "(" * 50 + "1" + ")" * 50, "1;2", ""])
def test_what_is_no_arithmetic_has_no_value(hostile):
    assert evaluate(hostile) is None


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("10/3 = 3.33", True),
        ("20/3 = 6.67", True),
        ("20/3 = 6.66", True),  # cut off
        ("20/3 = 6.68", False),
        ("20/3 = 6.6", True),
        ("5.99+3 = 8.9", False),  # a digit is missing
        ("5.99+3 = 9.0", True),
        ("10/3 = 3", False),
        ("2*3 = 6.0", True),
        ("2*3 = 6.1", False),
        ("1.5*3 = 4.6", False),
        ("1-5/3 = -0.67", True),
        ("1-5/3 = 0.67", False),
        ("200/3=66.66666666666667", True),
        ("1.87*9=16.830000000000002", True),
    ],
)
def test_decimals_are_right_as_far_as_they_are_given(text, holds):
    (equation,) = equations(text)
    assert equation.holds is holds


def test_an_equation_stands_where_it_is_written():
    text = "There are 12. 12 * 2 = 24 eggs"
    (equation,) = equations(text)
    assert text[equation.start : equation.end] == "12 * 2 = 24"
