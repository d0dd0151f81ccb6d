"""Teach a model to obey correction tokens: it reacts to them and never writes them.

A trigger follows a wrong or circling span, and a remedy follows the trigger. The trigger and the span before it
are masked from the loss (as in NeuReasoner, arXiv 2604.02972, second-hand), so the model learns the reaction
alone. Three kinds of examples are mixed: the model's own slips found by the checker on its own samples, planted
slips in the teacher's traces (and needless triggers, which must be answered with a confirmation), and clean
traces, which keep the model what it was.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from nr_agent.errors import MissingExtraError
from nr_agent.tasks import TRAINING_SEEDS, draw, held_out
from nr_agent.tokens import RECHECK
from nr_agent.training.corpus import Example, encode_trace, pack
from nr_agent.training.correction_rows import trainable_rows
from nr_agent.training.own_failures import REDO
from nr_agent.training.traces import Habits, teach


@dataclass(frozen=True)
class SftSettings:
    """How the trigger SFT is run.

    Attributes:
        steps: optimiser steps.
        rows: packed rows a step.
        row_tokens: tokens a row.
        learning_rate: peak rate, falling linearly to a twentieth.
        clean: share of examples that are whole clean traces.
        planted: share that are teacher's traces with triggers; the rest are the model's own failures.
        seed: seed of the mixture.
        method: `full` for all weights; `lora` for low-rank matrices beside every linear layer and the rows of the
            correction tokens, merged into the weights at the end (extra `train`).
        rank: of those matrices.
    """

    steps: int = 250
    rows: int = 10
    row_tokens: int = 640
    learning_rate: float = 4e-4
    clean: float = 0.45
    planted: float = 0.2
    seed: int = 0
    method: Literal["full", "lora"] = "full"
    rank: int = 16


def trigger_sft(
    model: Any,
    tokenizer: Any,
    own: Sequence[Example],
    families: Sequence[str],
    settings: SftSettings | None = None,
    *,
    log: Callable[[str], None] = lambda _: None,
) -> Any:
    """Train a causal language model in place.

    Args:
        model: the model.
        tokenizer: its tokenizer, with the correction tokens.
        own: examples made of the model's own traces (`nr_agent.training.own_failures`).
        families: families of the clean and planted traces.
        settings: see there.
        log: gets a line now and then.

    Returns:
        The model, ready to be used.

    Raises:
        MissingExtraError: LoRA is asked for, and PEFT is not installed.
    """
    settings = settings or SftSettings()
    if settings.method == "lora":
        model = _with_lora(model, tokenizer, settings.rank)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    device = model.get_input_embeddings().weight.device
    model.train()
    running = None
    for step in range(settings.steps):
        rng = random.Random(f"{settings.seed}:{step}")
        ids, labels = pack(
            lambda rng=rng: _draw(rng, tokenizer, own, families, settings),  # type: ignore[misc]
            settings.rows,
            settings.row_tokens,
            tokenizer.pad_token_id,
        )
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * max(0.05, min((step + 1) / 20, 1 - step / settings.steps))
        loss = model(input_ids=ids.to(device), labels=labels.to(device), use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        current = float(loss.detach())
        running = current if running is None else 0.95 * running + 0.05 * current
        if (step + 1) % 25 == 0:
            log(f"trigger SFT {step + 1}/{settings.steps}  loss {running:.4f}")
    return (model.merge_and_unload() if settings.method == "lora" else model).eval()


def planted_example(tokenizer: Any, family: str, rng: random.Random) -> Example | None:
    """A teacher's trace in which second thoughts are triggered instead of spontaneous; None where it has none."""
    while True:
        problem = draw(family, rng.choice(TRAINING_SEEDS))
        if not held_out(problem.text):
            break
    trace = teach(family, problem.text, rng, Habits(redo=0.15, slip=0.2, passes=(0.6, 0.3, 0.1)))
    ids, labels = encode_trace(tokenizer, problem.text, trace, triggered=REDO)
    return (ids, labels) if tokenizer.convert_tokens_to_ids(RECHECK) in ids else None


def _with_lora(model: Any, tokenizer: Any, rank: int) -> Any:
    try:
        from peft import LoraConfig, get_peft_model  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise MissingExtraError("peft", extra="train") from error
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        trainable_token_indices=trainable_rows(model, tokenizer),
    )
    return get_peft_model(model, config)


def _draw(
    rng: random.Random, tokenizer: Any, own: Sequence[Example], families: Sequence[str], settings: SftSettings
) -> Example:
    while True:
        point = rng.random()
        family = rng.choice(list(families))
        example: Example | None
        if point < settings.clean or not own:
            problem = draw(family, rng.choice(TRAINING_SEEDS))
            example = (
                None
                if held_out(problem.text)
                else encode_trace(tokenizer, problem.text, teach(family, problem.text, rng))
            )
        elif point < settings.clean + settings.planted:
            example = planted_example(tokenizer, family, rng)
        else:
            example = rng.choice(own)
        if example is not None and len(example[0]) <= settings.row_tokens:
            return example
