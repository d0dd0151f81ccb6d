"""Configuration files for trainers, ready to run in the folder of the export."""

from __future__ import annotations

import json

from nr_agent.export.files import file_name
from nr_agent.export.manifest import TEMPLATE, Manifest
from nr_agent.tokens import CORRECTION_TOKENS

TRL_SFT = "trl_sft.yaml"
TRL_DPO = "trl_dpo.yaml"
AXOLOTL = "axolotl.yaml"
LLAMA_FACTORY = "llamafactory_sft.yaml"
DATASET_INFO = "dataset_info.json"
TOKENIZED = "tokenized"
"""Folder into which LLaMA-Factory wants tokens to be saved, in a form of their own."""

FOLDER = "PATH/TO/THIS/FOLDER"

_MODEL = "PATH/TO/THE/MODEL"


def write_configs(manifest: Manifest, *, template: bool) -> dict[str, str]:
    """The configuration files that go with an export, by name; none for what no trainer reads.

    Args:
        manifest: of the export.
        template: whether the export brings a chat template that keeps the thinking.
    """
    if manifest.format in ("messages", "pretokenized"):
        configs = {TRL_SFT: _trl_sft(manifest, template=template), AXOLOTL: _axolotl(manifest, template=template)}
        if manifest.format == "messages":
            configs[DATASET_INFO] = _dataset_info(manifest)
        return configs | {LLAMA_FACTORY: _llama_factory(manifest, template=template)}
    if manifest.format == "axolotl":
        return {AXOLOTL: _axolotl(manifest, template=template)}
    if manifest.format == "preference":
        return {TRL_DPO: _trl_dpo(manifest)}
    return {}


def _trl_sft(manifest: Manifest, *, template: bool) -> str:
    lines = [
        *_head(manifest, f"trl sft --config {TRL_SFT}"),
        *_trl_common(manifest, learning_rate="2.0e-4"),
        "packing: false",
    ]
    if template:
        lines += ["# It keeps the thoughts, and marks what the assistant says:", f"chat_template_path: {TEMPLATE}"]
        lines += ["assistant_only_loss: true"]
    return "\n".join(lines) + "\n"


def _trl_dpo(manifest: Manifest) -> str:
    lines = [
        *_head(manifest, f"trl dpo --config {TRL_DPO}"),
        *_trl_common(manifest, learning_rate="5.0e-6"),
        "beta: 0.1",
    ]
    return "\n".join(lines) + "\n"


def _trl_common(manifest: Manifest, *, learning_rate: str) -> list[str]:
    validating = "validation" in manifest.splits
    return [
        f"model_name_or_path: {_MODEL}",
        "# By its whole path: `datasets` opens no folder by the name of '.'.",
        f"dataset_name: {FOLDER}",
        "dataset_train_split: train",
        *(["dataset_test_split: validation", "eval_strategy: epoch"] if validating else ["eval_strategy: 'no'"]),
        "# The longest row. The default of 1024 would cut off what comes last: recoveries and answers.",
        f"max_length: {_longest(manifest)}",
        "output_dir: trained",
        "num_train_epochs: 1",
        "per_device_train_batch_size: 4",
        "gradient_accumulation_steps: 4",
        f"learning_rate: {learning_rate}",
        "seed: 0",
        "report_to: none",
        "use_peft: true",
        "lora_r: 16",
        "lora_alpha: 32",
        "lora_target_modules: all-linear",
    ]


