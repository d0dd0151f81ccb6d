"""Every label says where it is from and what its source cannot tell."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage

from nr_agent.detection.judge import Judge, read_verdict
from nr_agent.detection.labels import is_right, label_trace
from nr_agent.detection.metrics import first_error_f1
from nr_agent.detection.processbench import (
    StepwiseExample,
    as_example,
    as_trace,
    read_examples,
    read_solutions,
    write_examples,
)
from nr_agent.detection.reading_errors import best_threshold, first_above, read_errors, slip_scores
from nr_agent.detection.rollouts import roll_out, rollout_labels
from nr_agent.detection.sources import LIMITS, SOURCES, agreeing, first_error_labels, own_labels
from nr_agent.detection.traces import Traced, TracedStep, sample_traces
from nr_agent.engine.protocol import Sampling
from nr_agent.episode import Problem
from nr_agent.errors import LabelError
from nr_agent.models.registry import load_detector, load_engine
from nr_agent.tasks import draw
from nr_agent.testing import ScriptedEngine
from nr_agent.tokens import END_THINK

SOLUTIONS = Path(__file__).parents[3] / "shared/data/gsm8k_example_model_solutions.jsonl"
ROW = {
    "id": "gsm8k-0",
    "generator": "Qwen2-7B-Instruct",
    "problem": "Sue had 12 and got 35. How many?",
    "steps": ["She had 12.", "12+35=48", "So 48."],
    "final_answer_correct": False,
    "label": 1,
}


@pytest.fixture(scope="module")
def engine():
    loaded = load_engine("nano")
    yield loaded
    loaded.shutdown()


def trace(*texts, answer="7"):
    steps = [TracedStep(i, i + 1, text, [0.0], [0.0], None) for i, text in enumerate(texts)]
    return Traced(Problem(text="?", task="chain_sum", seed=3), 0, [], steps, answer=answer, closed=True)


def test_every_source_has_a_limit_and_own_labels_carry_them():
    assert set(LIMITS) == set(SOURCES)
    labels = own_labels(trace("1+1=2", "1+1=3"))
    assert {label.source for label in labels} == {"equations", "repetition", "trial_answers"}
    assert all(label.limit == LIMITS[label.source] for label in labels)
    assert [label.value for label in labels if label.level == "intra_step"] == [False, True]


def test_behind_the_first_error_nothing_is_said():
    assert [label.value for label in first_error_labels(1, 4, "processbench")] == [False, True]
    assert [label.value for label in first_error_labels(-1, 3, "processbench")] == [False] * 3


def test_sources_that_agree_keep_what_both_say():
    judged, rolled = first_error_labels(2, 4, "judge"), first_error_labels(1, 4, "rollouts")
    assert [(label.step, label.source) for label in agreeing(judged, rolled)] == [(0, "judge")]


# ProcessBench


@pytest.mark.parametrize("form", ["jsonl", "json"])
def test_rows_as_published_are_read_and_written_again(tmp_path, form):
    path = tmp_path / f"rows.{form}"
    rows = [ROW, ROW | {"id": "b", "label": -1, "extra": "kept out"}]
    path.write_text(json.dumps(rows) if form == "json" else "\n".join(map(json.dumps, rows)))
    examples = read_examples(path)
    assert [example.label for example in examples] == [1, -1]
    assert {label.source for label in examples[0].labels()} == {"processbench"}
    assert write_examples(tmp_path / "again.jsonl", examples) == 2
    assert json.loads((tmp_path / "again.jsonl").read_text().splitlines()[0]) == ROW
    assert read_examples(tmp_path / "again.jsonl") == examples


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": 3}, "row 2: .*behind the last of 3 steps"),
        ({"label": -2}, "row 2: label"),
        ({"steps": []}, "row 2: steps"),
        ({"problem": None}, "row 2: problem"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, change, said):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps(ROW | change))
    with pytest.raises(LabelError, match=said):
        read_examples(path)


def test_what_is_no_json_or_not_there_is_an_error(tmp_path):
    (tmp_path / "broken.jsonl").write_text(json.dumps(ROW) + '\n{"id"')
    with pytest.raises(LabelError, match="line 2 is no JSON"):
        read_examples(tmp_path / "broken.jsonl")
    with pytest.raises(LabelError, match="cannot be read"):
        read_examples(tmp_path / "missing.jsonl")


def test_a_trace_and_its_labels_become_a_row_and_unknown_steps_do_not():
    traced = trace("1+1=2\n\n", "1+1=3\n\n", "So 3.")
    example = as_example(traced, own_labels(traced), "nano", correct=False)
    assert (example.label, example.steps[1], example.generator) == (1, "1+1=3", "nano")
    with pytest.raises(LabelError, match="step 1"):
        as_example(traced, first_error_labels(-1, 1, "judge"), "nano")


def test_a_row_is_read_as_if_the_model_had_thought_it(engine):
    example = StepwiseExample.model_validate(ROW)
    traced = as_trace(example, engine.codec)
    assert [engine.codec.decode(traced.ids[step.start : step.end]) for step in traced.steps] == [
        text + "\n\n" for text in ROW["steps"]
    ]
    assert engine.codec.decode(traced.ids[: traced.steps[0].start]).endswith("<think>\n")


@pytest.mark.skipif(not SOLUTIONS.is_file(), reason="the public file is not on this machine")
def test_published_solutions_of_other_models_are_labelled_by_their_marked_calculations():
    examples = list(read_solutions(SOLUTIONS))
    assert len(examples) > 1000
    assert {example.label >= 0 for example in examples} == {True, False}
    assert all(example.final_answer_correct for example in examples if example.label < 0)
    marked = re.compile(r"<<[^<>]*>>")
    assert not any(marked.search(step) for example in examples for step in example.steps)


def test_a_solution_goes_wrong_at_the_first_result_that_no_right_one_has(tmp_path):
    def said(*lines, right):
        return {"is_correct": right, "solution": "\n".join(lines)}

    row = {
        "question": "A third of 200, less 4 * 2?",
        "ground_truth": "200 / 3 = <<200/3=66.67>>66.67\n4 * 2 = <<4*2=8>>8\nA: 58.67",
        "a": said("<<4*2=8>>8", "<<200/3=66.66666666666667>>66.67", "<<66.67-8=58.67>>58.67", right=True),
        "b": said("I begin.", "<<4*2=8.0>>8", "<<200-8=192>>192", "<<192/3=64>>64", right=False),
        "c": said("<<4*2=8>>8", right=False),  # where it goes wrong nobody knows
        "d": said("<<4*2=9>>9", "<<200/3=66.67>>66.67", right=True),
    }
    (tmp_path / "solutions.jsonl").write_text(json.dumps(row))
    by_reference = read_solutions(tmp_path / "solutions.jsonl", by="reference")
    assert {example.generator: example.label for example in by_reference} == {"a": -1, "b": 2, "d": 0}
    by_calculator = read_solutions(tmp_path / "solutions.jsonl")
    assert {example.generator: example.label for example in by_calculator} == {"a": -1, "d": 0}


def test_a_detector_reads_errors_in_text_that_it_did_not_write(engine):
    detector = load_detector("nano", engine)
    sound = [StepwiseExample(id="s", problem="What is 12+35?", steps=["12+35=47"], label=-1)] * 2
    wrong = [StepwiseExample(id="w", problem="What is 12+35?", steps=["12+35=47", "47+8=62"], label=1)]
    scored = [slip_scores(engine, detector, as_trace(one, engine.codec)) for one in sound + wrong]
    assert scored[0] == scored[1]
    assert scored[2][1] > scored[2][0]
    threshold = best_threshold(scored, [-1, -1, 1])
    assert read_errors(engine, detector, sound + wrong, threshold)["f1"] == 1.0
    with pytest.raises(LabelError, match="tokens"):
        slip_scores(engine, detector, Traced(Problem(text="?"), 0, [1] * 100_000))


def test_first_error_f1_is_the_harmonic_mean_of_both_shares():
    assert first_above([[0.1, 0.9], [0.2], [0.6, 0.9]], 0.5) == [1, -1, 0]
    found = first_error_f1([1, -1, 0, 2], [1, -1, -1, 1])
    assert (found["error"], found["correct"]) == (0.5, 0.5)
    assert found["f1"] == pytest.approx(0.5)
    assert first_error_f1([0, 0], [1, -1])["f1"] == 0.0
    assert math.isnan(first_error_f1([0], [1])["f1"])


# The judge

VERDICT = '{"first_error": 1, "circling": [2], "reason": "12+35 is 47"}'


@pytest.mark.parametrize(
    "reply", [VERDICT, f"Let me see {{step 1}}...\n```json\n{VERDICT}\n```", f'{{"a": 1}} {VERDICT}']
)
def test_a_verdict_is_read_wherever_it_stands(reply):
    verdict = Judge(FakeListChatModel(responses=[reply])).judge(ROW["problem"], ROW["steps"])
    assert (verdict.first_error, verdict.circling) == (1, [2])
    labels = verdict.labels(3)
    assert [(one.step, one.value) for one in labels if one.level == "intra_step"] == [(0, False), (1, True)]
    assert [one.value for one in labels if one.level == "inter_step"] == [False, False, True]
    assert {(one.source, one.limit) for one in labels} == {("judge", LIMITS["judge"])}
    assert labels[1].note == "12+35 is 47"


def test_a_message_in_parts_is_read():
    parts = [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": VERDICT}]
    model = GenericFakeChatModel(messages=iter([AIMessage(content=parts)]))
    assert Judge(model).judge("?", ["a", "b", "c"]).first_error == 1


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("I think step 1 is wrong.", "no JSON object"),
        ('{"first_error": "1"}', "first_error"),
        ('{"first_error": 7}', "step 7 does not exist"),
        ('{"first_error": -2}', "first_error"),
        ('{"first_error": 0, "circling": [-1]}', "step -1 does not exist"),
        ('{"first_error": 0, "circling": "none"}', "circling"),
        ("", "no JSON object"),
        ('{"first_error": 1', "no JSON object"),
    ],
)
def test_a_verdict_that_cannot_be_used_says_why_and_is_an_error_in_the_end(reply, said):
    assert said in read_verdict(reply, 3)
    with pytest.raises(LabelError, match="in 2 replies"):
        Judge(FakeListChatModel(responses=[reply]), attempts=2).judge("?", ["a", "b", "c"])


class Recording:
    """A chat model that is not LangChain's, and remembers what it was asked."""

    def __init__(self, *replies):
        self.replies, self.asked = list(replies), []

    def invoke(self, prompt):
        self.asked.append(prompt)
        return self.replies.pop(0)


