"""An export that a trainer would read differently does not pass."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from export_helpers import rechecked, stopped
from tokenizers import Tokenizer

from nr_agent.errors import ExportError
from nr_agent.export import MASKS, export, verify
from nr_agent.export.writing import TRAINING_TEMPLATE


@pytest.fixture
def exported(codec, store, tmp_path):
    store.begin(rechecked(codec, "a"))
    store.begin(stopped(codec, "b"))

    def make(**options) -> Path:
        folder = tmp_path / "out"
        export(store, folder, codec=codec, overwrite=True, **({"files": "jsonl"} | options))
        return folder

    return make


def rewrite(folder: Path, change, name: str = "train.jsonl") -> None:
    """Change the first row, and the manifest with it."""
    lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    change(lines[0])
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = [file for file in manifest["files"] if file["name"] != name]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def without_correction_tokens(tokenizer):
    """The same tokenizer, before the correction tokens were added to it."""
    from transformers import PreTrainedTokenizerFast

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["added_tokens"] = [one for one in state["added_tokens"] if "recheck" not in one["content"]]
    state["model"]["vocab"] = {
        (name if "recheck" not in name else "unused"): number for name, number in state["model"]["vocab"].items()
    }
    core = Tokenizer.from_str(json.dumps(state))
    return PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("mask", list(MASKS))
@pytest.mark.parametrize("form", ["messages", "pretokenized", "axolotl"])
def test_what_we_write_comes_back_as_it_was(exported, tokenizer, form, mask):
    found = verify(exported(format=form, mask=mask), tokenizer)
    assert (found.rows, found.correction_tokens) == (2, 0 if mask == "clean" else 1)


def test_messages_through_our_training_template_are_the_ids_that_were_thought(codec, store, tmp_path, tokenizer):
    episodes = {"a": rechecked(codec, "a"), "b": stopped(codec, "b")}
    for episode in episodes.values():
        store.begin(episode)
    export(store, tmp_path / "out")
    template = (tmp_path / "out" / "chat_template.jinja").read_text()
    assert template == TRAINING_TEMPLATE
    for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines():
        row = json.loads(line)
        encoded = tokenizer.apply_chat_template(
            row["messages"], chat_template=template, return_dict=True, return_assistant_tokens_mask=True
        )
        thought = episodes[row["nr_episode_id"]]
        assert encoded["input_ids"] == [*thought.ids, *tokenizer.encode("\n")]
        said = [token for token, own in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if own]
        assert tokenizer.decode(said) == row["messages"][1]["content"] + "<|im_end|>\n"


def test_a_template_that_drops_the_thinking_is_found_out(exported, tokenizer):
    with pytest.raises(ExportError, match="row 1: the chat template drops the thinking"):
        verify(exported(), tokenizer, chat_template=tokenizer.chat_template)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("messages", r"<\|recheck\|> is in the text 1 times.* 0 times"),
        ("axolotl", r"<\|recheck\|> is in the text 1 times.* 0 times"),
        ("pretokenized", "do not decode to its text"),
    ],
)
def test_a_tokenizer_without_the_correction_tokens_is_found_out(exported, tokenizer, form, message):
    with pytest.raises(ExportError, match=f"row 1: .*{message}") as caught:
        verify(exported(format=form), without_correction_tokens(tokenizer))
    assert "correction tokens" in caught.value.hint


def test_a_problem_may_speak_of_a_correction_token(codec, store, tokenizer, tmp_path):
    store.begin(rechecked(codec, question="What does <|recheck|> do in <|recheck|> 12 + 35?"))
    assert export(store, tmp_path / "out", format="pretokenized", files="jsonl").rows == 1
    found = verify(tmp_path / "out", tokenizer)
    assert (found.rows, found.correction_tokens) == (1, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.update(labels=[-100] * len(row["labels"])), "nothing is trained"),
        (lambda row: row["labels"].pop(), "differ in length"),
        (lambda row: row["labels"].__setitem__(-1, 3), "a label is not its token"),
        (lambda row: _swap(row, 5, 10**6), "vocabulary"),
        (lambda row: _swap(row, 5, row["input_ids"][5] + 1), "do not decode"),
    ],
)
def test_a_pretokenized_row_that_lost_something_is_named(exported, tokenizer, change, message):
    folder = exported(format="pretokenized")
    rewrite(folder, change)
    with pytest.raises(ExportError, match=f"row 1: .*{message}"):
        verify(folder, tokenizer)


def _swap(row: dict, at: int, token: int) -> None:
    row["input_ids"][at] = token
    if row["labels"][at] != -100:
        row["labels"][at] = token


def test_a_message_in_which_nothing_is_said_is_named(exported, tokenizer):
    folder = exported()
    rewrite(folder, lambda row: row["messages"][1].update(content=""))
    with pytest.raises(ExportError, match=r"row 1: .*nothing is trained"):
        verify(folder, tokenizer)


def test_a_file_that_was_changed_is_found_out(exported, tokenizer):
    folder = exported()
    with (folder / "train.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(ExportError, match=r"train\.jsonl was changed"):
        verify(folder, tokenizer)


def test_a_row_that_is_gone_is_found_out(exported, tokenizer):
    folder = exported()
    rewrite(folder, lambda row: None)
    lines = (folder / "train.jsonl").read_text().splitlines(keepends=True)
    (folder / "train.jsonl").write_text(lines[0])
    with pytest.raises(ExportError, match="1 rows, its manifest says 2"):
        verify(folder, tokenizer)


def test_a_folder_that_is_no_export_says_so(tmp_path, tokenizer):
    with pytest.raises(ExportError, match="is no export"):
        verify(tmp_path, tokenizer)


def test_verifying_does_not_change_the_tokenizer(exported, tokenizer):
    before = copy.deepcopy(tokenizer.init_kwargs), tokenizer.chat_template
    verify(exported(), tokenizer)
    assert (tokenizer.init_kwargs, tokenizer.chat_template) == before
