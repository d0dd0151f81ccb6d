"""What goes in comes out, whatever it is and wherever the store is."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from episodes_made import a_step, an_episode, episodes
from hypothesis import HealthCheck, given, settings

from nr_agent.episode import Episode, Problem, ReadingSummary, Usage, measure_usage
from nr_agent.errors import NotFoundError, StoreError
from nr_agent.events import ChannelEvidence, Evidence, IntraStepFailure
from nr_agent.store import EpisodeFilter, EpisodeStore


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(episode=episodes())
def test_any_episode_comes_back_as_it_went_in(store, episode):
    store.begin(episode)
    assert store.get(episode.id) == episode


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(episode=episodes())
def test_records_added_one_by_one_and_twice_make_the_same_episode(store, episode):
    head = episode.model_copy(update={"steps": [], "events": [], "interventions": []})
    for _ in range(2):
        store.begin(head)
        for record in [*episode.steps, *episode.events, *episode.interventions]:
            store.add(episode.id, record)
    known = store.get(episode.id)
    # A waiting episode to which something is added runs again.
    assert known.model_copy(update={"status": episode.status, "ended_at": episode.ended_at}) == episode


def test_a_record_that_is_added_again_replaces_the_first(store):
    episode = an_episode()
    store.begin(episode)
    store.add(episode.id, episode.steps[1].model_copy(update={"text": "anew"}))
    store.add(episode.id, episode.interventions[0].model_copy(update={"outcome": "changed"}))
    known = store.get(episode.id)
    assert [step.text for step in known.steps][1] == "anew"
    assert [one.outcome for one in known.interventions] == ["changed"]


def test_discarded_steps_are_marked_and_stay(store):
    episode = an_episode()
    store.begin(episode)
    store.discard(episode.id, [1])
    assert [step.discarded for step in store.steps(episode.id)] == [False, True, False, False]


def test_finish_says_what_came_of_it_and_counts_the_tokens(store):
    episode = an_episode()
    store.begin(episode)
    store.discard(episode.id, [1])
    store.finish(episode.id, status="completed", stop_reason="finished", answer="47", correct=True)
    known = store.get(episode.id)
    assert (known.status, known.stop_reason, known.answer, known.correct) == ("completed", "finished", "47", True)
    assert known.usage == measure_usage(known.steps)
    assert known.usage.discarded == len(episode.steps[1].ids)
    assert known.ended_at is not None


def test_a_waiting_episode_has_not_ended_and_runs_again_with_the_next_record(store):
    episode = an_episode()
    store.begin(episode)
    store.finish(episode.id, status="waiting", usage=Usage(prompt=1))
    assert (store.get(episode.id).status, store.get(episode.id).ended_at) == ("waiting", None)
    store.add(episode.id, a_step(4, "think", "on"))
    assert store.get(episode.id).status == "running"


def test_a_late_record_does_not_reopen_a_failed_episode(store):
    episode = an_episode()
    store.begin(episode)
    store.finish(episode.id, status="failed", error="boom")
    store.add(episode.id, a_step(4, "think", "late"))
    assert store.get(episode.id).status == "failed"


def test_begun_twice_keeps_its_first_time(store):
    episode = an_episode()
    store.begin(episode)
    first = store.get(episode.id).created_at
    store.begin(episode)
    assert store.get(episode.id).created_at == first


def test_times_are_utc_whatever_zone_they_came_in(store):
    east = datetime(2026, 3, 1, 1, 30, tzinfo=timezone(timedelta(hours=5)))
    episode = an_episode(created_at=east)
    store.begin(episode)
    created = store.get(episode.id).created_at
    assert created == east
    assert created.utcoffset() == timedelta(0)


def test_nan_nul_and_surrogates_are_stored_as_what_every_database_takes(store):
    reading = ReadingSummary(level="x", tokens=1, mean=math.nan, maximum=math.inf, minimum=0, std=0, score=0)
    evidence = Evidence(features={"a": math.nan}, channels=[ChannelEvidence(channel="c", z=-math.inf, position=0)])
    event = IntraStepFailure(id="e", step=0, position=0, score=1, threshold=0, detector="d", evidence=evidence)
    metadata = {"n": math.nan, "t": "\0", "k\ud800": [math.inf], "set": {1}}
    episode = Episode(id="odd", problem=Problem(text="a\0b", metadata=metadata), created_at=datetime.now(UTC))
    store.begin(episode)
    # Pydantic refuses a lone surrogate in a text, but not in what is copied or free-form.
    step = a_step(0, "prompt", "", logprobs=[math.nan, -math.inf, None, -0.5], readings=[reading])
    store.add("odd", step.model_copy(update={"text": "x\0\ud800"}), event)
    known = store.get("odd")
    assert known.problem.text == "a\ufffdb"
    assert known.problem.metadata == {"n": None, "t": "\ufffd", "k\ufffd": [None], "set": [1]}
    assert known.steps[0].text == "x\ufffd\ufffd"
    assert math.isnan(known.steps[0].readings[0].mean)
    assert math.isnan(known.events[0].evidence.features["a"])
    assert math.isnan(known.events[0].evidence.channels[0].z)
    [found] = store.find(EpisodeFilter(event="calculation"))
    assert found.id == "odd"


def test_an_episode_is_found_by_the_beginning_of_its_id_and_as_the_last(store):
    for name in ("aa-1", "aa-2", "ab-1"):
        store.begin(an_episode(name))
    assert store.get("ab").id == "ab-1"
    assert store.get("last").id == "ab-1"
    with pytest.raises(NotFoundError, match="more than one"):
        store.get("aa")
    for unknown in ("b", "a%", "a_", ""):
        with pytest.raises(NotFoundError):
            store.get(unknown)


def test_what_was_never_begun_is_an_error_for_the_caller(store):
    for write in (
        lambda: store.add("ghost", a_step(0, "prompt", "x")),
        lambda: store.discard("ghost", [0]),
        lambda: store.finish("ghost", status="completed"),
        lambda: store.get("ghost"),
    ):
        with pytest.raises(NotFoundError, match="ghost"):
            write()


FILTERS = [
    {},
    {"status": "completed"},
    {"domain": "math"},
    {"task": "gcd"},
    {"correct": True},
    {"correct": False},
    {"level": "intra_step"},
    {"event": "overthinking"},
    {"level": "intra_step", "event": "overthinking"},
    {"intervention": "recheck"},
    {"model": "m1"},
    {"since": datetime(2026, 1, 5, tzinfo=UTC)},
    {"until": datetime(2026, 1, 5, tzinfo=UTC)},
    {"limit": 3},
    {"correct": True, "model": "m0", "limit": 2},
]


def test_filters_choose_what_they_say(store):
    for number in range(12):
        events = an_episode().events if number % 3 == 0 else []
        made = an_episode(
            f"e{number:02}",
            problem=Problem(text="p", domain=["math", "law"][number % 2], task=["gcd", None][number % 2]),
            status=["completed", "failed"][number % 2],
            correct=[True, False, None][number % 3],
            model=f"m{number % 2}",
            events=events,
            interventions=an_episode().interventions if number % 4 == 0 else [],
            created_at=datetime(2026, 1, 1 + number // 2, tzinfo=UTC),
        )
        store.begin(made)
    everything = [store.get(f"e{number:02}") for number in reversed(range(12))]
    for fields in FILTERS:
        expected = [one.id for one in everything if _matches(one, fields)][: fields.get("limit")]
        assert [one.id for one in store.find(EpisodeFilter(**fields))] == expected, fields


def _matches(episode: Episode, wanted: dict) -> bool:
    facts = {"domain": episode.problem.domain, "task": episode.problem.task}
    facts |= {name: getattr(episode, name) for name in ("status", "correct", "model")}
    events = [
        event
        for event in episode.events
        if event.level == wanted.get("level", event.level) and event.kind == wanted.get("event", event.kind)
    ]
    return (
        all(facts[name] == value for name, value in wanted.items() if name in facts)
        and (bool(events) or not wanted.keys() & {"level", "event"})
        and ("intervention" not in wanted or any(i.kind == wanted["intervention"] for i in episode.interventions))
        and episode.created_at >= wanted.get("since", episode.created_at)
        and ("until" not in wanted or episode.created_at < wanted["until"])
    )


def test_find_pages_through_more_than_a_page_of_episodes(store, monkeypatch):
    monkeypatch.setattr("nr_agent.store.store._PAGE", 3)
    same = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(10):
        store.begin(an_episode(f"e{number}", created_at=same if number < 7 else None))
    found = [one.id for one in store.find()]
    assert found == [f"e{number}" for number in reversed(range(10))]


def test_a_summary_counts_what_the_episode_holds(store):
    episode = an_episode()
    store.begin(episode)
    [summary] = store.find()
    assert (summary.steps, summary.events, summary.interventions) == (2, 1, 1)
    assert summary.problem == episode.problem.text


def test_a_closed_store_says_so(anywhere):
    store = EpisodeStore(anywhere)
    store.begin(an_episode("e"))
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.add("e", a_step(0, "prompt", "x"))