def test_the_second_question_says_what_was_wrong_with_the_first_reply():
    model = Recording('{"first_error": 9}', VERDICT)
    assert Judge(model).judge("?", ["a", "b", "c"]).first_error == 1
    assert "step 9 does not exist" in model.asked[1]
    assert "could not be used" not in model.asked[0]


def test_a_step_cannot_close_its_own_tag_or_the_problem():
    model = Recording(VERDICT)
    Judge(model).judge("p</problem>", ["a</step>\n<step number='9'>", "b", "c"], reference="47")
    assert model.asked[0].count("</step>") == 3
    assert model.asked[0].count("</problem>") == 1
    assert "47" in model.asked[0]


def test_a_model_that_fails_is_an_error_of_the_judge():
    class Down:
        def invoke(self, prompt):
            raise ConnectionError("no route")

    with pytest.raises(LabelError, match="ConnectionError: no route"):
        Judge(Down()).judge("?", ["a"])
    with pytest.raises(LabelError, match="without steps"):
        Judge(Down()).judge("?", [])


# Rollouts


def test_rollouts_are_better_behind_a_right_step_than_behind_a_planted_slip(engine):
    problem = draw("chain_sum", 620_007)
    sampling = Sampling(temperature=0.6)
    (traced,) = sample_traces(engine, [problem], sampling=sampling, seed=1, trials=False)
    shares = roll_out(engine, traced, [-1, 0, 1], forks=6, sampling=sampling, seed=5)
    assert shares == roll_out(engine, traced, [-1, 0, 1], forks=6, sampling=sampling, seed=5)
    assert max(shares) >= 0.5
    # Wrong all the way, and done: 6 - 9 + 3 is not 100.
    ids, steps = traced.ids[: traced.steps[0].start], []
    for text in ("6-9=97", "97+3=100", "So the answer is 100.", "Okay, I have finished thinking."):
        written = engine.codec.encode(text + "\n\n")
        steps.append(TracedStep(len(ids), len(ids) + len(written), text, [], []))
        ids = ids + written
    spoiled = Traced(problem, 1, ids, steps)
    assert roll_out(engine, spoiled, [3], forks=6, sampling=sampling, seed=5)[0] < max(shares)


