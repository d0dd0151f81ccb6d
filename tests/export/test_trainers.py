"""What others make of an export: `datasets` opens the folder, and TRL trains on exactly our labels."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from export_helpers import rechecked, stopped

from nr_agent.export import export


@pytest.fixture
def exported(codec, store, tmp_path):
    store.begin(rechecked(codec, "a"))
    store.begin(stopped(codec, "b"))

    def make(form: str) -> Path:
        export(store, tmp_path / form, format=form, files="jsonl", codec=codec)
        return tmp_path / form

    return make


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("form", ["messages", "axolotl", "pretokenized"])
def test_datasets_opens_the_folder_as_it_is(exported, tmp_path, form):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed (pip install 'nr-agent[export]')")
    folder = exported(form)
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    written = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    assert [dict(row) for row in loaded] == written


@pytest.mark.filterwarnings("default")
def test_a_step_of_trl_trains_on_exactly_our_labels(exported, tokenizer, tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed (pip install 'nr-agent[export]')")
    pytest.importorskip("trl", reason="trl is not installed (pip install 'nr-agent[train]')")
    from transformers import Qwen3Config, Qwen3ForCausalLM
    from trl import SFTConfig, SFTTrainer

    folder = exported("pretokenized")
    rows = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), **sizes, **heads))
    seen: list[Any] = []
    collected = {"output_dir": str(tmp_path / "t"), "max_steps": 1, "per_device_train_batch_size": 2}
    quiet = {"report_to": [], "use_cpu": True, "bf16": False, "save_strategy": "no", "max_length": 4096}
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        trainer = SFTTrainer(
            model, args=SFTConfig(**collected, **quiet), train_dataset=rows, processing_class=tokenizer
        )
        collate = trainer.data_collator

        def watch(examples: Any) -> Any:
            batch = collate(examples)
            seen.extend(
                (ids[mask.bool()].tolist(), labels[mask.bool()].tolist())
                for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True)
            )
            return batch

        trainer.data_collator = watch
        trainer.train()
    assert sorted(seen) == sorted((row["input_ids"], row["labels"]) for row in rows)
