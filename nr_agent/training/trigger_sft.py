"""Teach a model to obey correction tokens: it reacts to them and never writes them.

A trigger follows a wrong or circling span, and a remedy follows the trigger. The trigger and the span before it
are masked from the loss (as in NeuReasoner, arXiv 2604.02972, second-hand), so the model learns the reaction
alone. `<|recheck|>` is learned in two places: behind the wrong step, with the first words of a second look, where a
diagnosis and a correction follow; and alone, in the place of a step that was taken back, where that step follows,
worked out at length. The model's own failures, found by the checkers on its own samples, are mixed with the teacher's
traces with triggers (needed and needless ones), and with clean traces, which keep the model what it was. Where the
model has telltale neurons they go on learning.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor

from nr_agent.errors import MissingExtraError
from nr_agent.tasks import TRAINING_SEEDS, draw, held_out
from nr_agent.tokens import CORRECTION_TOKENS, STEP_END
from nr_agent.training.ahead import made_ahead, parts_on
from nr_agent.training.corpus import IGNORED, Batch, Example, asked, batches, encode_trace
from nr_agent.training.correction_rows import trainable_rows
from nr_agent.training.learner import Learner, worth_fusing
from nr_agent.training.telltale import Telltale
from nr_agent.training.traces import Habits, teach


@dataclass(frozen=True)
class SftSettings:
    """How the trigger SFT is run.

    Attributes:
        steps: optimiser steps.
        tokens: tokens a step, at least.
        longest: longer examples are not trained on.
        learning_rate: peak rate, falling linearly to a twentieth.
        told: share that are the model's own traces, for the telltale neurons alone; none where it has none.
        clean: share of the other examples that are whole clean traces.
        planted: share of them that are teacher's traces with triggers; the rest are the model's own failures.
        seed: seed of the mixture.
        method: `full` for all weights; `lora` for low-rank matrices beside every linear layer and the rows of the
            correction tokens, merged into the weights at the end (extra `train`).
        rank: of those matrices.
    """

    steps: int = 400
    tokens: int = 6400
    longest: int = 960
    learning_rate: float = 4e-4
    clean: float = 0.25
    planted: float = 0.3
    told: float = 0.3
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
    telltale: Telltale | None = None,
    told: Sequence[Example] = (),
    log: Callable[[str], None] = lambda _: None,
) -> Any:
    """Train a causal language model in place.

    Args:
        model: the model.
        tokenizer: its tokenizer, with the correction tokens.
        own: examples made of the model's own traces (`nr_agent.training.own_failures`).
        families: families of the clean and planted traces.
        settings: see there.
        telltale: the model's telltale neurons, if it has any. It is passed as `pretrain` passes it then.
        told: the model's own traces for them.
        log: gets a line now and then.

    Returns:
        The model, ready to be used.

    Raises:
        MissingExtraError: LoRA is asked for, and PEFT is not installed.
    """
    settings = settings or SftSettings()
    if settings.method == "lora":
        model = _with_lora(model, tokenizer, settings.rank)
    accelerator = Accelerator()
    model.to(accelerator.device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    readings = list(telltale.parameters()) if telltale is not None else []
    optimizer = torch.optim.AdamW([*trained, *readings], settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    step_end = tokenizer.encode(STEP_END, add_special_tokens=False)[0]
    fused = worth_fusing(model, settings.steps)
    learner = Learner(model, telltale, accelerator, fused=fused) if telltale is not None else None
    model.train()
    running = None

    def make(step: int) -> list[Batch]:
        rng = random.Random(f"{settings.seed}:{step}")
        return batches(
            lambda: _draw(rng, tokenizer, own, told, families, settings),
            settings.tokens,
            tokenizer.pad_token_id,
            parts_on(accelerator.device),
        )

    for step, parts in enumerate(made_ahead(make, range(settings.steps), accelerator.device)):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * max(0.05, min((step + 1) / 20, 1 - step / settings.steps))
        losses = learner.learn(parts, step_end) if learner is not None else _learn(model, parts)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        running = losses if running is None else running.lerp(losses, 0.05)
        if (step + 1) % 25 == 0:
            shown = f"  told {float(running[1]):.4f}" if telltale is not None else ""
            log(f"trigger SFT {step + 1}/{settings.steps}{shown}  loss {float(running[0]):.4f}")
    return (model.merge_and_unload() if settings.method == "lora" else model).eval()


def _learn(model: Any, parts: Sequence[Batch]) -> Tensor:
    """Leave the gradients of the mean loss over the parts, by the model's own passes."""
    device = model.get_input_embeddings().weight.device
    total = sum(int((part.labels != IGNORED).sum()) for part in parts)
    mean = torch.zeros(2, device=device)
    for part in parts:
        share = int((part.labels != IGNORED).sum()) / max(1, total)
        if not share:
            continue
        loss = share * model(input_ids=part.ids.to(device), labels=part.labels.to(device), use_cache=False).loss
        loss.backward()
        mean[0] += loss.detach().float()
    return mean


def planted_example(tokenizer: Any, family: str, rng: random.Random) -> Example | None:
    """A teacher's trace in which second thoughts are triggered instead of spontaneous; None where it has none."""
    while True:
        problem = draw(family, rng.choice(TRAINING_SEEDS))
        if not held_out(problem.text):
            break
    trace = teach(family, problem.text, rng, _EAGER)
    example = encode_trace(tokenizer, asked(problem, rng), trace, triggered=True)
    triggers = {tokenizer.convert_tokens_to_ids(token) for token in CORRECTION_TOKENS}
    return example if triggers & set(example.ids) else None


_EAGER = Habits(redo=0.1, slip=0.12, careful=0.2, repeat=0.08, passes=(0.6, 0.3, 0.1))
"""A teacher with more to ask for."""


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
    rng: random.Random,
    tokenizer: Any,
    own: Sequence[Example],
    told: Sequence[Example],
    families: Sequence[str],
    settings: SftSettings,
) -> Example:
    while True:
        point = rng.random()
        family = rng.choice(list(families))
        example: Example | None
        if told and rng.random() < settings.told:
            example = rng.choice(told)
        elif point < settings.clean:
            problem = draw(family, rng.choice(TRAINING_SEEDS))
            example = (
                None
                if held_out(problem.text)
                else encode_trace(tokenizer, asked(problem, rng), teach(family, problem.text, rng))
            )
        elif point < settings.clean + settings.planted or not own:
            example = planted_example(tokenizer, family, rng)
        else:
            example = rng.choice(own)
        if example is not None and len(example.ids) <= settings.longest:
            return example
