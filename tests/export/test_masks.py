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
from nr_agent.export import export
from nr_agent.export.formats import build_rows
from nr_agent.export.masks import IGNORED, MASKS, failed_steps
from nr_agent.export.rows import Refused, closes_by
from nr_agent.testing import CharacterCodec

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


@pytest.mark.parametrize(
    ("make", "form", "mask"),
    [
        (rechecked, "messages", "clean"),
        (rechecked, "pretokenized", "clean"),
        (rechecked, "axolotl", "respond"),
        (rechecked, "preference", "respond"),
        (rechecked, "stepwise", "respond"),
        (stopped, "messages", "clean"),
        (stopped, "pretokenized", "clean"),
        (stopped, "axolotl", "respond"),
    ],
)
def test_what_has_to_be_cut_by_another_models_tokenizer_is_left_out(
    codec, other_codec, store, tmp_path, make, form, mask
):
    store.begin(make(codec))
    manifest = export(store, tmp_path / "other", format=form, mask=mask, codec=other_codec)
    reason = "thought with another tokenizer than the one that is to cut it"
    assert (manifest.rows, manifest.refused) == (0, {reason: 1})
    assert export(store, tmp_path / "own", format=form, mask=mask, codec=codec).rows > 0


def test_what_need_not_be_cut_is_the_same_with_whatever_tokenizer(codec, other_codec):
    plain = make_episode(codec, [[("m", SLIP)], [("m", RIGHT)]], [("m", END)], discarded=(1,))
    for episode, form, mask in (
        (rechecked(codec), "messages", "respond"),
        (rechecked(codec), "pretokenized", "internalize"),
        (plain, "preference", "respond"),
        (plain, "messages", "clean"),
        (plain, "axolotl", "respond"),
        (plain, "stepwise", "respond"),
    ):
        assert build_rows(episode, form, mask, other_codec) == build_rows(episode, form, mask, codec)


def test_a_closing_of_its_own_is_not_lost_to_another_models_tokenizer(codec):
    spelled = CharacterCodec(missing=["</think>"])
    episode = make_episode(spelled, [[("m", RIGHT)], [("i", CLOSING)]], [("m", ANSWER)])
    with pytest.raises(Refused, match="another tokenizer"):
        build_rows(episode, "messages", "clean", codec)
    [row] = build_rows(episode, "messages", "clean", spelled)
    assert row.fields["messages"][1]["content"] == f"<think>\n{RIGHT}</think>\n\nThe final answer is \\boxed{{47}}."


@pytest.mark.parametrize(
    ("form", "thoughts", "answer"),
    [
        ("messages", [[("m", RIGHT)]], [("i", CLOSING), ("m", ANSWER)]),
        ("axolotl", [[("m", RIGHT)]], [("i", CLOSING), ("m", ANSWER)]),
        ("preference", [[("m", SLIP)], [("m", RIGHT)]], [("i", CLOSING), ("m", ANSWER)]),
        ("stepwise", [[("m", RIGHT)], [("m", "So 47."), ("i", CLOSING)]], [("m", ANSWER)]),
    ],
)
def test_a_closing_that_a_model_spells_out_is_kept_like_one_that_is_a_token(form, thoughts, answer):
    made = {}
    for name, own in (("token", CharacterCodec()), ("spelled", CharacterCodec(missing=["</think>"]))):
        discarded = (1,) if form == "preference" else ()
        episode = make_episode(own, thoughts, answer, discarded=discarded)
        assert (own.control("</think>") is None) == (name == "spelled")
        made[name] = [row.fields for row in build_rows(episode, form, "clean", own)]
        assert str(made[name]).count("</think>") == 1
        assert "finished thinking" not in str(made[name])
    assert made["spelled"] == made["token"]


def test_pretokenized_keeps_a_closing_that_is_spelled_out():
    spelled = CharacterCodec(missing=["</think>"])
    expected = [("mask", PROMPT), ("train", RIGHT + "</think>\n\n" + ANSWER)]
    assert trained_and_masked(spelled, stopped(spelled), "clean") == expected


def test_the_thinking_is_closed_where_it_is_closed_first():
    for missing in ([], ["</think>"]):
        own = CharacterCodec(missing)
        assert closes_by(own)(own.encode("So.</think>Or not.</think>")) == 3
        assert closes_by(own)(own.encode("So.</thin")) is None


def test_a_closing_that_begins_inside_of_a_token_is_kept_from_that_token_on():
    class Pieces:
        def decode(self, ids):
            return "".join(["So.", "\n</", "think", ">\n"][at] for at in ids)

        def control(self, token):
            return None

    assert closes_by(Pieces())([0, 1, 2, 3]) == 1


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
