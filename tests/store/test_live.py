"""A running episode is put together without the database, and is what the database would say."""

from __future__ import annotations

import math
import multiprocessing
import os
import threading
import time

import pytest
from episodes_made import a_step, an_episode, episodes
from hypothesis import HealthCheck, given, settings
from sqlalchemy import event

from nr_agent.episode import Intervention, Step
from nr_agent.errors import StoreError
from nr_agent.events import ChannelEvidence, Evidence, FailureEvent, InstanceFailure
from nr_agent.store import EpisodeStore
from nr_agent.store.database import Database
from nr_agent.store.operations import EPISODES
from nr_agent.store.store import _REMEMBERED

_PLACE = {"step": 4, "position": 400, "score": 0.9, "threshold": 0.5, "detector": "d"}


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
    fields = {"mean": math.inf, "maximum": math.nan, "minimum": -1.0, "std": 0.5, "score": 0.5}
    odd = a_step(
        4,
        "think",
        "a\0b\ud800",
        branch="\0",
        stop="\ud800",
        logprobs=[0.1, math.nan, -math.inf, None],
        readings=[{"level": "in\0side", "tokens": 4, **fields}],
    )
    evidence = Evidence(
        channels=[ChannelEvidence(channel="FFN\0", z=-math.inf, position=3, writes=["\ud800"])],
        features={"mean\0": math.nan},
        text="\0",
    )
    event = _PLACE | {"detector": "\0", "evidence": evidence}
    twice = [InstanceFailure(id=one, **event) for one in ("v\0", "v\ufffd")]
    with EpisodeStore(lasting) as thinks, EpisodeStore(lasting) as looks_on:
        thinks.begin(an_episode("e"))
        thinks.add("e", odd, *twice)
        thinks.add("e", Intervention(id="i\0", kind="branch", policy="\0", step=4, position=4, branches=["\ud800"]))
        seen = thinks.get("e")
        thinks.flush()
        # Parts are compared as text, in which a NaN is a NaN.
        assert repr(seen) == repr(thinks.get("e")) == repr(looks_on.get("e"))
        assert (seen.steps[4].text, seen.steps[4].readings[0].level) == ("a\ufffdb\ufffd", "in\ufffdside")
        assert [one.id for one in seen.events] == ["v1", "v\ufffd"]


@pytest.mark.parametrize("options", [{}, {"redact": str.upper}])
def test_what_is_queued_stays_as_it_is_whatever_becomes_of_the_records(lasting, options):
    """Records are frozen, but their lists are lists."""
    reading = {"level": "instance", "tokens": 4, "mean": 0.5, "maximum": 1, "minimum": 0, "std": 0.25, "score": 0.5}
    channel = ChannelEvidence(channel="FFN 1:2", z=3.0, position=3, writes=["so"])

    def records() -> tuple[Step, InstanceFailure, Intervention]:
        step = a_step(4, "think", "ABCD", logprobs=[-0.5] * 4, readings=[reading])
        evidence = Evidence(channels=[channel.model_copy(deep=True)], features={"mean": 0.5})
        done = Intervention(id="i2", kind="branch", policy="BRANCH", step=4, position=4, inserted=[1], branches=["b1"])
        return step, InstanceFailure(id="v2", **_PLACE, evidence=evidence), done

    def spoil(step: Step, event: InstanceFailure, done: Intervention) -> None:
        for one in (step.ids, step.provenance, step.logprobs, step.readings, done.inserted, done.branches):
            one.clear()
        event.evidence.channels[0].writes.clear()
        event.evidence.channels.clear()
        event.evidence.features["mean"] = 9.0

    given, right = records(), records()
    with EpisodeStore(lasting, **options) as thinks, EpisodeStore(lasting) as looks_on:
        with thinks._writer._state:  # nothing is written yet
            thinks.begin(an_episode("e"), wait=False)
            thinks.add("e", *given)
            spoil(*given)
            known = thinks.get("e")
            assert (known.steps[4], known.events[1], known.interventions[1]) == right
            spoil(known.steps[4], known.events[1], known.interventions[1])
        thinks.flush()
        known = looks_on.get("e")
        assert (known.steps[4], known.events[1], known.interventions[1]) == right


