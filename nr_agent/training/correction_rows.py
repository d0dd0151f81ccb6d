"""Correction tokens in a model that does not have them: added to its tokenizer, with rows of their own to train."""

from __future__ import annotations

from typing import Any

import torch

from nr_agent.tokens import CORRECTION_TOKENS


def add_correction_tokens(model: Any, tokenizer: Any, *, seed: int = 0) -> list[str]:
    """Give a model the correction tokens that its tokenizer lacks.

    A new token's row begins as the mean of all rows with a little noise: a row of zeros, or one that nothing ever
    trained, would be as far from everything as a row can be. Rows that are spare already (Qwen has some) are used.

    Args:
        model: the model, changed in place.
        tokenizer: its tokenizer, changed in place.
        seed: of the noise.

    Returns:
        The tokens that were added.
    """
    known = tokenizer.get_added_vocab()
    missing = [token for token in CORRECTION_TOKENS if token not in known]
    if not missing:
        return []
    tokenizer.add_special_tokens({"extra_special_tokens": missing}, replace_extra_special_tokens=False)
    embedding = model.get_input_embeddings()
    if len(tokenizer) > embedding.num_embeddings:
        # Never fewer than there are: spare rows may be used by something else.
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    ids = tokenizer.convert_tokens_to_ids(missing)
    head = model.get_output_embeddings()
    for part in (model.get_input_embeddings(), head):
        if part is None or (part is head and head.weight is model.get_input_embeddings().weight):
            continue
        with torch.no_grad():
            old = part.weight[: min(ids)].float()
            noise = torch.randn(len(ids), old.shape[1], generator=generator) * old.std() * 0.1
            part.weight[ids] = (old.mean(dim=0) + noise.to(old.device)).to(part.weight.dtype)
    return missing


def trainable_rows(model: Any, tokenizer: Any) -> dict[str, list[int]]:
    """The correction tokens' rows for PEFT's `trainable_token_indices`: of the embedding, and of a head of its own."""
    ids = [int(tokenizer.convert_tokens_to_ids(token)) for token in CORRECTION_TOKENS]
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    names = {id(module): name.rpartition(".")[2] for name, module in model.named_modules()}
    rows = {names[id(embedding)]: ids}
    if head is not None and head.weight is not embedding.weight:
        rows[names[id(head)]] = ids
    return rows
