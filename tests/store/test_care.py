"""`nr-agent db`: looking changes nothing, what is damaged is named, and only what was asked for goes."""

from __future__ import annotations

import shlex
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from episodes_made import a_step, an_episode
from sqlalchemy import create_engine, text
from typer.testing import CliRunner

from nr_agent.cli.main import app
from nr_agent.errors import ConfigurationError, NotFoundError, StoreError
from nr_agent.store import EpisodeStore
from nr_agent.store.care import check, find_store, read_status
from nr_agent.store.database import Database
from nr_agent.store.schema import HEAD

NOW = datetime.now(UTC)


@pytest.fixture
def nr(capsys):
    """Run a command in this process; gives standard output and standard error."""

    def run(line: str) -> tuple[str, str]:
        capsys.readouterr()
        app(shlex.split(line), standalone_mode=False)
        captured = capsys.readouterr()
        return captured.out, captured.err

    return run


def whole(episode_id: str, **fields: Any) -> Any:
    """A completed episode whose steps follow on each other."""
    steps, position = [], 0
    for step in an_episode("x").steps:
        steps.append(step.model_copy(update={"start": position}))
        position += len(step.ids)
    return an_episode(episode_id, **({"status": "completed", "steps": steps} | fields))


def fill(place: str) -> None:
    with EpisodeStore(place) as store:
        for number, status in enumerate(["completed", "completed", "abandoned", "waiting", "failed"]):
            store.begin(whole(f"e{number}", status=status, created_at=NOW - timedelta(days=10 * (5 - number))))


def execute(place: str, *statements: str) -> None:
    engine = create_engine(Database(place).url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def ids(place: str) -> set[str]:
    with EpisodeStore(place) as store:
        return {one.id for one in store.find()}


def test_path_hides_the_password(nr):
    out, _ = nr("db path --store postgresql://me:secret@host/episodes")
    assert out.strip() == "postgresql+psycopg://me:***@host/episodes"


def test_path_is_that_of_the_settings(nr, home):
    out, _ = nr("db path")
    assert Path(out.strip()).is_relative_to(home)


def test_status_counts_everything(lasting, nr):
    fill(lasting)
    found = read_status(lasting)
    assert found.standing == "current"
    assert found.episodes == {"abandoned": 1, "completed": 2, "failed": 1, "waiting": 1}
    assert (found.steps, found.events, found.interventions, found.spooled) == (20, 5, 5, 0)
    out, _ = nr(f"db status --store '{lasting}'")
    assert "episodes: 5 (1 abandoned, 2 completed, 1 failed, 1 waiting)" in out
    assert f"schema: {HEAD} (current)" in out


def test_status_of_no_store_makes_none(tmp_path):
    with pytest.raises(StoreError, match="there is no episode store"):
        read_status(tmp_path / "e.db")
    assert not list(tmp_path.glob("e.db*"))


@pytest.mark.parametrize(("revision", "standing"), [("9999_later", "newer"), (HEAD, "current")])
def test_status_tells_a_newer_schema_without_opening_it(lasting, revision, standing, nr):
    fill(lasting)
    execute(lasting, f"UPDATE nr_agent_version SET version_num = '{revision}'")  # noqa: S608 - of this test
    assert read_status(lasting).standing == standing
    out, _ = nr(f"db status --store '{lasting}' --json")
    assert f'"standing": "{standing}"' in out


def test_status_counts_the_spool(tmp_path):
    path = tmp_path / "e.db"
    fill(str(path))
    (tmp_path / "e.db.spool.jsonl").write_text("{}\n{}\n")
    (tmp_path / "e.db.spool.jsonl.refused").write_text("x\n")
    found = read_status(path)
    assert (found.spooled, found.refused) == (2, 1)
    assert (tmp_path / "e.db.spool.jsonl").read_text() == "{}\n{}\n"


def test_upgrade_fills_an_empty_database(lasting, nr):
    if "://" not in lasting:
        Path(lasting).touch()
    assert read_status(lasting).standing == "empty"
    out, _ = nr(f"db upgrade --store '{lasting}'")
    assert out == f"schema none is now {HEAD}\n"
    assert read_status(lasting).standing == "current"
    out, _ = nr(f"db upgrade --store '{lasting}'")
    assert out == f"schema {HEAD}, as before\n"


def test_a_sound_store_has_no_fault(lasting, nr):
    fill(lasting)
    assert list(check(lasting)) == []
    out, err = nr(f"db check --store '{lasting}'")
    assert (out, err) == ("", "no fault\n")


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        ("DELETE FROM steps WHERE episode_id = 'e0' AND \"index\" = 1", "steps are missing before it"),
        ("DELETE FROM steps WHERE episode_id = 'e0'", "the prompt is missing"),
        ("UPDATE episodes SET problem_hash = 'x' WHERE id = 'e0'", "the hash is not that of its problem"),
        ("UPDATE steps SET kind = 'dream' WHERE episode_id = 'e0' AND \"index\" = 1", "cannot be read"),
        ("UPDATE steps SET provenance = '[]' WHERE episode_id = 'e0' AND \"index\" = 1", "provenance does not cover"),
    ],
)
def test_check_names_the_damaged_episode_and_no_other(lasting, damage, what):
    fill(lasting)
    execute(lasting, damage)
    (fault,) = check(lasting)
    assert fault.place == "e0"
    assert what in fault.what