def test_a_record_of_a_type_of_its_own_is_seen_as_it_is_stored(lasting):
    class OwnStep(Step):
        pass

    with EpisodeStore(lasting) as thinks, EpisodeStore(lasting) as looks_on:
        thinks.begin(an_episode("e"))
        thinks.add("e", OwnStep(**a_step(4, "think", "more", logprobs=[-0.1] * 4).model_dump()))
        thinks.add("e", FailureEvent(id="v2", level="instance", kind="overthinking", **_PLACE))
        seen = thinks.get("e")
        thinks.flush()
        assert seen == looks_on.get("e")
        assert (type(seen.steps[4]), type(seen.events[1])) == (Step, InstanceFailure)


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


def test_an_episode_that_was_forgotten_and_is_begun_again_is_whole(tmp_path):
    small = {"steps": [a_step(0, "prompt", "x")], "events": [], "interventions": []}
    with EpisodeStore(tmp_path / "e.db") as store:
        store.begin(an_episode("e", **small))
        for number in range(_REMEMBERED):
            store.begin(an_episode(f"e{number}", **small))
        # As a node that runs again: it knows the head only.
        store.begin(an_episode("e", steps=[], events=[], interventions=[]))
        store.add("e", a_step(1, "think", "y"))
        assert [step.text for step in store.get("e").steps] == ["x", "y"]


def test_an_episode_that_ended_is_forgotten(anywhere):
    with EpisodeStore(anywhere) as store:
        for number in range(20):
            store.begin(an_episode(f"whole{number}", status="completed"))
            store.begin(an_episode(f"e{number}"))
            store.add(f"e{number}", a_step(4, "think", "more"))
            store.finish(f"e{number}", status="waiting" if number % 2 else "completed")
        writer = store._writer
        held = [store._live._episodes, store._known, writer._running, writer._began, writer._aside, writer._awaited]
        assert [len(one) for one in held] == [0] * len(held)


def test_what_is_added_to_an_ended_episode_does_not_make_it_one_that_runs(lasting, monkeypatch):
    monkeypatch.setattr("nr_agent.store.store._HEARTBEAT", 0.0)
    with EpisodeStore(lasting) as store:
        store.begin(an_episode("e", status="completed"))
        store.add("e", a_step(4, "think", "late"))
        store.flush()
        store.begin(an_episode("other"))
        assert store._writer._running == {"other"}
        assert store.get("e").status == "completed"


def test_ids_that_need_not_be_looked_up_are_not_kept_for_ever(anywhere, monkeypatch):
    monkeypatch.setattr("nr_agent.store.store._KNOWN", 3)
    with EpisodeStore(anywhere) as store:
        for number in range(8):
            store.begin(an_episode(f"e{number}"), wait=number % 2 == 0)
        assert len(store._known) <= 3
        for number in range(8):
            store.add(f"e{number}", a_step(4, "think", "more"))
        assert all(len(store.steps(f"e{number}")) == 5 for number in range(8))


def test_whoever_comes_back_to_a_checkpointed_episode_sees_what_others_did_meanwhile(lasting):
    with EpisodeStore(lasting) as first, EpisodeStore(lasting) as second:
        first.begin(an_episode("e", thread_id="t"))
        assert len(first.get("e").steps) == 4
        for number in range(4, 10):
            # A server with two workers: each goes on where the other left off.
            turn = (first, second)[number % 2]
            assert len(turn.get("e").steps) == number
            turn.add("e", a_step(number, "think", f"step {number}"))
            turn.flush()
        assert first.get("e") == second.get("e")
        second.finish("e", status="completed", answer="47")
        assert first.get("e").answer == "47"


def test_who_lost_an_episode_to_another_process_gives_no_sign_of_life_for_it(lasting, monkeypatch):
    monkeypatch.setattr("nr_agent.store.store._HEARTBEAT", 0.0)
    with EpisodeStore(lasting) as first, EpisodeStore(lasting) as second:
        first.begin(an_episode("e", thread_id="t"))
        second.add("e", a_step(4, "think", "elsewhere"))
        second.flush()
        first.begin(an_episode("other"))
        assert first._writer._running == {"other"}
        # It may come back to it, and then it is the other one's no more.
        first.add("e", a_step(5, "think", "here"))
        first.flush()
        second.begin(an_episode("another"))
        assert (first._writer._running, second._writer._running) == ({"e", "other"}, {"another"})
        assert [len(one.get("e").steps) for one in (first, second)] == [6, 6]


