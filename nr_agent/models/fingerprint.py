"""A model's fingerprint: the same weights give the same one, in any dtype that holds them exactly."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_SAMPLES = 64
_SHAPE_KEYS = (
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
)


def fingerprint(model: Any) -> str:
    """Sixteen hexadecimal digits that identify a model's weights.

    Hashes the architecture, and of every parameter its name, its shape and evenly spaced values: quick for
    large models, and any training changes it.
    """
    import torch  # noqa: PLC0415 - slow to import

    from nr_agent.engine.weights import all_stored  # noqa: PLC0415 - imports torch

    digest = hashlib.sha256()
    config = model.config.get_text_config().to_dict()
    digest.update(json.dumps({key: config.get(key) for key in _SHAPE_KEYS}, sort_keys=True).encode())
    for name, parameter in all_stored(model):
        flat = parameter.detach().reshape(-1)
        index = torch.linspace(0, flat.numel() - 1, min(_SAMPLES, flat.numel())).long()
        # In float32 the end of a large parameter is rounded up beyond it.
        index = index.clamp_(max=flat.numel() - 1).to(flat.device)
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(flat[index].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
