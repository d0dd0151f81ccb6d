"""The mean of models that were trained on from one another.

What one run of a training got wrong by chance, another one got wrong elsewhere: the mean of their weights can slip
less than any of them (stochastic weight averaging, arXiv 1803.05407; model soups, arXiv 2203.05482). It takes models
whose neurons mean the same, as they do where one goes on from the other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from nr_agent.detection.hashes import tokenizer_hash
from nr_agent.errors import ConfigurationError
from nr_agent.models.registry import find_model


@torch.no_grad()
def average(models: Sequence[str], out: Path) -> None:
    """Write the model whose weights are the mean of others' weights, with their tokenizer.

    Args:
        models: names or folders, at least two.
        out: folder of the new model; it must not hold one yet.

    Raises:
        ConfigurationError: there are fewer than two, they differ in more than their weights, or `out` holds a model.
        ModelError: there is no such model.
    """
    if len(models) < 2:
        raise ConfigurationError(f"the mean of {len(models)} models", hint="name at least two models")
    if (out / "config.json").exists():
        raise ConfigurationError(f"{out} holds a model already", hint="choose another folder")
    folders = [find_model(model) for model in models]
    first = AutoTokenizer.from_pretrained(folders[0])
    for folder in folders[1:]:
        if _shape(folder) != _shape(folders[0]):
            raise ConfigurationError(f"{folder} has another shape than {folders[0]}", hint="average models of one kind")
        if tokenizer_hash(AutoTokenizer.from_pretrained(folder)) != tokenizer_hash(first):
            raise ConfigurationError(f"{folder} has another tokenizer than {folders[0]}", hint="give them the same")
    mean = AutoModelForCausalLM.from_pretrained(folders[0], dtype=torch.float32)
    for number, folder in enumerate(folders[1:], 2):
        other = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
        for name, weight in mean.named_parameters():  # weights that are tied are here once
            weight.lerp_(other[name], 1 / number)
    mean.to(AutoConfig.from_pretrained(folders[0]).dtype).save_pretrained(out)
    first.save_pretrained(out)


def _shape(folder: Path) -> dict[str, object]:
    """What must be the same for weights to have a mean."""
    config: dict[str, object] = json.loads((folder / "config.json").read_text())
    return {name: value for name, value in config.items() if name not in ("_name_or_path", "transformers_version")}
