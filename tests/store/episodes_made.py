"""Episodes for the tests: one by hand, and any by hypothesis."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from nr_agent.episode import Episode, Intervention, Problem, ReadingSummary, Step, Usage
from nr_agent.events import ChannelEvidence, Evidence, InstanceFailure, InterStepFailure, IntraStepFailure
from nr_agent.ids import new_id
from nr_agent.store import EpisodeStore

_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
_number = st.floats(allow_nan=False, allow_infinity=False)
_index = st.integers(0, 2**31 - 1)
_share = st.floats(0, 1)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e15, 1e15) | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=6,
)
_facts = st.dictionaries(_text, _json, max_size=3)
_moment = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def an_episode(episode_id: str | None = None, **fields: Any) -> Episode:
    """A small episode that is whole: a prompt, a slip, its recheck, the answer."""
    values: dict[str, Any] = {
        "problem": Problem(text="What is 12 + 35?", reference="47", domain="math", task="chain_sum", seed=5),
        "steps": [
            a_step(0, "prompt", "<|im_start|>user\n", "prompt"),
            a_step(1, "think", "12+35=46\n\n"),
            a_step(2, "think", "<|recheck|>12+35=47\n\n"),
            a_step(3, "answer", "</think>\n\n\\boxed{47}<|im_end|>"),
        ],
        "events": [IntraStepFailure(id="v1", step=1, position=20, score=0.9, threshold=0.5, detector="d")],
        "interventions": [
            Intervention(id="i1", kind="recheck", event_id="v1", policy="recheck", step=1, position=20, inserted=[7])
        ],
    }
    return Episode(id=episode_id or new_id(), **(values | fields))


def a_step(index: int, kind: str, text: str, provenance: str = "model", **fields: Any) -> Step:
    """A step with a token a character."""
    ids = [ord(character) for character in text]
    runs = [(provenance, len(ids))]
    return Step.model_validate(
        {"index": index, "kind": kind, "start": index * 100, "ids": ids, "provenance": runs, "text": text} | fields
    )


@st.composite
def steps(draw: st.DrawFn, index: int) -> Step:
    runs = draw(st.lists(st.tuples(st.sampled_from(["model", "inserted", "template"]), st.integers(1, 4)), max_size=3))
    length = sum(size for _, size in runs)
    logprob = st.none() | st.floats(max_value=0, width=32, allow_nan=False, allow_infinity=False)
    return Step(
        index=index,
        kind=draw(st.sampled_from(["prompt", "think", "answer"])),
        branch=draw(_text),
        start=draw(_index),
        ids=draw(st.lists(_index, min_size=length, max_size=length)),
        provenance=runs,
        logprobs=draw(st.just([]) | st.lists(logprob, min_size=length, max_size=length)),
        text=draw(_text),
        stop=draw(_text),
        discarded=draw(st.booleans()),
        readings=draw(st.lists(st.builds(ReadingSummary, level=_text, tokens=_index, **_readings), max_size=2)),
    )


_readings = {name: _number for name in ("mean", "maximum", "minimum", "std", "score")}
_channel = st.builds(ChannelEvidence, channel=_text, z=_number, position=_index)
_evidence = st.builds(
    Evidence, channels=st.lists(_channel, max_size=2), features=st.dictionaries(_text, _number, max_size=2), text=_text
)


@st.composite
def episodes(draw: st.DrawFn) -> Episode:
    """Anything that the records allow, its parts in the order in which a store gives them back."""
    place: dict[str, Any] = {"position": _index, "step": st.integers(0, 2**31 - 1)}
    event = {**place, "score": _share, "threshold": _share, "detector": _text, "evidence": _evidence}
    kinds = [st.builds(kind, id=st.uuids().map(str), **event) for kind in _EVENTS]
    intervention = st.builds(
        Intervention,
        id=st.uuids().map(str),
        kind=st.sampled_from(["recheck", "branch", "stop", "ask_human"]),
        event_id=st.none() | _text,
        policy=_text,
        inserted=st.lists(_index, max_size=3),
        rolled_back=_index,
        branches=st.lists(_text, max_size=2),
        kept=st.none() | _text,
        outcome=_text,
        **place,
    )
    return Episode(
        id=new_id(),
        problem=Problem(
            text=draw(_text.filter(bool)),
            reference=draw(st.none() | _text),
            domain=draw(_text),
            task=draw(st.none() | _text),
            seed=draw(st.none() | st.integers(-(2**80), 2**80)),
            metadata=draw(_facts),
        ),
        status=draw(st.sampled_from(["running", "waiting", "completed", "failed", "interrupted"])),
        stop_reason=draw(st.none() | st.sampled_from(["finished", "token_budget", "human"])),
        answer=draw(st.none() | _text),
        correct=draw(st.none() | st.booleans()),
        model=draw(_text),
        fingerprint=draw(_text),
        detector=draw(st.none() | _text),
        policy=draw(st.none() | _text),
        seed=draw(st.integers(0, 2**64 - 1)),
        settings=draw(_facts),
        usage=draw(st.builds(Usage, **{name: _index for name in Usage.model_fields})),
        steps=[draw(steps(index)) for index in range(draw(st.integers(0, 3)))],
        events=sorted(draw(st.lists(st.one_of(kinds), max_size=3)), key=lambda one: one.step),
        interventions=sorted(draw(st.lists(intervention, max_size=3)), key=lambda one: one.step),
        error=draw(st.none() | _text),
        thread_id=draw(st.none() | _text),
        created_at=draw(_moment),
        ended_at=draw(st.none() | _moment),
    )


_EVENTS = (IntraStepFailure, InterStepFailure, InstanceFailure)


def go_on_and_begin(store: EpisodeStore, text: str) -> None:
    """A step of the episode `before`, and a whole episode `during` whose last step is discarded."""
    store.add("before", a_step(4, "think", text))
    store.begin(an_episode("during"))
    store.add("during", a_step(4, "think", text))
    store.discard("during", [4])
    store.finish("during", status="completed", answer="47", correct=True)
