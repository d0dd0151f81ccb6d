"""A running episode is put together without the database, and is what the database would say."""

from __future__ import annotations

import math

import pytest
from episodes_made import a_step, an_episode, episodes
from hypothesis import HealthCheck, given, settings
from sqlalchemy import event

from nr_agent.errors import StoreError
from nr_agent.store import EpisodeStore
from nr_agent.store.store import _REMEMBERED


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(episode=episodes())
def test_whoever_thinks_an_episode_and_whoever_looks_on_see_the_same(lasting, episode):
    head = episode.model_copy(update={"steps": [], "events": [], "interventions": [], "status": "running"})
    with EpisodeStore(lasting) as thinks, EpisodeStore(lasting) as looks_on:
        thinks.begin(head)
        thinks.add(episode.id, *episode.steps, *episode.events, *episode.interventions)
        thinks.discard(episode.id, [0])
        thinks.begin(head.model_copy(update={"created_at": None}))  # a node that ran again
        known = thinks.get(episode.id)
        thinks.flush()
        assert known == looks_on.get(episode.id)
        thinks.finish(episode.id, status="interrupted")
        thinks.delete([episode.id])


def test_values_that_databases_do_not_take_are_seen_as_they_are_stored(lasting):
    odd = a_step(4, "think", "a\0b\ud800", logprobs=[0.1, math.nan, -math.inf, None])
    with EpisodeStore(lasting) as thinks, EpisodeStore(lasting) as looks_on:
        thinks.begin(an_episode("e"))
        thinks.add("e", odd)
        thinks.flush()
        assert thinks.get("e") == looks_on.get("e")
        assert thinks.get("e").steps[4].text == "a\ufffdb\ufffd"


def test_reading_a_running_episode_back_asks_the_database_for_nothing(anywhere):
    with EpisodeStore(anywhere) as store:
        store.begin(an_episode("e"))
        asked = []
        for engine in store._database._engines.values():
            event.listen(engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
        store.add("e", a_step(4, "think", "more"))
        assert store.get("e").steps[4].text == "more"
        assert not [statement for statement in asked if statement.startswith("SELECT")]
        assert store.get("e"[:1]).id == "e"


def test_an_episode_that_another_process_began_is_read_from_the_database(lasting):
    with EpisodeStore(lasting) as first:
        first.begin(an_episode("e"))
    with EpisodeStore(lasting) as second:
        # As a node that runs again after a crash: it knows the head, and the steps are in the database.
        second.begin(an_episode("e", steps=[], events=[], interventions=[]))
        second.add("e", a_step(4, "think", "more"))
        known = second.get("e")
        assert (len(known.steps), len(known.events)) == (5, 1)


def test_an_episode_that_was_laid_aside_is_read_from_the_database(lasting):
    with EpisodeStore(lasting) as asks, EpisodeStore(lasting) as goes_on:
        asks.begin(an_episode("e"))
        asks.finish("e", status="waiting")
        goes_on.add("e", a_step(4, "think", "elsewhere"))
        goes_on.flush()
        assert (asks.get("e").steps[4].text, asks.get("e").status) == ("elsewhere", "running")


def test_a_record_that_was_refused_is_not_shown_as_if_it_had_been_written(tmp_path):
    with EpisodeStore(tmp_path / "e.db", on_error="raise") as store:
        store.begin(an_episode("e"))
        store.add("e", a_step(4, "think", "x", start=2**70))
        with pytest.raises(StoreError, match="large"):
            store.flush()
        assert len(store.get("e").steps) == 4


def test_more_running_episodes_than_are_remembered_are_all_there(tmp_path):
    with EpisodeStore(tmp_path / "e.db") as store:
        for number in range(_REMEMBERED + 3):
            store.begin(an_episode(f"e{number}", steps=[a_step(0, "prompt", "x")], events=[], interventions=[]))
        for number in range(_REMEMBERED + 3):
            store.add(f"e{number}", a_step(1, "think", str(number)))
        assert len(store._live._episodes) == _REMEMBERED
        for number in (0, 2, 3, _REMEMBERED + 2):
            assert [step.text for step in store.get(f"e{number}").steps] == ["x", str(number)]
