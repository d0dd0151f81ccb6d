"""Configuration files for trainers, ready to run in the folder of the export."""

from __future__ import annotations

from nr_agent.export.manifest import TEMPLATE, Manifest
from nr_agent.tokens import CORRECTION_TOKENS

TRL_SFT = "trl_sft.yaml"
TRL_DPO = "trl_dpo.yaml"
AXOLOTL = "axolotl.yaml"

_MODEL = "PATH/TO/THE/MODEL"


def write_configs(manifest: Manifest, *, template: bool) -> dict[str, str]:
    """The configuration files that go with an export, by name; none for what no trainer reads.

    Args:
        manifest: of the export.
        template: whether the export brings a chat template that keeps the thinking.
    """
    if manifest.format in ("messages", "pretokenized"):
        return {TRL_SFT: _trl_sft(manifest, template=template), AXOLOTL: _axolotl(manifest, template=template)}
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
        "dataset_name: .",
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