def _axolotl(manifest: Manifest, *, template: bool) -> str:
    kind = manifest.files_as
    data = [f"  - path: train.{kind}", f"    ds_type: {'json' if kind == 'jsonl' else kind}"]
    if manifest.format == "pretokenized":
        data += ["    type:"]
    else:
        data += ["    type: chat_template", "    field_messages: messages"]
        data += ["    roles_to_train: ['assistant']", "    train_on_eos: turn"]
    lines = [
        *_head(manifest, f"axolotl train {AXOLOTL}"),
        f"base_model: {_MODEL}",
        "datasets:",
        *data,
        *(["test_datasets:", data[0].replace("train.", "validation."), *data[1:]] if _validates(manifest) else []),
        "# The longest row: a shorter length would cut off recoveries and answers.",
        f"sequence_len: {_longest(manifest)}",
        "excess_length_strategy: drop",
        "sample_packing: false",
        "output_dir: trained",
        "adapter: lora",
        "lora_r: 16",
        "lora_alpha: 32",
        "lora_target_linear: true",
        "num_epochs: 1",
        "micro_batch_size: 4",
        "gradient_accumulation_steps: 4",
        "learning_rate: 0.0002",
        "optimizer: adamw_torch",
        "lr_scheduler: cosine",
        "seed: 0",
    ]
    if template:
        lines += ["# It keeps the thoughts of the assistant's turn:", "chat_template: jinja"]
        lines += [f"chat_template_jinja: {TEMPLATE}"]
    if manifest.mask in ("internalize", "full"):
        lines += ["# The correction tokens are trained, so their rows must be:", "lora_modules_to_save:"]
        lines += ["  - embed_tokens", "  - lm_head"]
    return "\n".join(lines) + "\n"


def _llama_factory(manifest: Manifest, *, template: bool) -> str:
    if manifest.format == "pretokenized":
        kind = "json" if manifest.files_as == "jsonl" else manifest.files_as
        named = {split: file_name(manifest.format, manifest.files_as, split) for split in manifest.splits}
        save = f"load_dataset('{kind}', data_files={named}).save_to_disk('{TOKENIZED}')"
        data = [f'# First: python -c "from datasets import load_dataset; {save}"', f"tokenized_path: {TOKENIZED}"]
        # It asks for a name, and reads none.
        data += ["dataset: nr_agent"]
    else:
        data = ["dataset_dir: .", "dataset: nr_agent"]
        data += ["eval_dataset: nr_agent_validation"] if _validates(manifest) else []
    # `chatml` leaves the thoughts of a turn alone; `qwen3` and the like take them out of all turns but the last.
    turns = ["template: chatml"] if template else ["# The model's own; it must keep the thoughts.", "template: default"]
    lines = [
        *_head(manifest, f"llamafactory-cli train {LLAMA_FACTORY}"),
        f"model_name_or_path: {_MODEL}",
        "stage: sft",
        "do_train: true",
        *data,
        *(["eval_strategy: epoch"] if _validates(manifest) else []),
        *turns,
        "# The longest row: a shorter length would cut off recoveries and answers.",
        f"cutoff_len: {_longest(manifest)}",
        "output_dir: trained",
        "finetuning_type: lora",
        "lora_rank: 16",
        "lora_alpha: 32",
        "lora_target: all",
        "num_train_epochs: 1",
        "per_device_train_batch_size: 4",
        "gradient_accumulation_steps: 4",
        "learning_rate: 0.0002",
        "lr_scheduler_type: cosine",
        "seed: 0",
        "report_to: none",
    ]
    if manifest.mask in ("internalize", "full"):
        lines += [
            "# The correction tokens are trained, so their rows must be:",
            "additional_target: embed_tokens,lm_head",
        ]
    return "\n".join(lines) + "\n"


def _dataset_info(manifest: Manifest) -> str:
    """What LLaMA-Factory must be told of each file."""
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    known = {
        "nr_agent" if split == "train" else f"nr_agent_{split}": {
            "file_name": file_name(manifest.format, manifest.files_as, split),
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": tags | {"system_tag": "system"},
        }
        for split in manifest.splits
    }
    return json.dumps(known, indent=1) + "\n"


def _head(manifest: Manifest, command: str) -> list[str]:
    tokens = ", ".join(CORRECTION_TOKENS)
    return [
        f"# Export {manifest.export_id} of nr-agent, format {manifest.format}, mask {manifest.mask}.",
        f"# In this folder: {command}",
        f"# The model's tokenizer must know {tokens} as one token each. nr-agent train sees to it.",
    ]


def _validates(manifest: Manifest) -> bool:
    return "validation" in manifest.splits


def _longest(manifest: Manifest) -> int:
    # A template may add a line break and an end of its own.
    return (manifest.lengths.maximum if manifest.lengths else 1024) + 16
