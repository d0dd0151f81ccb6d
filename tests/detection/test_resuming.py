"""A fit that is interrupted goes on from what it had sampled, and only from what was sampled for the same."""

import json
from functools import partial

import pytest
from transformers import AutoTokenizer

from nr_agent.detection.fit import fit
from nr_agent.detection.sampled import sample_or_resume, traces_key
from nr_agent.detection.traces import Traced, sample_traces
from nr_agent.engine.protocol import Sampling
from nr_agent.engine.torch_engine import TorchEngine
from nr_agent.episode import Problem
from nr_agent.errors import ContextLengthError, ProblemError
from nr_agent.models.registry import find_model
from nr_agent.training.pretrain import build_model

PROBLEMS = [Problem(text=f"What is {n}+{n + 3}?", task="chain_sum", seed=n, reference=str(2 * n + 3)) for n in range(7)]
HOW = {"sampling": Sampling(temperature=0.9), "seed": 40, "max_tokens": 24}


@pytest.fixture
def engine():
    tokenizer = AutoTokenizer.from_pretrained(find_model("nano"))
    loaded = TorchEngine(build_model("tiny", tokenizer), tokenizer, name="tiny", fingerprint="tiny")
    yield loaded
    loaded.shutdown()


class Breaking:
    """Samples as the engine does, until it is interrupted in a block."""

    def __init__(self, engine, breaks_at=None):
        self.engine, self.breaks_at = engine, breaks_at
        self.asked: list[list[str]] = []

    def __call__(self, problems, **how):
        self.asked.append([problem.text for problem in problems])
        if len(self.asked) == self.breaks_at:
            raise KeyboardInterrupt
        return sample_traces(self.engine, problems, **how)


def run(engine, folder, sample, problems=PROBLEMS, log=lambda _: None, **how):
    folder.mkdir(exist_ok=True)
    return sample_or_resume(engine, problems, folder, sample=sample, log=log, block=3, **HOW | how)


def drawn(traces):
    """What was drawn: confidences differ in their last digits with who else is in the batch."""
    return [(one.problem, one.seed, one.ids, one.closed, [step.trial for step in one.steps]) for one in traces]


def test_an_interrupted_sampling_goes_on_to_the_same_traces_and_samples_no_block_twice(engine, tmp_path):
    at_once = drawn(sample_traces(engine, PROBLEMS, **HOW))
    texts = [problem.text for problem in PROBLEMS]
    with pytest.raises(KeyboardInterrupt):
        run(engine, tmp_path / "broken", Breaking(engine, breaks_at=2))
    first = (tmp_path / "broken" / "traces.begun.jsonl").read_text()
    again, told = Breaking(engine), []
    assert drawn(run(engine, tmp_path / "broken", again, log=told.append)) == at_once
    assert again.asked == [texts[3:6], texts[6:]]
    assert told == ["going on behind 3 of 7 traces"]
    whole = Breaking(engine)
    assert drawn(run(engine, tmp_path / "whole", whole)) == at_once
    assert len(whole.asked) == 3
    assert (tmp_path / "broken" / "traces.jsonl").read_text().startswith(first)
    assert [path.name for path in (tmp_path / "broken").iterdir()] == ["traces.jsonl"]
    third = Breaking(engine)
    assert drawn(run(engine, tmp_path / "broken", third)) == at_once
    assert third.asked == []


def test_a_trace_that_was_torn_is_sampled_again_and_the_others_are_not(engine, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(engine, tmp_path, Breaking(engine, breaks_at=2))
    begun = tmp_path / "traces.begun.jsonl"
    begun.write_bytes(begun.read_bytes()[:-30])
    again = Breaking(engine)
    assert drawn(run(engine, tmp_path, again)) == drawn(sample_traces(engine, PROBLEMS, **HOW))
    assert again.asked[0] == [problem.text for problem in PROBLEMS[2:5]]


def test_what_was_begun_for_another_sampling_is_not_gone_on_from(engine, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(engine, tmp_path, Breaking(engine, breaks_at=2))
    again = Breaking(engine)
    traces = run(engine, tmp_path, again, seed=41)
    assert [traced.seed for traced in traces] == [41 + number for number in range(7)]
    assert len(again.asked) == 3


def test_traces_are_kept_for_the_tokenizer_the_template_and_the_whole_problem(engine):
    key = partial(traces_key, engine, **HOW)
    usual = key(PROBLEMS)
    assert key(list(PROBLEMS)) == usual
    changed = [PROBLEMS[0].model_copy(update=one) for one in ({"task": "other"}, {"reference": "4"}, {"text": "?"})]
    others = [key([one, *PROBLEMS[1:]]) for one in changed]
    tokenizer = engine.codec.tokenizer
    template = tokenizer.chat_template
    tokenizer.chat_template = template + "\n"
    others.append(key(PROBLEMS))
    tokenizer.chat_template = template
    assert key(PROBLEMS) == usual
    tokenizer.add_tokens(["What is"])
    others.append(key(PROBLEMS))
    assert len({usual, *others}) == 6


def test_a_problem_that_cannot_be_posed_is_named_before_anything_is_sampled(engine, tmp_path):
    sample = Breaking(engine)
    long = Problem(text="1+1 " * engine.capabilities.context, task="sums")
    with pytest.raises(ContextLengthError, match=r"problem 3 of 3 \(sums: '1\+1 .*tokens") as failed:
        fit(engine, [*PROBLEMS[:2], long], tmp_path, sample=sample)
    assert failed.value.hint

    def refuses(messages, tools=()):
        raise ProblemError("the template refuses it", hint="ask otherwise")

    engine.codec.render = refuses
    with pytest.raises(ProblemError, match=r"problem 1 of 2 .*refuses it") as failed:
        fit(engine, PROBLEMS[:2], tmp_path, sample=sample)
    assert failed.value.hint == "ask otherwise"
    assert sample.asked == []
    assert not list(tmp_path.iterdir())


def test_the_file_of_traces_begins_with_what_they_were_made_for(engine, tmp_path):
    traces = run(engine, tmp_path, Breaking(engine))
    first, *lines = map(json.loads, (tmp_path / "traces.jsonl").read_text().splitlines())
    assert first == {"key": traces_key(engine, PROBLEMS, **HOW)}
    assert [line["seed"] for line in lines] == [40 + number for number in range(7)]
    assert all(isinstance(traced, Traced) for traced in traces)
