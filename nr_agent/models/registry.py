"""The models that can be named on the command line, and how one becomes an engine with its detector."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nr_agent.errors import ConfigurationError, DetectorError, ModelError
from nr_agent.models.gguf import Progress, converted, is_gguf, silent
from nr_agent.settings import load_settings

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
    """The models that are installed with the package, and those that were pulled."""
    infos = {}
    for home in (pulled_home(), _HOME):  # a name of the package's own is never another's
        for folder in sorted(path.parent for path in home.glob("[!.]*/config.json")):
            config = json.loads((folder / "config.json").read_text())
            about = f"{config['model_type']}, {config['num_hidden_layers']} layers, {config['hidden_size']} wide"
            infos[folder.name] = ModelInfo(folder.name, folder, about)
    return sorted(infos.values(), key=lambda info: info.name)


def pulled_home() -> Path:
    """Where the models are that were pulled, a folder each."""
    return load_settings().home.expanduser() / "models"


def find_model(model: str, progress: Progress = silent) -> Path:
    """The folder of a model: a name of `available()`, a folder's path, or a GGUF file's, which is converted once.

    Args:
        model: name or path.
        progress: is told how far a conversion is.

    Raises:
        ModelError: there is no such model, the folder holds no checkpoint, or the GGUF file is broken.
        MissingExtraError: a GGUF file has to be converted, and the package `gguf` is not installed.
    """
    place = _place(model)
    return converted(place, progress) if place.is_file() else place


def own_detector(model: str) -> Path | None:
    """Where a model's own detector is, or would be; None for a GGUF file, which has no folder of its own.

    Raises:
        ModelError: there is no such model.
    """
    place = _place(model)
    return None if place.is_file() else place / DETECTOR_FOLDER


def has_detector(model: str) -> bool:
    """Whether a model has a detector of its own.

    Raises:
        ModelError: there is no such model.
    """
    place = own_detector(model)
    return place is not None and (place / "detector.json").is_file()


def to_fit(model: str, place: Path | None) -> str:
    """How a detector is fitted for a model: to its place, or where there is none to wherever its user likes."""
    if place is None:
        return f"fit one: nr-agent fit --model {model} --out DIR, and name it: --detector DIR"
    return f"fit one: nr-agent fit --model {model} --out {place}"


def read_templates(model: str) -> list[str]:
    """The chat templates of a model, read from its files."""
    folder = find_model(model)
    if (folder / "chat_template.jinja").is_file():
        return [(folder / "chat_template.jinja").read_text(encoding="utf-8")]
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = config.get("chat_template") or []
    return [found] if isinstance(found, str) else [item["template"] for item in found]


def load_engine(
    model: str = "nano",
    *,
    dtype: str | None = None,
    device: str | None = None,
    limits: Limits | None = None,
    device_map: str | Mapping[str, int | str] | None = None,
    offload_folder: str | Path | None = None,
) -> TorchEngine:
    """Load a model into an engine.

    Args:
        model: a name of `available()`, a folder in Hugging Face format, or a GGUF file.
        dtype: `float32`, `bfloat16`, ...; by default float32 on a CPU and the checkpoint's own elsewhere.
        device: `cpu`, `cuda`, ...; by default the accelerator, if there is one.
        limits: how much the engine may hold.
        device_map: what of the model is where, as accelerate spells it (`auto`, or modules by name with a device,
            `cpu` or `disk`), instead of a device.
        offload_folder: where what a `device_map` sends to the disk is written.

    Raises:
        ConfigurationError: a device and a device map, or parts for the disk without a folder for them.
        ModelError: no such model, a broken checkpoint, or an architecture that cannot be run.
        MissingExtraError: a GGUF file has to be converted, and the package `gguf` is not installed.
    """
    folder = find_model(model)
    _check_map(device, device_map, offload_folder)
    import torch  # noqa: PLC0415 - slow to import
    from safetensors import SafetensorError  # noqa: PLC0415 - beside its use
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
            folder,
            dtype=wanted,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            device_map=device_map if device_map is None or isinstance(device_map, str) else dict(device_map),
            offload_folder=offload_folder,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"the checkpoint in {folder} cannot be loaded: {reason}", hint="check the folder") from error
    if device_map is None:  # otherwise accelerate has put everything in its place
        loaded.to(device)
    return TorchEngine(
        loaded,
        tokenizer,
        name=folder.name,
        fingerprint=fingerprint(loaded),
        limits=limits,
        folder=folder.absolute(),  # it is still there when the process has gone elsewhere
    )


def _check_map(
    device: str | None, device_map: str | Mapping[str, int | str] | None, offload_folder: str | Path | None
) -> None:
    if device_map is None:
        return
    if device is not None:
        raise ConfigurationError(
            f"a device ({device}) and a device_map were given", hint="give the device_map alone: it names the devices"
        )
    if not isinstance(device_map, str) and "disk" in device_map.values() and offload_folder is None:
        raise ConfigurationError(
            "the device_map sends parts of the model to the disk, and nobody said where",
            hint="give offload_folder=..., with room for those parts",
        )


def load_detector(model: str, engine: TorchEngine, *, folder: str | Path | None = None) -> NeuronDetector:
    """The detector that ships beside a model, or the one in a folder.

    Raises:
        DetectorError: there is none, or it is broken.
        DetectorMismatchError: it was fitted on another model or tokenizer, or with another window.
    """
    from nr_agent.detection.detector import NeuronDetector  # noqa: PLC0415 - imports torch

    place = Path(folder) if folder is not None else own_detector(model)
    if place is None or not (place / "detector.json").is_file():
        missing = f": {place / 'detector.json'} is missing" if place else ""
        raise DetectorError(
            f"{model} has no detector{missing}",
            hint=f"run without one (--no-control, detector=None), or {to_fit(model, place)}",
        )
    return NeuronDetector.load(place, engine)


def _place(model: str) -> Path:
    """A model's folder, or its GGUF file."""
    for info in available():
        if info.name == model:
            return info.folder
    place = Path(model).expanduser()
    if place.is_file():
        if not is_gguf(place):
            raise ModelError(f"{place} is no GGUF file", hint="give a Hugging Face folder, or a GGUF file")
        return place
    if not place.is_dir():
        names = ", ".join(info.name for info in available()) or "none"
        raise ModelError(
            f"there is no model {model!r}", hint=f"give a checkpoint's folder, a GGUF file, or one of: {names}"
        )
    if not (place / "config.json").is_file():
        files = sorted(file.name for file in place.glob("*.gguf"))
        hint = f"name a GGUF file in it: {place / files[0]}" if files else "give a Hugging Face folder"
        raise ModelError(f"{place} holds no checkpoint: config.json is missing", hint=hint)
    return place
