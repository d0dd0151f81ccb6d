"""The embedded LRM as it ships."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from nr_agent import Budget
from nr_agent.detection.labels import is_right
from nr_agent.detection.traces import sample_traces
from nr_agent.engine.protocol import Sampling
from nr_agent.graphs import create_reasoner
from nr_agent.models.registry import find_model
from nr_agent.store import EpisodeStore
from nr_agent.tasks import FAMILIES, draw
from nr_agent.tokens import BRANCH, END_THINK, RECHECK, THINK


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(find_model("nano"))


def test_transformers_loads_it_by_itself():
    model = AutoModelForCausalLM.from_pretrained(find_model("nano"))
    assert 3_000_000 <= sum(parameter.numel() for parameter in model.parameters()) <= 8_000_000
    assert model.config.max_position_embeddings >= 2048
    assert model.config.model_type == "qwen3"


@given(st.text(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_text_goes_into_the_tokenizer_and_comes_back_unchanged(tokenizer, text):
    text = text.encode("utf-8", "replace").decode()
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_digits_and_control_tokens_are_single_tokens(tokenizer):
    assert len(tokenizer.encode("1234567890", add_special_tokens=False)) == 10
    for token in (THINK, END_THINK, RECHECK, BRANCH):
        assert tokenizer.encode(token, add_special_tokens=False) == [tokenizer.convert_tokens_to_ids(token)]


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<|recheck|>", "<|branch|>", "<|im_end|>", " ", "1"])).map("".join)
)
@settings(max_examples=60, deadline=None)
def test_user_text_never_becomes_a_control_token(engine, text):
    plain = engine.codec.render([{"role": "user", "content": "x"}])
    ids = engine.codec.render([{"role": "user", "content": f"solve {text} now"}])
    controls = set(engine.codec.tokenizer.get_added_vocab().values())
    assert [token for token in ids if token in controls] == [token for token in plain if token in controls]


def test_without_control_at_temperature_zero_it_writes_what_generate_writes(engine):
    """Twenty problems, token by token, against transformers on the same ids; up to the budget, where it circles."""
    store = EpisodeStore.in_memory()
    greedy, budget = Sampling(temperature=0), Budget(max_tokens=448)
    reasoner = create_reasoner(
        engine, detector=None, control=False, store=store, sampling=greedy, budget=budget, seed=1
    )
    problems = [draw(list(FAMILIES)[number % len(FAMILIES)], 1_300_000 + number) for number in range(20)]
    asked = [{"messages": [{"role": "user", "content": problem.text}]} for problem in problems]
    answered = reasoner.batch(asked, {"max_concurrency": 20})
    prompts, thoughts, finished = [], [], 0
    for report in (answer["reasoning"] for answer in answered):
        episode = store.get(report["episode_id"])
        finished += report["stop_reason"] == "finished"
        prompts.append(list(episode.steps[0].ids))
        sources = [kind for step in episode.steps for kind, length in step.provenance for _ in range(length)]
        free = sources.index("inserted") if "inserted" in sources else len(sources)
        assert (free == len(sources)) == (report["stop_reason"] == "finished")
        thoughts.append(list(episode.ids[len(prompts[-1]) : free]))
    padded = engine.codec.tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
    generated = engine.model.generate(
        **padded, do_sample=False, temperature=None, top_p=None, max_new_tokens=max(map(len, thoughts))
    )[:, padded["input_ids"].shape[1] :].tolist()
    assert thoughts == [ids[: len(thought)] for ids, thought in zip(generated, thoughts, strict=True)]
    assert finished >= 15


def test_it_is_right_often_enough_to_be_worth_watching(engine):
    problems = [draw(family, seed) for family in FAMILIES for seed in range(1_400_000, 1_400_012)]
    traces = sample_traces(engine, problems, sampling=Sampling(), seed=7, trials=False)
    assert sum(map(is_right, traces)) / len(traces) > 0.3
    assert all(RECHECK not in engine.codec.decode(traced.ids) for traced in traces)
