"""Which episodes and rows are in an export: outcomes, shares, copies, splits and overlaps with benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from export_helpers import RIGHT, make_episode, rechecked, stopped
from hypothesis import given
from hypothesis import strategies as st

from nr_agent.errors import ConfigurationError, ExportError
from nr_agent.export import export
from nr_agent.export.contamination import Decontamination
from nr_agent.export.files import read_rows
from nr_agent.export.selection import choose_clean, split_of

END = [("m", "</think>\n\nThe final answer is \\boxed{47}.<|im_end|>")]


def clean(codec, episode_id, **fields):
    return make_episode(codec, [[("m", RIGHT)]], END, episode_id=episode_id, **fields)


def ids(folder: Path, name: str = "train.jsonl") -> list[str]:
    return [row["nr_episode_id"] for row in read_rows(folder / name)]


def test_recovered_and_unknown_are_outcomes_of_their_own(codec, store, tmp_path):
    store.begin(clean(codec, "clean"))
    store.begin(rechecked(codec, "recovered"))
    store.begin(rechecked(codec, "unknown", correct=None))
    store.begin(rechecked(codec, "wrong", correct=False))
    for outcome in ("recovered", "unknown"):
        export(store, tmp_path / outcome, outcome=outcome)
        assert ids(tmp_path / outcome) == [outcome]


def test_clean_episodes_are_at_most_the_share_that_was_asked_for(codec, store, tmp_path):
    for number in range(10):
        store.begin(clean(codec, f"c{number}", question=f"What is 12 + {number}?"))
    for number in range(6):
        store.begin(rechecked(codec, f"r{number}", question=f"What is 35 + {number}?"))
    for share, expected in ((0.0, 0), (0.25, 2), (0.5, 6), (0.9, 10)):
        manifest = export(store, tmp_path / str(share), mix_clean=share)
        found = ids(tmp_path / str(share))
        assert sum(name.startswith("c") for name in found) == expected == manifest.clean_rows
        assert sum(name.startswith("r") for name in found) == 6
        left = manifest.refused.get("an episode without an intervention, beyond the share of those", 0)
        assert left == 10 - expected
    export(store, tmp_path / "again", mix_clean=0.25)
    assert ids(tmp_path / "again") == ids(tmp_path / "0.25")


@given(st.lists(st.sampled_from("abcd"), max_size=30), st.integers(0, 40), st.floats(0, 0.99))
def test_a_share_is_never_exceeded_and_never_missed_by_a_whole_row(hashes, intervened, share):
    chosen = choose_clean(hashes, intervened, share).total()
    assert chosen <= share * (chosen + intervened) + 1e-6
    more = chosen + 1
    assert more > len(hashes) or more > share * (more + intervened) - 1e-6


def test_of_rows_with_the_same_content_the_first_stays(codec, store, tmp_path):
    for name in ("a", "b"):
        store.begin(rechecked(codec, name))
    store.begin(stopped(codec, "c"))
    assert export(store, tmp_path / "all").duplicates == 1
    for form in ("messages", "pretokenized", "stepwise"):
        manifest = export(store, tmp_path / form, format=form, files="jsonl", dedupe=True, codec=codec)
        assert (manifest.rows, manifest.duplicates) == (2, 0)
        assert manifest.refused == {"the content of another row": 1}
    assert ids(tmp_path / "messages") == ["a", "c"]


def test_no_problem_is_in_two_splits(codec, store, tmp_path):
    for number in range(30):
        for attempt in range(2):
            store.begin(rechecked(codec, f"{attempt}-{number:02}", question=f"What is 12 + {number}?"))
    manifest = export(store, tmp_path / "out", validation=0.3)
    asked = {
        split: {row["messages"][0]["content"] for row in read_rows(tmp_path / "out" / f"{split}.jsonl")}
        for split in ("train", "validation")
    }
    assert not asked["train"] & asked["validation"]
    assert len(asked["train"]) + len(asked["validation"]) == 30
    assert 3 <= len(asked["validation"]) <= 16
    assert sum(manifest.splits.values()) == manifest.rows == 60


@given(st.text(), st.floats(0, 0.5))
def test_a_larger_share_for_validation_takes_no_problem_away_from_it(problem, share):
    if split_of(problem, share) == "validation":
        assert split_of(problem, share + 0.3) == "validation"
    assert split_of(problem, share) == split_of(f" {problem}\n", share)


LONG = "Tom has twelve apples and gives thirty five of them to his very old friend Ann, how many are left?"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("b.jsonl", json.dumps({"question": f"Story: {LONG}"}) + "\n"),
        ("b.json", json.dumps([{"problem": LONG.upper()}])),
        ("b.txt", f"another\n{LONG}\n"),
        ("chat.jsonl", json.dumps({"messages": [{"role": "user", "content": LONG}]}) + "\n"),
    ],
)
def test_problems_that_overlap_a_benchmark_are_left_out_and_counted(codec, store, tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    reworded = LONG.replace("Tom", "Jim").replace(", how many are left?", ". Tell me.")
    for episode_id, question in (("same", LONG), ("part", reworded), ("other", "What is 12 + 35?")):
        store.begin(rechecked(codec, episode_id, question=question))
    manifest = export(store, tmp_path / "out", against=[path])
    assert ids(tmp_path / "out") == ["other"]
    assert manifest.refused == {"the problem overlaps one of a benchmark": 2}
    assert [one.overlapping for one in manifest.against] == [2]
    assert "2 overlapped" in (tmp_path / "out" / "README.md").read_text()


def test_short_problems_overlap_only_when_all_their_words_are_the_same(tmp_path):
    path = tmp_path / "b.txt"
    path.write_text("What is 12 + 35?\n")
    found = Decontamination([path])
    assert found.overlaps("what is  12+35 ?")
    assert not found.overlaps("What is 12 + 36?")
    assert not found.overlaps("What is 12 + 35? And then?")
    assert Decontamination([path], ngram=3).overlaps("And what is 12, again?")


def test_the_parquet_of_a_benchmark_is_read(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"problem": [LONG]}), tmp_path / "b.parquet")
    assert Decontamination([tmp_path / "b.parquet"]).overlaps(LONG)


@pytest.mark.parametrize("content", [None, '{"x": 1}\n', "{"])
def test_a_benchmark_that_cannot_be_read_is_an_error_that_names_it(store, tmp_path, content):
    path = tmp_path / "b.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ExportError, match=r"b\.jsonl") as caught:
        export(store, tmp_path / "out", against=[path])
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [("b.jsonl", ""), ("b.json", "[]"), ("b.txt", " \n\n"), ("b.jsonl", '{"problem": "?!"}\n')],
)
def test_a_benchmark_without_a_problem_is_an_error_that_names_it(store, tmp_path, name, content):
    full, path = tmp_path / "full.txt", tmp_path / name
    full.write_text(f"{LONG}\n")
    path.write_text(content)
    with pytest.raises(ExportError, match=rf"{name} has no problem") as caught:
        export(store, tmp_path / "out", against=[full, path])
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [{"validation": 1.0}, {"mix_clean": -0.1}, {"files": "csv"}, {"ngram": 0}])
def test_choices_without_sense_are_refused(store, tmp_path, wrong):
    with pytest.raises(ConfigurationError) as caught:
        export(store, tmp_path / "out", **wrong)
    assert caught.value.hint