def test_check_finds_a_torn_blob_and_an_orphan(tmp_path, nr):
    path = tmp_path / "e.db"
    fill(str(path))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE steps SET ids = x'010203' WHERE episode_id = 'e1' AND \"index\" = 1")
        connection.execute("DELETE FROM episodes WHERE id = 'e4'")
        connection.commit()
    places = [(fault.place, fault.what) for fault in check(path)]
    assert ("e4", "steps of an episode that is not there") in places
    assert any(place == "e1" and "cannot be read" in what for place, what in places)
    with pytest.raises(StoreError, match="4 faults"):
        nr(f"db check --store {path}")


def test_check_reads_the_spool(tmp_path):
    path = tmp_path / "e.db"
    fill(str(path))
    (tmp_path / "e.db.spool.jsonl").write_bytes(b'{"kind": 1}\n\xff\xfe\n')
    assert [fault.what.split(":")[0] for fault in check(path)] == ["line 1 is no record", "line 2 is no record"]


def test_check_of_a_schema_of_another_version_says_what_to_do(lasting):
    fill(lasting)
    execute(lasting, "UPDATE nr_agent_version SET version_num = '9999_later'")
    with pytest.raises(StoreError, match="has schema 9999_later"):
        list(check(lasting))


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        ("--older-than 25d", {"e0", "e1", "e2"}),
        ("--older-than 1000h", {"e0"}),
        ("--keep-last 2", {"e0", "e1", "e2"}),
        ("--keep-last 0", {"e0", "e1", "e2", "e4"}),
        ("--abandoned", {"e2"}),
        ("--abandoned --older-than 9w", set()),
        ("--older-than 25d --keep-last 4", {"e0"}),
    ],
)
def test_prune_lets_go_of_what_was_asked_for(lasting, nr, options, gone):
    fill(lasting)
    out, err = nr(f"db prune {options} --dry-run --store '{lasting}'")
    assert set(out.split()) == gone
    assert ids(lasting) == {"e0", "e1", "e2", "e3", "e4"}
    _, err = nr(f"db prune {options} --yes --store '{lasting}'")
    assert err == f"{len(gone)} episodes deleted\n"
    assert ids(lasting) == {"e0", "e1", "e2", "e3", "e4"} - gone
    assert list(check(lasting)) == []
    assert read_status(lasting).steps == 4 * (5 - len(gone))


@pytest.mark.parametrize(("said", "left"), [("n\n", 5), ("", 5), ("y\n", 1)])
def test_prune_asks_and_only_a_yes_deletes(tmp_path, said, left):
    path = str(tmp_path / "e.db")
    fill(path)
    result = CliRunner().invoke(app, ["db", "prune", "--keep-last", "0", "--store", path])
    assert result.exit_code == 1
    result = CliRunner().invoke(app, ["db", "prune", "--keep-last", "0", "--store", path], input=said)
    assert "delete 4 episodes from" in result.stderr
    assert len(ids(path)) == left


def test_prune_without_a_rule_is_refused(tmp_path, nr):
    fill(str(tmp_path / "e.db"))
    with pytest.raises(ConfigurationError, match="nothing says which"):
        nr(f"db prune --yes --store {tmp_path / 'e.db'}")


@pytest.mark.parametrize("age", ["30", "0d", "-1d", "1y", "d"])
def test_an_age_that_is_none_is_refused(tmp_path, nr, age):
    with pytest.raises(ConfigurationError, match="no length of time"):
        nr(f"db prune --yes --older-than={age} --store {tmp_path / 'e.db'}")


def test_a_running_episode_is_never_deleted(store):
    store.begin(an_episode("r", steps=[a_step(0, "prompt", "x", "prompt")]))
    store.begin(an_episode("d", status="failed"))
    assert store.delete(["r", "d", "unknown"]) == 1
    assert store.get("r").id == "r"
    with pytest.raises(NotFoundError):
        store.get("d")


def test_finding_a_store_does_not_make_it(tmp_path):
    assert find_store(tmp_path / "a" / "e.db").label == str(tmp_path / "a" / "e.db")
    assert not (tmp_path / "a").exists()
