"""Train a model on an export with TRL: LoRA or all weights, resumable, onto a checkpoint that every engine loads.

The folder of a run holds `checkpoints/` while it is under way, `adapter/` (LoRA), `model/` (a whole checkpoint: the
adapter merged, with its tokenizer) and `training.json`. A run that was interrupted goes on from its last checkpoint
when it is started again with the same settings; one that is finished is left as it is.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from nr_agent.errors import ConfigurationError, ExportError, MissingExtraError, ModelError, TrainingError
from nr_agent.evaluation.kept import write_whole
from nr_agent.export.manifest import TEMPLATE, Manifest
from nr_agent.export.verifying import read_manifest, verify
from nr_agent.models.registry import find_model
from nr_agent.training.correction_rows import add_correction_tokens, trainable_rows

Method = Literal["lora", "full"]
Progress = Callable[[int, int, float | None], None]
"""Called with the step, the number of steps, and the loss where there is one."""

TRAINED = ("messages", "pretokenized", "preference")
"""Formats that TRL trains on."""

MODEL, ADAPTER, CHECKPOINTS, RECORD = "model", "adapter", "checkpoints", "training.json"


@dataclass(frozen=True)
class FinetuneSettings:
    """Everything that a run depends on, besides model and data.

    Attributes:
        method: `lora`, or `full` for all weights.
        epochs: passes over the data; ignored where `steps` is given.
        steps: optimiser steps.
        batch: rows a device and step.
        accumulate: steps whose gradients are added up.
        learning_rate: peak rate, falling linearly; by default 2e-4 for LoRA, 2e-5 for all weights, and a tenth of
            that for pairs.
        rank: of the LoRA matrices.
        seed: of the order of rows and of the new weights.
        save_every: steps between checkpoints.
    """

    method: Method = "lora"
    epochs: float = 1.0
    steps: int | None = None
    batch: int = 4
    accumulate: int = 1
    learning_rate: float | None = None
    rank: int = 16
    seed: int = 0
    save_every: int = 50

    def rate(self, manifest: Manifest) -> float:
        """The learning rate for an export."""
        if self.learning_rate is not None:
            return self.learning_rate
        usual = 2e-4 if self.method == "lora" else 2e-5
        return usual / 10 if manifest.format == "preference" else usual


@dataclass(frozen=True)
class Finetuned:
    """What came of a run.

    Attributes:
        model: folder of the checkpoint.
        steps: optimiser steps in all.
        loss: mean over the last steps; None where nothing was left to do.
        resumed_from: the step from which it went on; None for a run from the start.
        added_tokens: correction tokens that the model's tokenizer did not have.
        trained_rows: token ids whose embedding rows are trained beside the LoRA matrices.
    """

    model: Path
    steps: int
    loss: float | None
    resumed_from: int | None
    added_tokens: list[str]
    trained_rows: list[int]


def finetune(
    model: str,
    data: str | Path,
    out: str | Path,
    settings: FinetuneSettings | None = None,
    *,
    progress: Progress = lambda step, steps, loss: None,
) -> Finetuned:
    """Train a model on an export.

    Args:
        model: a name, or a checkpoint's folder.
        data: folder of an export: `messages`, `pretokenized` or `preference`.
        out: folder of the run.
        settings: see there.
        progress: called after every step.

    Raises:
        MissingExtraError: TRL, PEFT or datasets are not installed.
        ExportError: the folder is no export, was changed, or cannot be read by this model.
        ConfigurationError: the export is none that TRL trains on, or the run in `out` had other settings.
        ModelError: there is no such model.
        TrainingError: the loss is no number any more, memory ran out, or the folder cannot be written.
    """
    settings = settings or FinetuneSettings()
    _check_extras()
    source, place = find_model(model), Path(out).expanduser()
    manifest = read_manifest(Path(data).expanduser())
    _check_manifest(manifest)
    record = {
        "schema_version": 1,
        "model": str(source.resolve()),
        "export_id": manifest.export_id,
        "format": manifest.format,
        "mask": manifest.mask,
        "settings": asdict(settings),
    }
    finished = _finished(place, record)
    if finished is not None:
        return finished
    try:
        return _Run(source, Path(data).expanduser(), place, manifest, settings, record, progress).run()
    except OSError as error:
        raise TrainingError(f"the run in {place} failed: {error}", hint="see that the folder can be written") from error


class _Run:
    """One run, from loading to the finished folder."""

    def __init__(
        self,
        source: Path,
        data: Path,
        out: Path,
        manifest: Manifest,
        settings: FinetuneSettings,
        record: dict[str, Any],
        progress: Progress,
    ) -> None:
        self.data, self.out, self.manifest, self.settings = data, out, manifest, settings
        self.record, self.progress = record, progress
        self.model, self.tokenizer = _load(source)
        self.template = self.tokenizer.chat_template
        self.added = add_correction_tokens(self.model, self.tokenizer, seed=settings.seed)
        # `internalize` and `full` train the correction tokens themselves; new ones are trained in any case.
        wanted = manifest.mask in ("internalize", "full") or bool(self.added)
        self.rows = trainable_rows(self.model, self.tokenizer) if wanted and settings.method == "lora" else {}

    def run(self) -> Finetuned:
        """Train, and put the checkpoint in place."""
        longest = verify(self.data, self.tokenizer).longest
        self.out.mkdir(parents=True, exist_ok=True)
        write_whole(self.out / RECORD, json.dumps(self.record, indent=1) + "\n")
        trainer = self._trainer(longest)
        checkpoint, resumed = _last_checkpoint(self.out / CHECKPOINTS)
        _train(trainer, checkpoint)
        loss = next((float(one["loss"]) for one in reversed(trainer.state.log_history) if "loss" in one), None)
        self._save(trainer)
        done = Finetuned(
            model=self.out / MODEL,
            steps=int(trainer.state.global_step),
            loss=loss,
            resumed_from=resumed,
            added_tokens=self.added,
            trained_rows=sorted({token for ids in self.rows.values() for token in ids}),
        )
        result = {**asdict(done), "model": MODEL}
        write_whole(self.out / RECORD, json.dumps(self.record | {"result": result}, indent=1) + "\n")
        shutil.rmtree(self.out / CHECKPOINTS, ignore_errors=True)
        return done

    def _trainer(self, longest: int) -> Any:
        """A trainer that cuts no row short, whose longest has so many tokens of this model."""
        from importlib import import_module  # noqa: PLC0415 - TRL exports its names lazily, and types see none

        trl: Any = import_module("trl")

        pairs = self.manifest.format == "preference"
        train, validation = self._dataset("train"), self._dataset("validation")
        own = self.data / TEMPLATE
        if own.is_file():
            # The model's own template may drop the thinking; it goes back in place when the model is saved.
            self.tokenizer.chat_template = own.read_text(encoding="utf-8")
        config, kind = (trl.DPOConfig, trl.DPOTrainer) if pairs else (trl.SFTConfig, trl.SFTTrainer)
        options = self._options(longest, evaluates=validation is not None)
        if self.manifest.format == "messages":
            options["assistant_only_loss"] = own.is_file()
        trainer = kind(
            model=self.model,
            args=config(**options),
            train_dataset=train,
            eval_dataset=validation,
            processing_class=self.tokenizer,
            peft_config=self._peft(),
            callbacks=[_watcher(self.progress)],
        )
        # It prints its logs as they come; `progress` has them.
        from transformers import PrinterCallback  # noqa: PLC0415 - slow to import

        trainer.remove_callback(PrinterCallback)
        _give_biases(trainer.model)
        return trainer

    def _options(self, longest: int, *, evaluates: bool) -> dict[str, Any]:
        import torch  # noqa: PLC0415 - slow to import

        settings, gpu = self.settings, torch.cuda.is_available()
        return {
            "output_dir": str(self.out / CHECKPOINTS),
            "max_length": longest + 16,  # a trainer may add a line break and an end of its own
            "num_train_epochs": settings.epochs,
            "max_steps": settings.steps or -1,
            "per_device_train_batch_size": settings.batch,
            "per_device_eval_batch_size": settings.batch,
            "gradient_accumulation_steps": settings.accumulate,
            "learning_rate": settings.rate(self.manifest),
            "logging_steps": 1,
            "logging_nan_inf_filter": False,
            "save_strategy": "steps",
            "save_steps": settings.save_every,
            "save_total_limit": 2,
            "eval_strategy": "epoch" if evaluates else "no",
            "seed": settings.seed,
            "data_seed": settings.seed,
            "report_to": [],
            "disable_tqdm": True,
            "use_cpu": not gpu,
            "bf16": gpu and torch.cuda.is_bf16_supported(),
        }

    def _dataset(self, split: str) -> Any:
        from datasets import load_dataset  # noqa: PLC0415 - an extra, and slow to import
        from datasets.utils.logging import disable_progress_bar  # noqa: PLC0415

        if not self.manifest.splits.get(split, self.manifest.rows if split == "train" else 0):
            return None
        disable_progress_bar()
        kind = self.manifest.files_as
        file = self.data / f"{split}.{kind}"
        columns = {
            "messages": ["messages"],
            "pretokenized": ["input_ids", "attention_mask", "labels"],
            "preference": ["prompt", "chosen", "rejected"],
        }[self.manifest.format]
        builder = "json" if kind == "jsonl" else "parquet"
        loaded = load_dataset(builder, data_files=str(file), split="train", cache_dir=str(self.out / "cache"))
        return loaded.select_columns(columns)

    def _peft(self) -> Any:
        if self.settings.method == "full":
            return None
        from peft import LoraConfig  # noqa: PLC0415 - an extra, and slow to import

        return LoraConfig(
            r=self.settings.rank,
            lora_alpha=2 * self.settings.rank,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
            trainable_token_indices=self.rows or None,
        )

    def _save(self, trainer: Any) -> None:
        self.tokenizer.chat_template = self.template
        trained = trainer.accelerator.unwrap_model(trainer.model)
        if self.settings.method == "lora":
            trained.save_pretrained(self.out / ADAPTER)
            trained = trained.merge_and_unload()
        partial = self.out / f"{MODEL}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        trained.save_pretrained(partial)
        self.tokenizer.save_pretrained(partial)
        shutil.rmtree(self.out / MODEL, ignore_errors=True)
        partial.replace(self.out / MODEL)
        shutil.rmtree(self.out / "cache", ignore_errors=True)


def _give_biases(model: Any) -> None:
    """TRL's loss asks the head for its bias, and PEFT's wrapper of trained rows does not hand it on."""
    from peft.utils.other import TrainableTokensWrapper  # noqa: PLC0415 - an extra, and slow to import

    for module in model.modules():
        if isinstance(module, TrainableTokensWrapper):
            vars(module)["bias"] = getattr(module.original_module, "bias", None)


def _train(trainer: Any, checkpoint: str | None) -> None:
    import torch  # noqa: PLC0415 - slow to import

    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "the accelerator's memory ran out", hint="take a smaller --batch and a larger --accumulate"
        ) from error


def _watcher(progress: Progress) -> Any:
    from transformers import TrainerCallback  # noqa: PLC0415 - slow to import

    class Watcher(TrainerCallback):
        """Tells how far the run is, and ends one that has gone astray."""

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **rest: Any) -> None:
            if logs is None or "loss" not in logs:
                return
            loss = float(logs["loss"])
            if not -1e30 < loss < 1e30:
                raise TrainingError(
                    f"the loss is no number any more at step {state.global_step}", hint="take a lower --learning-rate"
                )
            progress(int(state.global_step), int(state.max_steps), loss)

    return Watcher()


def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415 - slow to import
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype="float32", local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"the checkpoint in {folder} cannot be loaded: {reason}", hint="check the folder") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def _check_extras() -> None:
    for package in ("trl", "peft", "datasets"):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtraError(package, extra="train") from error


def _check_manifest(manifest: Manifest) -> None:
    if manifest.format not in TRAINED:
        hint = {
            "axolotl": "run Axolotl with the axolotl.yaml of the export",
            "stepwise": "TRL has no trainer for steps any more; give it to a trainer of process reward models",
        }.get(manifest.format, f"export again with --format {' or '.join(TRAINED)}")
        raise ConfigurationError(f"format {manifest.format!r} is none that nr-agent trains on", hint=hint)
    if not manifest.splits.get("train", manifest.rows):
        raise ExportError("the export has no row to train on", hint="export again with other choices")


def _finished(out: Path, record: dict[str, Any]) -> Finetuned | None:
    """What came of the run that is there; None where it is still to be done."""
    try:
        found = json.loads((out / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        partial = f"{RECORD}.partial"  # of a run that ended before it had begun
        if out.is_dir() and any(path.name != partial for path in out.iterdir()):
            raise ConfigurationError(f"{out} holds something else than a run", hint="choose another folder") from None
        return None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{out / RECORD} cannot be read: {error}", hint="choose another folder") from error
    different = [name for name, value in record.items() if found.get(name) != value]
    if different:
        raise ConfigurationError(
            f"the run in {out} had another {' and another '.join(different)}",
            hint="give the same options to go on with it, or choose another folder",
        )
    if "result" not in found or not (out / MODEL / "config.json").is_file():
        return None
    return Finetuned(**{**found["result"], "model": out / MODEL})


def _last_checkpoint(folder: Path) -> tuple[str | None, int | None]:
    from transformers.trainer_utils import get_last_checkpoint  # noqa: PLC0415 - slow to import

    last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    if last is None:
        return None, None
    if not (Path(last) / "trainer_state.json").is_file():
        # The process died while it wrote it; the one before is whole.
        shutil.rmtree(last)
        return _last_checkpoint(folder)
    return last, int(last.rpartition("-")[2])
