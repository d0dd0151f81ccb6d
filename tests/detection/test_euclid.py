import pytest

from nr_agent.detection.euclid import Pair, goes_on, standing

PROBLEM = "Find the Greatest Common Divisor (GCD) of these numbers: 384, 46. Give only the GCD as your final answer."


def told(*steps):
    return [(step.removeprefix("Wait, let me redo that: "), "let me redo" in step) for step in steps]


@pytest.mark.parametrize(
    ("before", "pair"),
    [
        ([], Pair(384, 46)),
        (["46*8=368"], Pair(384, 46, 368)),
        (["First 46*8=368", "Then 384-368=16"], Pair(46, 16)),
        # Not the largest multiple: the work goes on with what is left, which is more than was taken away.
        (["46*7=322", "384-322=62"], Pair(62, 46, turned=True)),
        (["46*7=322", "384-322=62", "62, 46: 62-46=16"], Pair(46, 16)),
        (["46*8=358", "384-358=26"], Pair(46, 26)),  # a wrong value is gone on with
        (["46*8=358", "Wait, let me redo that: So 46*8=368, not what I had"], Pair(384, 46, 368)),
        (["384 is 9*46", "Wait, let me redo that: So 9*46=414, not what I had"], Pair(384, 46)),
        (["46*8=368", "384-368=16", "46*8=368"], Pair(46, 16)),  # going in circles changes nothing
        (["17*3=51", "46 is 2*16"], Pair(46, 16)),  # from nowhere; then the step says itself where it stands
        (["17*3=51"], None),
        (["384, 46: 46*8=368", "Then 384-368=16"], Pair(46, 16)),
        (["First 384>46: 384, 46: 46*8=368", "Then 384-368=16"], Pair(46, 16)),
        (["46*8=368", "384-368=16", "Now 384, 46: 46*7=322"], Pair(384, 46, 322)),  # taken at its word
        (["17*3=51", "46, 16: 46-16=30"], Pair(30, 16, turned=True)),
        (["384<46: 46, 384: 46-384=-338"], None),  # the smaller one taken for the larger one
        (["384<46: 46, 384: 46-384=-338", "Wait, let me redo that: So 384>46, not what I had"], Pair(384, 46)),
        (
            ["384<46: 46, 384: 46-384=-338", "Wait, let me redo that: So 384>46, not what I had", "Now 46*8=368"],
            Pair(384, 46, 368),
        ),
        (["46*8=368", "384>46"], Pair(384, 46, 368)),  # a comparison takes nothing away
        (["As 46 goes into 384 eight times, 16 are left."], None),
        (["384 is 8*46", "So the answer is 46."], None),
    ],
)
def test_where_the_work_stands(before, pair):
    assert standing(PROBLEM, told(*before)) == pair


@pytest.mark.parametrize(
    ("before", "step", "next_one"),
    [
        ([], "46*8=368", True),
        ([], "8*46=368", True),
        ([], "46*7=322", True),
        ([], "46*9=414", False),  # does not go into 384
        ([], "384-46=338", True),
        ([], "46*8=358", True),  # its value is another checker's
        (["46*8=368"], "384-368=16", True),
        (["46*8=368"], "384-322=62", False),
        (["46*8=368", "384-368=16"], "16*2=32", True),
        (["46*8=368", "384-368=16"], "46*3=138", False),  # the round before
        (["46*8=368", "384-368=16"], "384-46=338", False),
        (["46*8=368", "384-368=16"], "46 is 2*16", True),
        (["46*8=368", "384-368=16"], "384 is 24*16", False),
        (["46*8=368", "384-368=16"], "46*8=368", None),  # written before: circling, no slip
        (["17*3=51"], "46*8=368", None),
        (["384, 46: 46*8=368", "384-368=16", "46, 16: 46-46=0"], "16, 0: 16-0=16", False),  # nothing was left
        (["384, 46: 46*8=368", "384-368=16", "46, 23: 23*2=46"], "46-46=0", True),
        ([], "First 384, 46: 46*8=368", True),
        ([], "46, 384: 46*8=368", False),
        ([], "First 384>46: 384, 46: 46*8=368", True),
        ([], "46<384: 384, 46: 46*8=368", True),
        ([], "384>46: 46, 384: 46*8=368", False),
        ([], "394>46: 384, 46: 46*8=368", False),  # copied wrongly
        (["46*8=368", "384-368=16"], "Now 46, 16: 16*2=32", True),
        (["46*8=368", "384-368=16"], "Now 46, 26: 26*1=26", False),
        (["46*8=368", "384-368=16"], "46, 16: 46 is 2*16", True),  # its value is another checker's
        (
            ["384<46: 46, 384: 46-384=-338", "Wait, let me redo that: So 384>46, not what I had"],
            "384>46: 384, 46: 46*9=414",
            False,
        ),
        ([], "What is left of it?", None),
    ],
)
def test_whether_a_step_is_the_next_one(before, step, next_one):
    assert goes_on(step, PROBLEM, told(*before)) is next_one


def test_of_problems_that_name_their_numbers_elsewhere_nothing_is_said():
    assert goes_on("46*9=414", "What is the gcd of 384 and 46?", []) is None
