"""Answers in texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nr_agent.answers import extract_answer, same_answer, states_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"The final answer is \boxed{42}.", "42"),
        (r"\boxed{1} and then \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{a\}b}", r"a\}b"),
        (r"\boxed{7} but \boxed{never closed", "7"),
        (r"\boxed{ } The answer is 9", "9"),
        ("So the answer is 4959.", "4959"),
        ("So the answer is 3.5.\n\nSo the answer is still (13+5)+17.\n\nBye.", "(13+5)+17"),
        ("**Answer:** 12", "12"),
        ("Answer:\n  12", "12"),
        ("first\n\n the last line \n \n", "the last line"),
        ("So:\n```python\na = 1\n\nprint(a)\n```\n", "a = 1\n\nprint(a)"),
        ("```\n1\n```\nand\n```py\n2\n```", "2"),
        ("```\n```", "```"),
        ("```", "```"),
        ("", None),
        (" \n ", None),
    ],
)
def test_answer_is_boxed_or_announced_or_last(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "states"),
    [("So the answer is 4.", True), (r"\boxed{4}", True), ("2+2=4", False), ("the answer is", False)],
)
def test_line_without_announcement_states_nothing(text, states):
    assert states_answer(text) is states


@given(st.text())
def test_any_text_is_read_without_an_error(text):
    answer = extract_answer(text)
    assert answer is None or answer.strip() == answer != ""
    assert (answer is None) <= (text.strip() == "" or not text.split())


@given(st.text(alphabet="abc123 +-", min_size=1).filter(str.strip), st.text(alphabet="xyz \n"))
def test_box_wins_over_everything_around_it(answer, around):
    assert extract_answer(f"{around} the answer is 0 \\boxed{{{answer}}} {around}") == answer.strip()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("72", "Natalia sold 72 clips altogether in April and May.", True),
        ("72", "Together 48+24=72 clips.", True),
        ("72", "She sold 72 in April and 48 in May", False),
        ("$1,200", "1200", True),
        ("7", "7.0", True),
        ("50%", "It is 50.", True),
        ("3/4", r"\frac{3}{4}", True),
        ("4", "3/4", False),
        ("-3", "3", False),
        ("5", "x^5", False),
        ("12", "v12", False),
        ("return 5", "x = 5", False),
        ("a  b", "ab", True),
        ("1/0", "1/0.", True),
        ("", "", True),
    ],
)
def test_answers_are_the_same_number_in_words_of_their_own(one, other, same):
    assert same_answer(one, other) is same_answer(other, one) is same
