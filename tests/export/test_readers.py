"""What Axolotl and LLaMA-Factory make of an export: by the rules that they document, and by their own readers.

Neither is a dependency: their readers are asked where they are installed (axolotl 0.19, llamafactory 0.9.5).
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from export_helpers import rechecked, stopped

from nr_agent.export import export
from nr_agent.export.files import read_rows
from nr_agent.export.masks import IGNORED

pytestmark = pytest.mark.filterwarnings("default")  # of theirs


@pytest.fixture
def made(codec, store, tmp_path):
    """Makes an export of ten episodes with a validation split; gives its folder."""
    for number in range(10):
        make = stopped if number % 3 == 0 else rechecked
        store.begin(make(codec, f"e{number}", question=f"What is 12 + {number}?"))

    def make(form: str, **options: Any) -> Path:
        folder = tmp_path / form
        manifest = export(store, folder, format=form, validation=0.4, codec=codec, **options)
        assert all(manifest.splits.values())
        return folder

    return make


def rows(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    [path] = folder.glob(f"{split}.*")
    return list(read_rows(path))


# --- LLaMA-Factory ---


@pytest.mark.parametrize("files", ["jsonl", "parquet"])
def test_llama_factory_is_told_of_every_file_by_its_documented_rules(made, files):
    folder = made("messages", files=files)
    known = json.loads((folder / "dataset_info.json").read_text())
    config = yaml.safe_load((folder / "llamafactory_sft.yaml").read_text())
    assert (config["dataset"], config["eval_dataset"]) == ("nr_agent", "nr_agent_validation")
    assert set(known) == {"nr_agent", "nr_agent_validation"}
    for name, split in (("nr_agent", "train"), ("nr_agent_validation", "validation")):
        told = known[name]
        assert (told["file_name"], told["formatting"]) == (f"{split}.{files}", "sharegpt")
        # Whoever speaks first and then in turns, and under which names.
        tags = told["tags"]
        speakers = [tags["user_tag"], tags["assistant_tag"]]
        for row in rows(folder, split):
            turns = row[told["columns"]["messages"]]
            assert [turn[tags["role_tag"]] for turn in turns] == speakers
            assert all(turn[tags["content_tag"]] for turn in turns)


def test_llama_factory_is_given_tokens_in_the_folder_that_its_configuration_names(made, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed (pip install 'nr-agent[export]')")
    folder = made("pretokenized")
    said = (folder / "llamafactory_sft.yaml").read_text()
    [command] = [line for line in said.splitlines() if line.startswith("# First: ")]
    code = command.split('"')[1]
    monkeypatch.chdir(folder)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    exec(compile(code, "configuration", "exec"), {})  # noqa: S102 - the line that the file tells a person to run
    kept = datasets.load_from_disk(yaml.safe_load(said)["tokenized_path"])
    for split in ("train", "validation"):
        assert kept[split].column_names == ["input_ids", "attention_mask", "labels"]
        assert [dict(row) for row in kept[split]] == rows(folder, split)


def test_llama_factorys_own_reader_takes_every_row_and_trains_on_the_whole_turn(made, tokenizer, monkeypatch):
    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")
    parser = pytest.importorskip("llamafactory.data.parser", reason="llamafactory is not installed")
    from llamafactory.data.converter import get_dataset_converter
    from llamafactory.data.processor import SupervisedDatasetProcessor
    from llamafactory.data.template import get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments

    folder = made("messages")
    config = yaml.safe_load((folder / "llamafactory_sft.yaml").read_text())
    names = {name: config[name] for name in ("template", "dataset_dir", "dataset", "eval_dataset", "cutoff_len")}
    arguments = DataArguments(**names)
    tokenizer = copy.deepcopy(tokenizer)  # they change it
    own = get_template_and_fix_tokenizer(tokenizer, arguments)
    processor = SupervisedDatasetProcessor(template=own, tokenizer=tokenizer, processor=None, data_args=arguments)
    for name, split in (("nr_agent", "train"), ("nr_agent_validation", "validation")):
        [told] = parser.get_dataset_list([name], str(folder))
        convert = get_dataset_converter(told.formatting, told, arguments)
        for row in rows(folder, split):
            example = {key: [value] for key, value in convert(row).items()}
            [ids], [labels] = (processor.preprocess_dataset(example)[key] for key in ("input_ids", "labels"))
            asked, said = (turn["content"] for turn in row["messages"])
            whole = f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n{said}<|im_end|>\n"
            assert ids == tokenizer.encode(whole, add_special_tokens=False)
            trained = tokenizer.decode([one for one in labels if one != IGNORED])
            assert trained == f"{said}<|im_end|>\n"


# --- Axolotl ---


def test_axolotl_is_given_three_columns_and_no_type_or_parts_with_flags(made):
    tokens, parts = made("pretokenized"), made("axolotl")
    [data] = yaml.safe_load((tokens / "axolotl.yaml").read_text())["datasets"]
    assert (data["path"], data["type"]) == ("train.parquet", None)
    assert all(set(row) == {"input_ids", "attention_mask", "labels"} for row in rows(tokens))
    [data] = yaml.safe_load((parts / "axolotl.yaml").read_text())["datasets"]
    assert (data["type"], data["field_messages"], data["roles_to_train"]) == (
        "chat_template",
        "messages",
        ["assistant"],
    )
    for row in rows(parts):
        for turn in row["messages"]:
            assert all(set(part) == {"type", "text", "train"} and part["type"] == "text" for part in turn["content"])


@pytest.mark.parametrize("form", ["pretokenized", "axolotl"])
def test_axolotls_own_reader_trains_on_exactly_our_labels(made, tokenizer, monkeypatch, form, tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed (pip install 'nr-agent[export]')")
    wrappers = pytest.importorskip("axolotl.utils.data.wrappers", reason="axolotl is not installed")
    from axolotl.utils.dict import DictDefault

    folder, ours = made(form), rows(made("pretokenized", overwrite=form == "pretokenized"))
    config = DictDefault(yaml.safe_load((folder / "axolotl.yaml").read_text()))
    monkeypatch.chdir(folder)
    [data] = config.datasets
    loaded = datasets.load_dataset(data.ds_type, data_files=data.path, split="train", cache_dir=str(tmp_path / "c"))
    kind = data.type.partition(":")[0] if data.type else None
    wrapped, _ = wrappers.get_dataset_wrapper(data, tokenizer, config, kind, loaded)
    for theirs, row in zip(wrapped, ours, strict=True):
        # A template may write a line break behind the turn; it is not trained.
        size = len(row["input_ids"])
        assert theirs["input_ids"][:size] == row["input_ids"]
        assert tokenizer.decode(theirs["input_ids"][size:]).strip() == ""
        assert theirs["labels"][:size] == row["labels"]
        assert set(theirs["labels"][size:]) <= {IGNORED}
