"""The models that can be named on the command line, and how one becomes an engine with its detector."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nr_agent.errors import DetectorError, ModelError

if TYPE_CHECKING:
    from nr_agent.detection.detector import NeuronDetector
    from nr_agent.engine.torch_engine import Limits, TorchEngine

_HOME = Path(__file__).parent
DETECTOR_FOLDER = "detector"
"""Name of the folder with a model's detector, inside the model's own."""


@dataclass(frozen=True)
class ModelInfo:
    """A model that has a name."""

    name: str
    folder: Path
    about: str


def available() -> list[ModelInfo]:
    """The models that are installed with the package."""
    infos = []
    for folder in sorted(path.parent for path in _HOME.glob("*/config.json")):
        config = json.loads((folder / "config.json").read_text())
        about = f"{config['model_type']}, {config['num_hidden_layers']} layers, {config['hidden_size']} wide"
        infos.append(ModelInfo(folder.name, folder, about))
    return infos


def find_model(model: str) -> Path:
    """The folder of a model: a name of `available()`, or a path.

    Raises:
        ModelError: there is no such model, or the folder holds no checkpoint.
    """
    for info in available():
        if info.name == model:
            return info.folder
    folder = Path(model).expanduser()
    if not folder.is_dir():
        names = ", ".join(info.name for info in available()) or "none"
        raise ModelError(f"there is no model {model!r}", hint=f"give a checkpoint's folder, or one of: {names}")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds no checkpoint: config.json is missing", hint="give a Hugging Face folder")
    return folder


def load_engine(
    model: str = "nano", *, dtype: str | None = None, device: str | None = None, limits: Limits | None = None
) -> TorchEngine:
    """Load a model into an engine.

    Args:
        model: a name of `available()`, or a folder in Hugging Face format.
        dtype: `float32`, `bfloat16`, ...; by default float32 on a CPU and the checkpoint's own elsewhere.
        device: `cpu`, `cuda`, ...; by default the accelerator, if there is one.
        limits: how much the engine may hold.

    Raises:
        ModelError: no such model, a broken checkpoint, or an architecture that cannot be run.
    """
    folder = find_model(model)
    import torch  # noqa: PLC0415 - slow to import
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415 - slow to import
    from transformers.utils import logging  # noqa: PLC0415 - slow to import

    from nr_agent.engine.torch_engine import TorchEngine  # noqa: PLC0415 - imports torch
    from nr_agent.models.fingerprint import fingerprint  # noqa: PLC0415 - imports torch

    if device is None:
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        device = accelerator.type if accelerator else "cpu"
    logging.disable_progress_bar()
    wanted: Any = dtype or ("float32" if device == "cpu" else "auto")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=wanted, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"the checkpoint in {folder} cannot be loaded: {reason}", hint="check the folder") from error
    loaded.to(device)
    return TorchEngine(loaded, tokenizer, name=folder.name, fingerprint=fingerprint(loaded), limits=limits)


def load_detector(model: str, engine: TorchEngine, *, folder: str | Path | None = None) -> NeuronDetector:
    """The detector that ships beside a model, or the one in a folder.

    Raises:
        DetectorError: there is none, or it is broken.
        DetectorMismatchError: it was fitted on another model.
    """
    from nr_agent.detection.detector import NeuronDetector  # noqa: PLC0415 - imports torch

    place = Path(folder) if folder is not None else find_model(model) / DETECTOR_FOLDER
    if not (place / "detector.json").is_file():
        raise DetectorError(
            f"{model} has no detector: {place / 'detector.json'} is missing",
            hint=f"run without one (--no-control), or fit one: nr-agent fit --model {model} --out {place}",
        )
    return NeuronDetector.load(place, engine)
