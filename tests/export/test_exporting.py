"""The folder: all of it or nothing, the same bytes for the same episodes, and a manifest that tells the truth."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from export_helpers import ANSWER, RECHECKED, RIGHT, SLIP, make_episode, rechecked, stopped

from nr_agent.errors import ConfigurationError, ExportError
from nr_agent.export import Manifest, export
from nr_agent.export.verifying import read_manifest
from nr_agent.store import EpisodeFilter, EpisodeStore


def rows(folder: Path, name: str = "train.jsonl") -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_message_holds_the_thinking_with_its_correction_tokens(codec, store, tmp_path):
    store.begin(rechecked(codec))
    export(store, tmp_path / "out")
    [row] = rows(tmp_path / "out")
    thoughts = f"Let me add. 12, 35.\n\n{SLIP}{RECHECKED}{RIGHT}"
    assert row["messages"] == [
        {"role": "user", "content": "What is 12 + 35?"},
        {"role": "assistant", "content": f"<think>\n{thoughts}</think>\n\nThe final answer is \\boxed{{47}}."},
    ]
    assert row["nr_episode_id"] == "e1"
    assert (row["nr_domain"], row["nr_task"], row["nr_outcome"]) == ("math", "chain_sum", "correct")


def test_clean_messages_hold_only_the_line_that_led_to_the_answer(codec, store, tmp_path):
    store.begin(rechecked(codec))
    store.begin(stopped(codec))
    export(store, tmp_path / "out", mask="clean", codec=codec)
    said = [row["messages"][1]["content"] for row in rows(tmp_path / "out")]
    assert said == [
        f"<think>\nLet me add. 12, 35.\n\n{RIGHT}</think>\n\nThe final answer is \\boxed{{47}}.",
        f"<think>\n{RIGHT}</think>\n\nThe final answer is \\boxed{{47}}.",
    ]


def test_pretokenized_rows_have_exactly_what_trainers_read_and_their_lineage_beside_them(codec, store, tmp_path):
    store.begin(rechecked(codec))
    export(store, tmp_path / "out", format="pretokenized", files="jsonl")
    [row], [lineage] = rows(tmp_path / "out"), rows(tmp_path / "out", "lineage.jsonl")
    assert set(row) == {"input_ids", "attention_mask", "labels"}
    assert row["input_ids"] == rechecked(codec).ids
    assert lineage["nr_episode_id"] == "e1"
    assert lineage["nr_text"] == codec.decode(row["input_ids"])


def test_axolotl_parts_carry_the_mask(codec, store, tmp_path):
    store.begin(rechecked(codec))
    trained = {}
    for mask in ("respond", "internalize"):
        export(store, tmp_path / mask, format="axolotl", mask=mask, codec=codec)
        [row] = rows(tmp_path / mask)
        parts = row["messages"][1]["content"]
        trained[mask] = [(part["text"], part["train"]) for part in parts]
    first, last = "Let me add. 12, 35.\n\n", f"{RIGHT}</think>\n\nThe final answer is \\boxed{{47}}."
    opened = ("<think>\n", False)
    assert trained["respond"] == [opened, (first, True), (f"{SLIP}{RECHECKED}", False), (last, True)]
    assert trained["internalize"] == [opened, (first, True), (SLIP, False), (f"{RECHECKED}{last}", True)]


def test_only_right_answers_are_exported_unless_others_are_asked_for(codec, store, tmp_path):
    for name, fields in {
        "right": {},
        "wrong": {"correct": False},
        "unknown": {"correct": None},
        "failed": {"status": "failed"},
        "running": {"status": "running"},
    }.items():
        store.begin(rechecked(codec, name, **fields))
    chosen = {}
    for outcome in ("correct", "wrong", "any"):
        export(store, tmp_path / outcome, outcome=outcome)
        chosen[outcome] = [row["nr_episode_id"] for row in rows(tmp_path / outcome)]
    assert chosen == {"correct": ["right"], "wrong": ["wrong"], "any": ["right", "unknown", "wrong"]}
    export(store, tmp_path / "f", filter=EpisodeFilter(status="failed"))
    assert [row["nr_episode_id"] for row in rows(tmp_path / "f")] == ["failed"]


@pytest.mark.parametrize("form", ["messages", "axolotl", "pretokenized"])
def test_the_same_episodes_make_the_same_bytes(codec, tmp_path, form):
    made = [rechecked(codec, "b"), stopped(codec, "a"), rechecked(codec, "c", correct=False)]
    for name, order in (("one", made), ("two", made[::-1])):
        with EpisodeStore(tmp_path / f"{name}.db") as store:
            for number, episode in enumerate(order):
                store.begin(episode.model_copy(update={"created_at": datetime(2026, 1, 1 + number, tzinfo=UTC)}))
            export(store, tmp_path / name, format=form, outcome="any", codec=codec)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize(
    "text",
    [
        "Say </think> now",
        "<think>",
        "<|recheck|> 2+2?",
        "a<|im_end|>b",
        "<|anything_else|>",
        "<\uff5cUser\uff5c>",
        "</s>",
    ],
)
def test_a_problem_that_looks_like_a_control_token_is_refused_and_counted(codec, store, tmp_path, text):
    end = [("m", f"</think>\n\n{ANSWER}")]
    store.begin(make_episode(codec, [[("m", RIGHT)]], end, question=text))
    store.begin(rechecked(codec, "fine"))
    manifest = export(store, tmp_path / "out")
    assert manifest.refused == {"the problem's text looks like a control token": 1}
    assert (manifest.episodes, manifest.rows) == (2, 1)
    assert [row["nr_episode_id"] for row in rows(tmp_path / "out")] == ["fine"]
    # Where ids are exported, text cannot become anything else.
    assert export(store, tmp_path / "ids", format="pretokenized", files="jsonl").rows == 2


def test_a_conversation_before_the_problem_is_refused_where_its_roles_would_be_lost(codec, store, tmp_path):
    store.begin(after_talk(codec, [("user", "Hi"), ("assistant", "Hello")]))
    assert export(store, tmp_path / "a").refused == {"a conversation before the problem": 1}
    assert export(store, tmp_path / "b", format="pretokenized", files="jsonl").rows == 1


@pytest.mark.parametrize("seen", [{"turns": 2, "tools": 0}, {"turns": 1, "tools": 1}])
@pytest.mark.parametrize("form", ["messages", "axolotl", "preference", "stepwise"])
def test_turns_and_tools_that_a_prompt_does_not_show_are_a_conversation(codec, store, tmp_path, form, seen):
    store.begin(rechecked(codec, settings=seen))
    manifest = export(store, tmp_path / "out", format=form, codec=codec)
    assert manifest.refused == {"a conversation before the problem": 1}


def test_a_system_turn_of_the_templates_own_is_no_conversation(codec, store, tmp_path):
    own = [("system", "You are a helpful assistant.")]
    store.begin(after_talk(codec, own, "alone", settings={"turns": 1, "tools": 0}))
    # Of an episode that does not say what was asked, only the prompt is known.
    store.begin(after_talk(codec, own, "unsaid"))
    manifest = export(store, tmp_path / "out")
    assert [row["nr_episode_id"] for row in rows(tmp_path / "out")] == ["alone"]
    assert manifest.refused == {"a conversation before the problem": 1}


def after_talk(codec, talk, episode_id="e1", **fields):
    """An episode whose prompt holds other turns before the problem."""
    episode = rechecked(codec, episode_id, **fields)
    turns = [*talk, ("user", episode.problem.text)]
    prompt = codec.render([{"role": role, "content": text} for role, text in turns])
    head = episode.steps[0].model_copy(
        update={"ids": prompt, "provenance": [("prompt", len(prompt))], "text": codec.decode(prompt)}
    )
    more = len(prompt) - len(episode.steps[0].ids)
    tail = [step.model_copy(update={"start": step.start + more}) for step in episode.steps[1:]]
    return episode.model_copy(update={"steps": [head, *tail]})


def test_the_manifest_tells_the_truth(codec, store, tmp_path):
    store.begin(rechecked(codec, "a"))
    store.begin(rechecked(codec, "b"))
    store.begin(stopped(codec, "c", fingerprint="0" * 64))
    manifest = export(store, tmp_path / "out", format="pretokenized", files="jsonl")
    read = rows(tmp_path / "out")
    lengths = sorted(len(row["input_ids"]) for row in read)
    assert manifest.tokens == sum(lengths)
    assert manifest.trained_tokens == sum(label != -100 for row in read for label in row["labels"])
    assert (manifest.lengths.minimum, manifest.lengths.median, manifest.lengths.maximum) == tuple(lengths)
    assert manifest.interventions == {"recheck": 2, "stop": 1}
    assert manifest.duplicates == 1
    assert {one.fingerprint: one.rows for one in manifest.models} == {"f" * 64: 2, "0" * 64: 1}
    assert Manifest.model_validate_json((tmp_path / "out" / "manifest.json").read_text()) == manifest
    assert {file.name for file in manifest.files} == {
        "train.jsonl",
        "lineage.jsonl",
        "README.md",
        "trl_sft.yaml",
        "axolotl.yaml",
        "llamafactory_sft.yaml",
    }
    for file in manifest.files:
        assert hashlib.sha256((tmp_path / "out" / file.name).read_bytes()).hexdigest() == file.sha256
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nconfigs:\n")
    assert f"max_length={lengths[-1]}" in card
    assert manifest.export_id in card


def test_another_mask_is_another_export(codec, store, tmp_path):
    store.begin(rechecked(codec))
    ids = {mask: export(store, tmp_path / mask, mask=mask, codec=codec).export_id for mask in ("respond", "clean")}
    assert ids["respond"] != ids["clean"]


def test_nothing_to_export_is_an_export_without_rows(store, tmp_path):
    manifest = export(store, tmp_path / "out")
    assert (manifest.rows, manifest.lengths) == (0, None)
    assert (tmp_path / "out" / "train.jsonl").read_bytes() == b""


def test_lines_end_only_where_rows_end(codec, store, tmp_path):
    odd = "one\u2028two\u2029three\x85four\rfive"
    store.begin(rechecked(codec, question=odd))
    export(store, tmp_path / "out")
    text = (tmp_path / "out" / "train.jsonl").read_bytes().decode()
    assert len(text.splitlines()) == 1
    assert json.loads(text)["messages"][0]["content"] == odd


def test_an_export_is_replaced_only_when_that_was_asked_for(codec, store, tmp_path):
    out = tmp_path / "out"
    store.begin(rechecked(codec, "a"))
    export(store, out)
    before = contents(out)
    store.begin(rechecked(codec, "b"))
    with pytest.raises(ExportError, match="there already"):
        export(store, out)
    assert contents(out) == before
    assert export(store, out, overwrite=True).rows == 2
    assert len(rows(out)) == 2
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out"]


def test_what_is_no_export_is_never_deleted(store, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    for name in ("precious", "file", "link"):
        with pytest.raises(ExportError):
            export(store, tmp_path / name, overwrite=True)
    assert (tmp_path / "precious" / "thesis.tex").read_text() == "x"
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("manifest", ['{"name": "app", "start_url": "/"}', "[]", "{", ""])
def test_a_folder_with_another_tools_manifest_is_never_deleted(store, tmp_path, manifest):
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "manifest.json").write_text(manifest)
    (folder / "index.html").write_text("mine")
    before = contents(folder)
    with pytest.raises(ExportError, match="something else than an export") as caught:
        export(store, folder, overwrite=True)
    assert caught.value.hint
    assert contents(folder) == before


def test_an_export_is_not_replaced_while_something_that_no_export_wrote_is_in_it(codec, store, tmp_path):
    out = tmp_path / "out"
    store.begin(rechecked(codec, "a"))
    export(store, out)
    before = contents(out)
    (out / "trained").mkdir()
    (out / "trained" / "model.safetensors").write_text("weights")
    store.begin(rechecked(codec, "b"))
    with pytest.raises(ExportError, match="more than its export: trained") as caught:
        export(store, out, overwrite=True)
    assert "move that away" in caught.value.hint
    assert (out / "trained" / "model.safetensors").read_text() == "weights"
    (out / "trained").rename(tmp_path / "trained")
    assert contents(out) == before
    assert export(store, out, overwrite=True).rows == 2


@pytest.mark.parametrize("overwrite", [True, False])
def test_what_came_to_the_place_while_an_export_was_made_stays(codec, store, tmp_path, monkeypatch, overwrite):
    out = tmp_path / "out"
    store.begin(rechecked(codec, "a"))
    real = EpisodeStore.get

    def get(self, episode_id):
        out.mkdir()
        (out / "notes").write_text("mine")
        return real(self, episode_id)

    monkeypatch.setattr(EpisodeStore, "get", get)
    with pytest.raises(ExportError):
        export(store, out, overwrite=overwrite)
    assert contents(out) == {"notes": b"mine"}
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out"]


@pytest.mark.parametrize(("rename", "done", "kept"), [(1, True, 1), (2, False, 1), (2, True, 2)])
def test_an_interrupt_while_an_export_is_replaced_leaves_one_of_the_two(
    codec, store, tmp_path, monkeypatch, rename, done, kept
):
    out = tmp_path / "out"
    store.begin(rechecked(codec, "a"))
    export(store, out)
    store.begin(rechecked(codec, "b"))
    real, renames = Path.replace, []

    def replace(self, target):
        renames.append(self.name)
        if len(renames) == rename:
            if done:
                real(self, target)
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        export(store, out, overwrite=True)
    assert len(rows(out)) == kept
    assert read_manifest(out).rows == kept
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out"]


def test_an_export_that_breaks_off_leaves_nothing_and_keeps_the_old_one(codec, store, tmp_path, monkeypatch):
    out = tmp_path / "out"
    store.begin(rechecked(codec, "a"))
    export(store, out)
    before = contents(out)
    store.begin(rechecked(codec, "b"))
    real = EpisodeStore.get

    def get(self, episode_id):
        if episode_id == "b":
            raise KeyboardInterrupt
        return real(self, episode_id)

    monkeypatch.setattr(EpisodeStore, "get", get)
    for target in (out, tmp_path / "new"):
        with pytest.raises(KeyboardInterrupt):
            export(store, target, overwrite=True)
    assert contents(out) == before
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith("home")] == ["out"]


def test_a_place_that_cannot_be_written_is_an_export_error(store, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be written") as caught:
        export(store, tmp_path / "file" / "out")
    assert "--out" in caught.value.hint


@pytest.mark.parametrize("wrong", [{"format": "csv"}, {"mask": "none"}, {"outcome": "good"}])
def test_a_choice_that_there_is_not_names_those_that_there_are(store, tmp_path, wrong):
    with pytest.raises(ConfigurationError, match="there is no") as caught:
        export(store, tmp_path / "out", **wrong)
    assert "choose from" in caught.value.hint
    assert not (tmp_path / "out").exists()