def test_an_episode_given_up_for_lost_by_somebody_else_runs_again_with_the_next_sign_of_life(lasting, monkeypatch):
    monkeypatch.setattr("nr_agent.store.store._HEARTBEAT", 0.0)
    with EpisodeStore(lasting) as store:
        store.begin(an_episode("e"))
        other = Database(lasting)
        with other.write() as connection:
            connection.execute(EPISODES.update().values(status="abandoned"))
        other.dispose()
        store.begin(an_episode("other"))
        with EpisodeStore(lasting) as looks_on:
            assert looks_on.get("e").status == "running"


def test_a_record_that_was_never_queued_is_not_shown(tmp_path):
    with EpisodeStore(tmp_path / "e.db", on_error="raise") as store:
        store.begin(an_episode("good"))
        store.begin(an_episode("bad"))
        store.add("bad", a_step(4, "think", "x", start=2**70))
        while store._writer._error is None:
            time.sleep(0.01)
        with pytest.raises(StoreError, match="large"):
            store.add("good", a_step(4, "think", "x"))
        assert len(store.get("good").steps) == 4


@pytest.mark.parametrize("options", [{}, {"redact": str.upper}])
def test_an_episode_that_goes_on_after_it_was_laid_aside_runs(anywhere, options):
    with EpisodeStore(anywhere, **options) as store:
        store.begin(an_episode("e"))
        store.finish("e", status="waiting")
        assert store.get("e").status == "waiting"
        store.add("e", a_step(4, "think", "on"))
        known = store.get("e")
        assert (known.status, known.ended_at, known.steps[4].text) == ("running", None, "on")


def test_forks_that_write_side_by_side_leave_what_the_database_says(lasting):
    with EpisodeStore(lasting) as store, EpisodeStore(lasting) as looks_on:
        store.begin(an_episode("e", steps=[a_step(0, "prompt", "x")], events=[], interventions=[]))
        started = threading.Barrier(4)

        def think(branch: int) -> None:
            started.wait()
            for number in range(1 + branch, 81 + branch, 4):
                store.add("e", a_step(number, "think", str(number), branch=f"b{branch}"))
                assert store.get("e").steps[-1].index >= number
                if number % 8 == branch:
                    store.discard("e", [number])

        threads = [threading.Thread(target=think, args=(branch,)) for branch in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        store.flush()
        assert store.get("e") == looks_on.get("e")
        assert [step.index for step in store.get("e").steps] == list(range(81))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork a process")
@pytest.mark.parametrize("options", [{}, {"redact": str.upper}])
def test_a_child_that_is_forked_while_an_episode_is_looked_at_looks_at_it(lasting, options):
    with EpisodeStore(lasting, **options) as store:
        store.begin(an_episode("e"))
        with store._live._lock:  # as some thread holds it at that moment
            child = multiprocessing.get_context("fork").Process(target=_look, args=(store,))
            child.start()
        child.join(timeout=60)
        assert child.exitcode == 0


def _look(store: EpisodeStore) -> None:
    os._exit(0 if len(store.get("e").steps) == 4 else 1)


def test_an_episode_that_is_begun_without_waiting_is_there_for_whoever_asks(anywhere):
    with EpisodeStore(anywhere, on_error="raise") as store:
        for number in range(20):
            store.begin(an_episode(f"e{number}"), wait=False)
            store.add(f"e{number}", a_step(4, "think", "more"))
            if number % 2:
                assert len(store.get(f"e{number}").steps) == 5
        assert len(list(store.find())) == 20
        store.finish("e0", status="completed")
        assert store.get("e0").status == "completed"


def test_a_beginning_that_fails_is_raised_to_the_next_caller(tmp_path):
    with EpisodeStore(tmp_path / "e.db", on_error="raise") as store:
        store.begin(an_episode("e", steps=[a_step(0, "prompt", "x", start=2**70)]), wait=False)
        with pytest.raises(StoreError, match="large"):
            store.flush()


def test_an_episode_that_was_not_begun_may_wait_beside_the_database(tmp_path, caplog):
    path = tmp_path / "e.db"
    with EpisodeStore(path) as store:
        store.begin(an_episode("before"))
        with store._database.write() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        store.begin(an_episode("e", steps=[a_step(0, "prompt", "x" * 200_000)]), wait=False)
        store.add("e", a_step(1, "think", "y"))
        assert [step.index for step in store.get("e").steps] == [0, 1]
        store.finish("e", status="completed", answer="47")
    assert "full" in caplog.text
    with EpisodeStore(path) as store:
        assert (store.get("e").answer, len(store.get("e").steps)) == ("47", 2)
