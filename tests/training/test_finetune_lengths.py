"""No row is cut short: what a trainer is told is measured with the tokenizer of the model that is trained."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

pytest.importorskip("trl", reason="trl is not installed (pip install 'nr-agent[train]')")
pytest.importorskip("peft", reason="peft is not installed (pip install 'nr-agent[train]')")
sys.path.append(str(Path(__file__).parents[1] / "export"))

from export_helpers import rechecked, stopped

from nr_agent.engine.text import TokenizerCodec
from nr_agent.export import export
from nr_agent.export.files import read_rows
from nr_agent.store import EpisodeStore
from nr_agent.training.finetune import FinetuneSettings, finetune
from nr_agent.training.pretrain import build_model, save_model

# TRL sets an option that transformers has renamed.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def told(monkeypatch) -> list[dict]:
    """What TRL's own configurations were told."""
    trl = importlib.import_module("trl")
    heard: list[dict] = []
    for name in ("SFTConfig", "DPOConfig"):
        config = getattr(trl, name)
        monkeypatch.setattr(trl, name, lambda config=config, **options: heard.append(options) or config(**options))
    return heard


@pytest.mark.parametrize("form", ["messages", "preference"])
def test_the_longest_row_is_measured_by_the_model_that_is_trained(tokenizer, told, tmp_path, form):
    codec = TokenizerCodec(tokenizer, frozenset({tokenizer.eos_token_id}))
    with EpisodeStore.in_memory() as store:
        store.begin(rechecked(codec, "a"))
        store.begin(stopped(codec, "b", discarded=(2,)))
        manifest = export(store, tmp_path / "data", format=form, codec=codec)
    torch.manual_seed(0)
    save_model(build_model("tiny", tokenizer), tokenizer, tmp_path / "model")
    spell_words(tmp_path / "model" / "tokenizer.json")
    finetune(str(tmp_path / "model"), tmp_path / "data", tmp_path / "run", FinetuneSettings(method="full", steps=1))
    [options] = told
    longest = max(map(len, encoded(tmp_path / "data", AutoTokenizer.from_pretrained(tmp_path / "model"))))
    assert options["max_length"] >= longest > manifest.lengths.maximum + 16
    assert json.loads((tmp_path / "run" / "training.json").read_text())["export_id"] == manifest.export_id


def spell_words(path: Path) -> None:
    """Take the words out of a tokenizer, so that it spells them letter by letter."""
    state = json.loads(path.read_text())
    special = {one["content"] for one in state["added_tokens"]}
    words = state["model"]["vocab"]
    gone = [word for word in words if len(word) > 1 and word not in special]
    for number, word in enumerate(gone):
        words[f"unused {number}"] = words.pop(word)
    path.write_text(json.dumps(state))


def encoded(folder: Path, tokenizer) -> list[list[int]]:
    template = (folder / "chat_template.jinja").read_text() if (folder / "chat_template.jinja").is_file() else None
    texts = []
    for row in read_rows(folder / "train.jsonl"):
        if "messages" in row:
            texts.append(tokenizer.apply_chat_template(row["messages"], chat_template=template, tokenize=False))
        else:
            texts += [row["prompt"] + row["chosen"], row["prompt"] + row["rejected"]]
    return [tokenizer.encode(text, add_special_tokens=False) for text in texts]
