import pytest

from nr_agent.detection.labels import StepLabels, first_final, label_trace, slip
from nr_agent.detection.traces import Traced, TracedStep
from nr_agent.episode import Problem


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("First 859+467=1326\n\n", None),
        ("First 859+467=1316\n\n", "calculation"),
        ("Try 13*2=26, 26-1=25. That is 25.", None),
        ("Try 13*2=26, 26-1=25. Not 25.", "derivation"),
        ("Try 13*2=26, 26-1=25. That is 63.", "derivation"),
        ("INDIRECT: i n d i r e c t has 1, 0+1=1", None),
        ("INDIRECT: i n d i r e c t has 2, 0+2=2", "calculation"),
        ("INDIRECT: i n d r e c t has 1, 0+1=1", "derivation"),
        ("d in i no, n no, d yes 1. So IND has 1, 0+1=1", None),
        ("d in i no, n no, d yes 1. So ind has 2", "calculation"),
        ("d in i no, n yes 1, d yes 2. So ind has 2", "calculation"),
        ("d in i no, n no, d no. So ind has 0", "calculation"),
        ("d in i no, d yes 1. So ind has 1", "derivation"),
        ("n in i no, n yes 1, d no. So ind has 1", "derivation"),
        ("So the answer is 5.", None),
        ("165 is 8*14", "calculation"),
        ("112 is 8*14", None),
        ("45-51: 4<5, 51-45: 11-5=6, 4-4=0. So 45-51=-6", None),
        ("45-51: 4>5, 51-45: 11-5=6, 4-4=0. So 45-51=-6", "calculation"),
        ("412-478: 4=4, 1=7, 478-412", "calculation"),
        ("First 119<135: 135, 119: 135-119=16", None),
        ("First 119>135: 135, 119: 135-119=16", "calculation"),
        ("119=135: 135, 119: 135-119=16", "calculation"),
        ("Wait, let me redo that: 1=1, 1<3. So 119>135, not what I had", "calculation"),
        ("8*46=368, 16*46=736>384, 384-368=16", None),
        ("8*46=368>384", "calculation"),
        ("16*46=746>384", "calculation"),
    ],
)
def test_a_slip_is_found_and_named(text, kind):
    numbers, letters = "numbers: 13, 2", 'How many times does the letter "d" appear in the text: "INDIRECT"?'
    assert slip(text, numbers if text.startswith("Try") else letters) == kind


def trace(*steps, answer="7", closed=True):
    traced = Traced(Problem(text="?"), 0, [], answer=answer, closed=closed)
    for number, (text, trial) in enumerate(steps):
        traced.steps.append(TracedStep(number, number + 1, text, [0.0], [0.0], trial))
    return traced


def test_overthinking_begins_where_the_trial_answer_is_final_for_good():
    traced = trace(("3+4=7", "7"), ("2+2=4", "4"), ("3+4=7", "7"), ("check", "7"))
    assert first_final(traced) == 2
    assert [label.instance for label in label_trace(traced)] == [False, False, True, True]


def test_a_trace_without_an_answer_has_no_overthinking():
    traced = trace(("3+4=7", "7"), answer=None)
    assert [label.instance for label in label_trace(traced)] == [None]


def test_a_trace_that_was_cut_has_no_overthinking_whatever_its_last_trial_says():
    steps = ("1+1=3\n\n", "3"), ("3+4=7\n\n", "7"), ("2+2=4\n\n", "7")
    ended, cut = (label_trace(trace(*steps, closed=closed)) for closed in (True, False))
    assert [label.instance for label in ended] == [False, True, True]
    assert [label.instance for label in cut] == [None] * 3
    assert [(label.intra_step, label.inter_step) for label in cut] == [
        (label.intra_step, label.inter_step) for label in ended
    ]


def test_a_step_that_was_cut_has_no_label():
    steps = ("1+1=2\n\n", "2"), ("10*6=6", "2")
    (_, torn), (_, whole) = (label_trace(trace(*steps, closed=closed)) for closed in (False, True))
    assert torn == StepLabels(None, None, None, None)
    assert (whole.intra_step, whole.kind) == (True, "calculation")
    assert label_trace(trace(*steps, ("So.\n\n", "2"), closed=False))[1].intra_step is True


@pytest.mark.parametrize(("trial", "circles"), [("5", [False, True, True]), ("7", [False, False, False])])
def test_of_a_trace_that_was_cut_a_guess_is_no_answer_that_was_reached(trial, circles):
    traced = trace(*[("1+1=2\n\n", trial)] * 3, answer=trial, closed=False)
    traced.problem = Problem(text="?", reference="7")
    assert [label.inter_step for label in label_trace(traced)] == circles


@pytest.mark.parametrize(
    "text", ["Shape: A has 4 sides.", "4+3=7. That is 3 more than 4.", "60 is 2*2*3*5", "60 is 2 * 30"]
)
def test_what_a_family_says_in_its_own_words_is_nothing_of_the_kind_elsewhere(text):
    assert slip(text, "How many sides has the shape?", []) is None


def test_circling_is_a_repeated_result_before_the_answer_and_not_after():
    traced = trace(("1+1=2", None), ("So.", None), ("1+1=2", None), ("3+4=7", "7"), ("3+4=7", "7"))
    assert [label.inter_step for label in label_trace(traced)] == [False, False, True, False, False]
