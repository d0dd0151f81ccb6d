"""Where a model's weights are: in its modules, where accelerate keeps them between two passes, or on several ranks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from nr_agent.errors import ModelError


def stored(module: nn.Module, name: str = "weight") -> Tensor:
    """A parameter or buffer of a module, with its values.

    Accelerate keeps the weights of offloaded modules in memory or on the disk, and shows tensors on the device
    `meta` in their place. Of what is spread over several processes, this is the whole: all of them must ask for it.

    Raises:
        ModelError: they are nowhere.
    """
    tensor = getattr(module, name)
    assert isinstance(tensor, Tensor)  # noqa: S101 - the callers know what they ask for
    if not tensor.is_meta:
        return _whole(tensor)
    for hook in _hooks(module):
        with contextlib.suppress(KeyError, TypeError):  # the map is lazy, and None where nothing was taken away
            value: Tensor = hook.weights_map[name]
            return value
    raise ModelError(
        f"the {name} of a {type(module).__name__} was never loaded",
        hint="load the model with from_pretrained, and with an offload_folder where parts of it go to the disk",
    )


def all_stored(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All parameters by name, with their values, one after the other; those that are tied once."""
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    for name, parameter in sorted(model.named_parameters()):
        if parameter.is_meta and name in tied:
            continue  # what stands in for it is not the same object, as it is where both are loaded
        owner, _, own = name.rpartition(".")
        yield name, stored(model.get_submodule(owner), own) if parameter.is_meta else _whole(parameter)


@dataclass(frozen=True)
class Share:
    """What one process of several holds of a projection's input.

    Attributes:
        group: the processes.
        first: its first column.
        last: the column behind its last one.
        leads: whether it is the first of the processes.
    """

    group: dist.ProcessGroup
    first: int
    last: int
    leads: bool


def share_of(module: nn.Module) -> Share | None:
    """What this process holds of a linear module's input columns; None where it holds all that there is."""
    weight = module.weight
    if not (dist.is_available() and dist.is_initialized() and isinstance(weight, DTensor)):
        return None
    mesh = weight.device_mesh
    group = mesh.get_group() if mesh.ndim == 1 else mesh.get_group("tp")
    rank, columns = dist.get_rank(group), int(weight.shape[-1])
    size = -(-columns // dist.get_world_size(group))  # the last ranks get less where it cannot be divided
    return Share(group, min(columns, rank * size), min(columns, (rank + 1) * size), leads=rank == 0)


def ranks_of(model: nn.Module) -> int:
    """How many processes a model is spread over."""
    meshes = [parameter.device_mesh for parameter in model.parameters() if isinstance(parameter, DTensor)]
    return max((mesh.size() for mesh in meshes), default=1)


def input_device(model: Any) -> torch.device:
    """The device that ids are given to a model on."""
    embedding: nn.Module = model.get_input_embeddings()
    weight = embedding.weight
    assert isinstance(weight, Tensor)  # noqa: S101 - embeddings have one
    if not weight.is_meta:
        return weight.device
    devices = [getattr(hook, "execution_device", None) for hook in _hooks(embedding)]
    return torch.device(next((device for device in devices if device is not None), "cpu"))


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _hooks(module: nn.Module) -> list[Any]:
    """Accelerate's hooks of a module: one, or several in a row."""
    hook = getattr(module, "_hf_hook", None)
    return [] if hook is None else list(getattr(hook, "hooks", [hook]))
