"""What is not to be kept is nowhere: not in the database, not in the file beside it, not in the log."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from episodes_made import a_step, an_episode

from nr_agent.episode import Problem
from nr_agent.events import ChannelEvidence, Evidence, IntraStepFailure
from nr_agent.export import export
from nr_agent.store import EpisodeFilter, EpisodeStore
from nr_agent.store.care import check
from nr_agent.store.privacy import NOT_KEPT, REDACTED
from nr_agent.store.records import hash_problem

SECRET = "Miller-4711"  # noqa: S105 - a name


def redact(text: str) -> str:
    return re.sub(r"Miller-\d+", "[name]", text)


def secret_episode(**fields):
    said = f"The patient {SECRET} takes 3 a day.\n\n"
    evidence = Evidence(text=said, channels=[ChannelEvidence(channel="FFN 1:2", z=1.0, position=1)])
    problem = Problem(text=f"How many for {SECRET}?", reference=SECRET, metadata={"who": {"name": [SECRET]}}, seed=5)
    steps = [
        a_step(0, "prompt", f"How many for {SECRET}?", "prompt", start=0),
        a_step(1, "think", said),
        a_step(2, "answer", "</think>3"),
    ]
    events = [IntraStepFailure(id="v", step=1, position=9, score=1, threshold=0, detector="d", evidence=evidence)]
    values = {"problem": problem, "steps": steps, "events": events, "settings": {"note": SECRET}}
    return an_episode("e", **(values | fields))


def contents(path: Path) -> bytes:
    """Every byte that is beside the database, and the database written out."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return b"".join(one.read_bytes() for one in path.parent.iterdir() if one.is_file())


def is_nowhere(path: Path) -> bool:
    found = contents(path)
    ids = b"".join(ord(character).to_bytes(4, "little") for character in SECRET)
    return SECRET.encode() not in found and ids not in found


def test_without_either_it_would_be_found(tmp_path):
    with EpisodeStore(tmp_path / "e.db") as store:
        store.begin(secret_episode())
    assert not is_nowhere(tmp_path / "e.db")


@pytest.mark.parametrize("options", [{"redact": redact}, {"keep_text": False}])
def test_what_is_not_to_be_kept_is_in_no_file(tmp_path, options):
    path = tmp_path / "e.db"
    with EpisodeStore(path, **options) as store:
        store.begin(secret_episode())
        store.add("e", a_step(3, "think", f"{SECRET} again"))
        store.annotate("e", f"about {SECRET}")
        store.finish("e", status="failed", answer=f"3 for {SECRET}", error=SECRET)
        known = store.get("e")
    assert is_nowhere(path)
    assert [len(step.ids) for step in known.steps] == [len(step.ids) for step in secret_episode().steps] + [17]
    assert known.usage.thinking == len(known.steps[1].ids) + 17
    assert list(check(path)) == []


@pytest.mark.parametrize("options", [{"redact": redact}, {"keep_text": False}])
def test_what_waits_beside_a_full_database_is_without_it_too(tmp_path, options):
    path = tmp_path / "e.db"
    with EpisodeStore(path, **options) as store:
        store.begin(an_episode("warm"))
        with store._database.write() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        big = a_step(1, "think", f"{SECRET}" + "x" * 200_000)
        store.begin(secret_episode(steps=[*secret_episode().steps[:1], big]))
    assert (tmp_path / "e.db.spool.jsonl").stat().st_size > 0
    assert is_nowhere(path)


def test_a_redactor_leaves_the_rest_and_drops_the_ids_of_what_it_changed(tmp_path):
    with EpisodeStore(tmp_path / "e.db", redact=redact) as store:
        store.begin(secret_episode(status="completed"))
        known = store.get("e")
    assert known.problem.text == "How many for [name]?"
    assert known.problem.metadata == {"who": {"name": ["[name]"]}}
    assert known.steps[1].text == "The patient [name] takes 3 a day.\n\n"
    assert set(known.steps[1].ids) == {REDACTED}
    assert known.steps[2] == secret_episode().steps[2]


def test_without_texts_numbers_kinds_and_hashes_remain(tmp_path):
    with EpisodeStore(tmp_path / "e.db", keep_text=False) as store:
        store.begin(secret_episode(status="completed", answer="3"))
        known = store.get("e")
        [found] = store.find(EpisodeFilter(event="calculation"))
        assert store.to_arrow().column("problem_hash").to_pylist() == [hash_problem(f"How many for {SECRET}?")]
    assert (found.id, known.problem.text, known.answer, known.problem.seed) == ("e", NOT_KEPT, NOT_KEPT, None)
    assert known.events[0].score == 1
    assert all(set(step.ids) == {REDACTED} for step in known.steps)


@pytest.mark.parametrize(("options", "kept"), [({"redact": redact}, "[name]"), ({"keep_text": False}, NOT_KEPT)])
def test_what_is_noted_about_a_run_is_kept_as_every_text_is(tmp_path, options, kept):
    path = tmp_path / "e.db"
    config = {"note": SECRET, "deep": [{"who": SECRET}], "n": 3}
    with EpisodeStore(path, run="nightly", config=config, **options) as store:
        store.begin(an_episode("e", status="completed"))
        [run] = store.runs()
    assert (run.name, run.config) == ("nightly", {"note": kept, "deep": [{"who": kept}], "n": 3})
    assert is_nowhere(path)


def test_whoever_thinks_an_episode_sees_all_of_it_until_it_has_ended(tmp_path):
    with EpisodeStore(tmp_path / "e.db", keep_text=False) as store:
        whole = secret_episode()
        store.begin(whole)
        store.add("e", a_step(3, "think", "more"))
        store.discard("e", [3])
        store.finish("e", status="waiting")
        known = store.get("e")
        assert known.steps[:3] == whole.steps
        assert (known.steps[3].text, known.steps[3].discarded, known.status) == ("more", True, "waiting")
        store.finish("e", status="completed", answer="3")
        assert store.get("e").steps[1].text == NOT_KEPT


def test_the_setting_holds_where_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("NR_AGENT_KEEP_TEXT", "0")
    with EpisodeStore(tmp_path / "e.db") as store:
        store.begin(secret_episode(status="completed"))
    assert is_nowhere(tmp_path / "e.db")
    with EpisodeStore(tmp_path / "f.db", keep_text=True) as store:
        store.begin(secret_episode(status="completed"))
    assert not is_nowhere(tmp_path / "f.db")


@pytest.mark.parametrize(("options", "reason"), [({"redact": redact}, "redacted"), ({"keep_text": False}, "not kept")])
def test_what_was_not_kept_is_left_out_of_exports(tmp_path, options, reason):
    end = len(f"How many for {SECRET}?")
    thought = a_step(1, "think", f"{SECRET}\n\n", start=end)
    answer = a_step(2, "answer", "</think>3", start=end + len(thought.ids))
    steps = [secret_episode().steps[0], thought, answer]
    with EpisodeStore(tmp_path / "e.db", **options) as store:
        store.begin(secret_episode(status="completed", correct=True, steps=steps, events=[], interventions=[]))
        manifest = export(store, tmp_path / "out", format="pretokenized", files="jsonl")
    assert manifest.rows == 0
    assert [reason in one for one in manifest.refused] == [True]