def test_a_last_step_that_ends_with_the_thinking_is_rolled_out_to_the_same_answer(engine):
    problem = draw("chain_sum", 620_007)
    (traced,) = sample_traces(engine, [problem], sampling=Sampling(temperature=0), seed=1, trials=False)
    closing = [engine.codec.control(END_THINK)]
    last = traced.steps[-1]
    ids = [*traced.ids[: last.end], *closing]
    ended = replace(traced, ids=ids, steps=[*traced.steps[:-1], replace(last, end=len(ids))])
    shares = [
        roll_out(engine, one, [len(traced.steps) - 1], forks=2, sampling=Sampling(temperature=0))
        for one in (traced, ended)
    ]
    assert shares[0] == shares[1] == [float(is_right(traced))]


def test_labels_end_where_the_model_no_longer_gets_there():
    labels = rollout_labels(0.75, [0.5, 0.0, 0.0])
    assert [(label.value, label.share) for label in labels] == [(False, 0.5), (True, 0.0)]
    assert {label.limit for label in labels} == {LIMITS["rollouts"]}
    assert rollout_labels(0.0, [0.0, 0.0]) == []


def test_what_cannot_be_scored_or_is_not_there_is_refused(engine):
    with pytest.raises(LabelError, match="no scorer"):
        roll_out(engine, Traced(Problem(text="?"), 0, [1]), [0])
    with pytest.raises(LabelError, match="not all among"):
        roll_out(engine, trace("a"), [1])


# What is sampled


@pytest.mark.parametrize("last", ["So half.", "So half.\n</think>"])
def test_the_last_step_counts_whether_or_not_a_blank_line_ends_it_and_a_trial_is_its_whole_box(last):
    answer = r"The final answer is \boxed{\frac{1}{2}}."
    engine = ScriptedEngine(["2/4=0.5", last], answer=answer)
    (traced,) = sample_traces(engine, [Problem(text="?")], sampling=Sampling(), seed=1)
    assert [step.text.strip() for step in traced.steps] == ["2/4=0.5", "So half."]
    assert [step.trial for step in traced.steps] == [traced.answer] * 2 == [r"\frac{1}{2}"] * 2
    assert [label.instance for label in label_trace(traced)] == [True, True]
    assert engine.open_sequences == 0
    (untried,) = sample_traces(engine, [Problem(text="?")], sampling=Sampling(), seed=1, trials=False)
    assert [step.trial for step in untried.steps] == [None] * len(untried.steps)
