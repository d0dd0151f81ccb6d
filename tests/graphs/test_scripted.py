"""The scripted engine keeps its promises, so that what is tested with it holds for real ones."""

from __future__ import annotations

import doctest
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nr_agent.engine.protocol import ExtendRequest, StopSpec
from nr_agent.errors import ChannelError, ContextLengthError, EngineError, UnknownSequenceError
from nr_agent.testing import CharacterCodec, ScriptedDetector, ScriptedEngine, detector, engine
from nr_agent.tokens import END_THINK, RECHECK, THINK, TURN_END, TURN_START

STEP = StopSpec(ids=CharacterCodec().end_ids | {CharacterCodec().control(END_THINK) or -1}, strings=("\n\n",))
CONTROL = (END_THINK, RECHECK, THINK, TURN_END, TURN_START)


def opened(scripted: ScriptedEngine, problem: str = "2+2?"):
    return scripted.open(scripted.codec.render([{"role": "user", "content": problem}]))


def text(scripted: ScriptedEngine, segment) -> str:
    return scripted.codec.decode(segment.ids)


@given(st.lists(st.one_of(st.text(), st.sampled_from(CONTROL))).map("".join))
def test_user_text_never_becomes_a_control_token(problem):
    codec = CharacterCodec()
    control = {codec.control(token) for token in CONTROL}
    rendered = codec.render([{"role": "user", "content": problem}])
    frame = codec.render([{"role": "user", "content": ""}])
    assert [i for i in rendered if i in control] == [i for i in frame if i in control]
    assert problem in codec.decode(rendered)


@given(st.text())
def test_text_survives_its_tokens(given_text):
    codec = CharacterCodec()
    assert codec.decode(codec.encode(given_text)) == given_text


def test_steps_then_closing_then_answer_then_end():
    scripted = ScriptedEngine(["a", "b\n\n"], answer="x")
    ref, texts = opened(scripted), []
    for _ in range(5):
        segment = scripted.extend(ref, stop=STEP)
        ref = segment.ref
        texts.append((text(scripted, segment), segment.end))
    assert texts == [
        ("a\n\n", "stop_string"),
        ("b\n\n", "stop_string"),
        (END_THINK, "stop_id"),
        ("\n\n", "stop_string"),
        (f"x{TURN_END}", "stop_id"),
    ]


def test_segment_tells_forced_from_written():
    scripted = ScriptedEngine(["abc"])
    segment = scripted.extend(opened(scripted), stop=STEP, force=[5])
    assert segment.provenance == [("inserted", 1), ("model", 5)]
    assert segment.logprobs == [None, *[-0.1] * 5] and segment.ids[0] == 5
    only = scripted.extend(segment.ref, stop=StopSpec(max_new=0), force=[5, 5])
    assert (only.end, only.ids, only.start) == ("forced", [5, 5], segment.ref.length)


def test_step_cut_at_its_length_goes_on_where_it_was():
    scripted = ScriptedEngine(["abcdef", "next"])
    first = scripted.extend(opened(scripted), stop=StopSpec(strings=("\n\n",), max_new=3))
    second = scripted.extend(first.ref, stop=STEP)
    assert (text(scripted, first), first.end, text(scripted, second)) == ("abc", "length", "def\n\n")


def test_fork_and_parent_go_their_own_ways():
    scripted = ScriptedEngine(lambda so_far, seed: f"{seed}:{so_far.count('#')}#")
    ref = opened(scripted)
    first = scripted.extend(ref, stop=STEP)
    fork = scripted.fork(first.ref, at=first.start, seed=9)
    assert text(scripted, scripted.extend(fork, stop=STEP)) == "9:0#\n\n"
    assert text(scripted, scripted.extend(first.ref, stop=STEP)) == "0:1#\n\n"


def test_rollback_takes_tokens_back_and_the_list_goes_on():
    scripted = ScriptedEngine(["a", "b", "c"])
    first = scripted.extend(opened(scripted), stop=STEP)
    second = scripted.extend(first.ref, stop=STEP)
    back = scripted.rollback(second.ref, to=second.start)
    assert scripted.tokens(back) == scripted.tokens(second.ref)[: second.start] and back.length == second.start
    assert text(scripted, scripted.extend(back, stop=STEP)) == "c\n\n"


def test_restored_sequence_goes_on_behind_its_steps():
    scripted, other = ScriptedEngine(["a", "b", "c"]), ScriptedEngine(["a", "b", "c"])
    first = scripted.extend(opened(scripted), stop=STEP)
    restored = other.restore(scripted.tokens(first.ref))
    assert text(other, other.extend(restored, stop=STEP)) == "b\n\n"


def test_wrong_handles_are_refused():
    scripted = ScriptedEngine(["a"])
    ref = opened(scripted)
    scripted.extend(ref, stop=STEP)
    with pytest.raises(EngineError, match="handle"):
        scripted.extend(ref, stop=STEP)
    with pytest.raises(EngineError, match="outside"):
        scripted.rollback(ref, to=0)
    scripted.close(ref)
    scripted.close(ref)
    for call in (scripted.tokens, scripted.fork):
        with pytest.raises(UnknownSequenceError):
            call(ref)


def test_context_is_a_wall():
    scripted = ScriptedEngine(["abcdef"], context=26)
    with pytest.raises(ContextLengthError):
        opened(scripted, "x" * 40)
    ref = opened(scripted, "x")
    segment = scripted.extend(ref, stop=STEP)
    assert segment.end == "context" and segment.ref.length == 26
    with pytest.raises(ContextLengthError):
        scripted.extend(segment.ref, stop=STEP, force=[1])


def test_cancelled_step_leaves_the_sequence_as_it_was():
    scripted = ScriptedEngine(["x" * 10_000], seconds_a_token=0.001)
    ref = opened(scripted)
    future = scripted.submit(ExtendRequest(ref, StopSpec(max_new=10_000)))
    time.sleep(0.02)
    assert future.cancel() and future.cancelled()
    assert len(scripted.tokens(ref)) == ref.length


def test_only_a_plan_without_channels_can_be_attached():
    class Channels:
        def install(self, model):
            return type("Tap", (), {"layout": type("Layout", (), {"channels": ("FFN 0:1",)})})

    scripted = ScriptedEngine([])
    assert scripted.attach(None).channels == scripted.attach(ScriptedDetector([]).plan).channels == ()
    with pytest.raises(ChannelError):
        scripted.attach(Channels())


def test_detector_raises_what_crosses_and_repeats_itself():
    scripted = ScriptedEngine(["a", "b"])
    segment = scripted.extend(opened(scripted), stop=STEP)
    watching = ScriptedDetector([{"intra_step": 0.6, "instance": 0.4}], threshold=0.5)
    looks = [watching.observe("e").look(segment, step=1, text="a") for _ in range(2)]
    assert looks[0].scores == {"intra_step": 0.6, "instance": 0.4}
    assert [event.level for event in looks[0].events] == ["intra_step"]
    assert looks[0].events == looks[1].events
    observer = watching.observe("e")
    fork = observer.fork()
    observer.look(segment, step=1, text="a")
    assert fork.look(segment, step=1, text="a").scores and not observer.look(segment, step=2, text="b").scores


@pytest.mark.parametrize("module", [engine, detector])
def test_examples_in_the_docstrings_run(module):
    result = doctest.testmod(module)
    assert result.failed == 0 and result.attempted > 0
