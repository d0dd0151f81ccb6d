"""Each preset trains what it says, token by token."""

from __future__ import annotations

import pytest
from export_helpers import (
    ANSWER,
    CLOSING,
    QUESTION,
    RECHECKED,
    RIGHT,
    SLIP,
    failure,
    make_episode,
    rechecked,
    remedy,
    stopped,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nr_agent.errors import ConfigurationError
from nr_agent.export.formats import build_rows
from nr_agent.export.masks import IGNORED, MASKS, failed_steps
from nr_agent.export.rows import Refused

GOOD = "Let me add. 12, 35.\n\n"
PROMPT = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n<think>\n"
MORE = "So 47. Or not.\n\n"
END = f"</think>\n\n{ANSWER}"


def trained_and_masked(codec, episode, mask):
    """The row's text as trained runs and masked runs."""
    row = build_rows(episode, "pretokenized", mask, codec)[0].fields
    runs: list[tuple[bool, list[int]]] = []
    for token, label in zip(row["input_ids"], row["labels"], strict=True):
        assert label in (token, IGNORED)
        if not runs or runs[-1][0] != (label == token):
            runs.append((label == token, []))
        runs[-1][1].append(token)
    assert row["attention_mask"] == [1] * len(row["input_ids"])
    return [("train" if trained else "mask", codec.decode(ids)) for trained, ids in runs]


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ("respond", [("mask", PROMPT), ("train", GOOD), ("mask", SLIP + RECHECKED), ("train", RIGHT + END)]),
        ("internalize", [("mask", PROMPT), ("train", GOOD), ("mask", SLIP), ("train", RECHECKED + RIGHT + END)]),
        ("clean", [("mask", PROMPT), ("train", GOOD + RIGHT + END)]),
        ("full", [("mask", PROMPT), ("train", GOOD + SLIP + RECHECKED + RIGHT + END)]),
    ],
)
def test_presets_on_a_recheck(codec, mask, expected):
    assert trained_and_masked(codec, rechecked(codec), mask) == expected


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ("respond", [("mask", PROMPT), ("train", RIGHT), ("mask", MORE + CLOSING), ("train", ANSWER)]),
        (
            "internalize",
            [("mask", PROMPT), ("train", RIGHT), ("mask", MORE), ("train", CLOSING + ANSWER)],
        ),
        ("clean", [("mask", PROMPT), ("train", RIGHT + "</think>\n\n" + ANSWER)]),
        ("full", [("mask", PROMPT), ("train", RIGHT + MORE + CLOSING + ANSWER)]),
    ],
)
def test_presets_on_an_early_stop_keep_the_thinking_closed(codec, mask, expected):
    assert trained_and_masked(codec, stopped(codec), mask) == expected


def test_steps_that_were_given_up_are_in_no_row(codec):
    episode = make_episode(
        codec, [[("m", SLIP)], [("i", RECHECKED), ("m", RIGHT)]], [("m", END)], discarded=(1,),
        events=[failure(1)], interventions=[remedy(1, rolled_back=9)],
    )  # fmt: skip
    for mask in MASKS:
        assert SLIP.strip() not in "".join(text for _, text in trained_and_masked(codec, episode, mask))


def test_a_step_that_was_confirmed_is_no_failed_step(codec):
    assert failed_steps(rechecked(codec)) == {2}
    assert failed_steps(rechecked(codec, interventions=[remedy(2, outcome="confirmed")])) == set()
    assert failed_steps(rechecked(codec, interventions=[])) == set()
    assert failed_steps(rechecked(codec, interventions=[remedy(2, "ask_human")])) == set()


def test_a_remedy_without_an_event_answers_the_step_before_it(codec):
    episode = rechecked(codec, events=[], interventions=[remedy(1, event_id=None, outcome="changed")])
    assert failed_steps(episode) == {1}


def test_clean_needs_the_tokenizer_only_where_it_cuts(codec):
    with pytest.raises(ConfigurationError, match="tokenizer") as caught:
        build_rows(rechecked(codec), "messages", "clean")[0]
    assert "--tokenizer" in caught.value.hint
    plain = make_episode(codec, [[("m", RIGHT)]], [("m", END)])
    assert build_rows(plain, "messages", "clean")[0] == build_rows(plain, "messages", "clean", codec)[0]


_words = st.sampled_from([SLIP, RIGHT, GOOD, "So.\n\n", "\u00e9\u4e2d \U0001f600\n\n"])
_thought = st.tuples(st.booleans(), _words)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(thoughts=st.lists(_thought, min_size=1, max_size=5), data=st.data())
def test_whatever_happened_only_the_answerer_is_trained(codec, thoughts, data):
    pieces = [[*([("i", RECHECKED)] if inserted else []), ("m", text)] for inserted, text in thoughts]
    chosen = data.draw(st.sets(st.integers(1, len(thoughts))))
    closed = data.draw(st.booleans())
    answer = [("i", CLOSING), ("m", ANSWER)] if closed else [("m", END)]
    episode = make_episode(
        codec, pieces, answer, events=[failure(k) for k in chosen], interventions=[remedy(k) for k in chosen]
    )
    prompt = len(episode.steps[0].ids)
    provenance = [kind for step in episode.kept for kind, length in step.provenance for _ in range(length)]
    steps = [step.index for step in episode.kept for _ in step.ids]
    for mask in MASKS:
        row = build_rows(episode, "pretokenized", mask, codec)[0].fields
        assert all(label == IGNORED for label in row["labels"][:prompt])
        assert codec.decode(row["input_ids"]).count("</think>") == 1
        if mask == "clean":
            assert codec.control(RECHECKED) not in row["input_ids"]
            assert all(label != IGNORED for label in row["labels"][prompt:])
            continue
        assert row["input_ids"] == episode.ids
        trained = [label != IGNORED for label in row["labels"]]
        for is_trained, kind, step in zip(trained[prompt:], provenance[prompt:], steps[prompt:], strict=True):
            failed = step in chosen
            wanted = {"respond": kind == "model" and not failed, "internalize": kind == "inserted" or not failed}
            assert is_trained == wanted.get(mask, True)


@pytest.mark.parametrize(
    ("episode", "reason"),
    [
        (lambda codec: rechecked(codec).model_copy(update={"steps": []}), "prompt is missing"),
        (lambda codec: _without(rechecked(codec), 1), "steps are missing"),
        (lambda codec: make_episode(codec, [[("m", RIGHT)]], [("m", ANSWER)]), "not closed"),
        (lambda codec: make_episode(codec, [[("m", RIGHT)]], [("m", "</think>\ufffd")]), "Unicode"),
    ],
)
def test_an_episode_that_is_not_whole_makes_no_row(codec, episode, reason):
    for form in ("messages", "pretokenized"):
        with pytest.raises(Refused, match=reason):
            build_rows(episode(codec), form, "respond", codec)[0]


def _without(episode, index):
    return episode.model_copy(update={"steps": [step for step in episode.steps if step.index != index]})
