"""Train an embedded LRM on the teacher's traces, and its telltale neurons on what it gets wrong.

The run is a pure function of its settings: the data of a step depend on the seed, the step and the model's own traces,
which are sampled at given steps and kept, and a run that was interrupted goes on from its last checkpoint as if it had
not been.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from nr_agent.errors import ConfigurationError
from nr_agent.models.registry import find_model
from nr_agent.tasks import FAMILIES
from nr_agent.tokens import STEP_END
from nr_agent.training.ahead import made_ahead, parts_on
from nr_agent.training.corpus import IGNORED, Batch, Corpus, Example
from nr_agent.training.growing import check_fit, grow
from nr_agent.training.learner import Learner, quick_type, worth_fusing
from nr_agent.training.muon import Muon
from nr_agent.training.own_rounds import own_round
from nr_agent.training.telltale import Telltale
from nr_agent.training.tokenizer import train_tokenizer

TELLTALE_FILE = "telltale.safetensors"
"""In a run's folder: what reads its telltale neurons while they learn."""
STATE_FILE = "state.pt"
"""In a run's folder: where it stands."""


@dataclass(frozen=True)
class Backbone:
    """The shape of an embedded LRM.

    Attributes:
        hidden: width of the residual stream.
        layers: decoder layers.
        heads: attention heads; half as many for keys and values.
        ffn: FFN neurons a layer.
        architecture: `qwen3` or `llama`.
    """

    hidden: int
    layers: int
    heads: int
    ffn: int
    architecture: Literal["qwen3", "llama"] = "qwen3"


SIZES: dict[str, Backbone] = {
    "tiny": Backbone(64, 2, 4, 192),
    "nano": Backbone(256, 5, 8, 768),
    "nano-llama": Backbone(256, 5, 8, 768, "llama"),
    "mini": Backbone(384, 7, 12, 1152),
}
CONTEXT = 2048


EVEN: dict[str, float] = dict.fromkeys(FAMILIES, 1.0)
HARD: dict[str, float] = {**EVEN, "chain_sum": 1.6, "gcd": 1.6, "simple_equations": 1.3, "products": 1.2}
"""More of the families that are still wrong most often after a first phase."""
STILL_HARD: dict[str, float] = {
    "chain_sum": 1.5,
    "products": 1.4,
    "simple_equations": 1.3,
    "gcd": 1.6,
    "countdown": 0.8,
    "letter_counting": 0.9,
}
"""The same after the second."""
AT_LAST: dict[str, float] = {**STILL_HARD, "gcd": 1.7, "products": 1.1, "countdown": 0.9, "letter_counting": 1.4}
"""The same once all of them are half learned: the longest traces, those that count letters, get their share back."""


@dataclass(frozen=True)
class Phase:
    """A part of the curriculum with a rate of its own.

    Attributes:
        steps: optimiser steps.
        learning_rate: peak rate; both optimisers use it (Muon's update is scaled to AdamW's RMS).
        warmup: steps of linear warm-up.
        decay: share of the steps over which the rate falls to a hundredth, linearly.
        weights: how often each family is drawn, relative to each other.
    """

    steps: int
    learning_rate: float
    warmup: int = 60
    decay: float = 0.5
    weights: dict[str, float] = field(default_factory=lambda: dict(EVEN))

    def rate(self, step: int) -> float:
        """The learning rate at a step of this phase."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        left = (self.steps - step) / max(1, math.ceil(self.steps * self.decay))
        return self.learning_rate * max(0.01, min(1.0, left))


@dataclass(frozen=True)
class PretrainSettings:
    """Everything that a run depends on.

    Attributes:
        size: a key of `SIZES`.
        phases: the curriculum.
        tokens: tokens a step, at least.
        longest: longer traces are not trained on.
        seed: seed of weights and data.
        save_every: steps between checkpoints.
        precision: of the passes; the weights that learn are kept in float32. `auto` is bfloat16 where the CPU has
            matrix units for it, or where there is a GPU.
        own_at: steps before which the model's own traces are sampled, for the telltale neurons.
        own_problems: problems a family each time.
        own_share: share of the examples that are such traces, once there are any.
        told: weight of what the telltale neurons tell in the loss.
        start: name or folder of a model whose weights and tokenizer it begins with, grown where it is smaller; fresh
            weights by default.
    """

    size: str = "nano"
    phases: tuple[Phase, ...] = (
        Phase(1200, 3e-3, decay=0.0),
        Phase(1300, 3e-3, warmup=1, decay=1.0, weights=HARD),
        Phase(2500, 2.5e-3, decay=1.0, weights=STILL_HARD),
        Phase(2200, 2.5e-3, decay=1.0, weights=AT_LAST),
        Phase(1600, 2e-3, decay=1.0, weights=AT_LAST),
    )
    tokens: int = 5600
    longest: int = 1024
    seed: int = 0
    save_every: int = 200
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    own_at: tuple[int, ...] = (1200, 2500, 3700, 5700, 6500, 7900)
    own_problems: int = 240
    own_share: float = 0.2
    told: float = 0.5
    start: str | None = None

    @property
    def steps(self) -> int:
        """Optimiser steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def shortened(self, steps: int) -> PretrainSettings:
        """The same curriculum in so many steps, each phase by its share."""
        share = steps / self.steps
        phases = [
            replace(phase, steps=max(1, round(phase.steps * share)), warmup=max(1, round(phase.warmup * share)))
            for phase in self.phases
        ]
        own_at = tuple(min(at, max(1, round(at * share))) for at in self.own_at)
        return replace(self, phases=tuple(phases), own_at=own_at)

    def going_on(self, start: str) -> PretrainSettings:
        """The last phase alone, from a model that is trained already.

        Its own traces come first, and half-way. One of another architecture has to find back to its thinking before
        they are worth sampling: they come after a quarter, and again after five eighths.
        """
        last = self.phases[-1]
        kind = AutoConfig.from_pretrained(find_model(start)).model_type
        same = kind == SIZES[self.size].architecture
        own_at = (0, last.steps // 2) if same else (last.steps // 4, last.steps * 5 // 8)
        return replace(self, start=start, phases=(last,), own_at=own_at)

    def phase(self, step: int) -> tuple[Phase, int]:
        """The phase that a step belongs to, and its number in it."""
        for phase in self.phases:
            if step < phase.steps:
                return phase, step
            step -= phase.steps
        raise IndexError(step)


def build_model(size: str, tokenizer: Any) -> PreTrainedModel:
    """A model of a size with fresh weights, for a tokenizer."""
    config = _config(size, tokenizer)
    return LlamaForCausalLM(config) if isinstance(config, LlamaConfig) else Qwen3ForCausalLM(config)


def _config(size: str, tokenizer: Any) -> LlamaConfig | Qwen3Config:
    shape = SIZES[size]
    common: dict[str, Any] = {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.ffn,
        "num_key_value_heads": shape.heads // 2,
        "head_dim": shape.hidden // shape.heads,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return LlamaConfig(**common) if shape.architecture == "llama" else Qwen3Config(**common)


def pretrain(out: Path, settings: PretrainSettings, *, log: Callable[[str], None]) -> PreTrainedModel:
    """Run the training, or go on with it.

    Args:
        out: folder for the log, the checkpoint to resume from, and at the end the model.
        settings: see there.
        log: gets a line now and then.

    Returns:
        The trained model.

    Raises:
        ConfigurationError: `out` holds a run with other settings, or the model to begin with does not fit.
    """
    _check_start(settings)
    out.mkdir(parents=True, exist_ok=True)
    _check_settings(out / "settings.json", settings)
    set_seed(settings.seed)
    accelerator = Accelerator()
    tokenizer = _tokenizer(out / "tokenizer", settings.start)
    corpus = Corpus(tokenizer, longest=settings.longest, seed=settings.seed, parts=parts_on(accelerator.device))
    model = _begin(settings, tokenizer, corpus)
    telltale = Telltale(model)
    fused = worth_fusing(model, settings.steps)
    learner = Learner(model, telltale, accelerator, precision=settings.precision, told=settings.told, fused=fused)
    device = accelerator.device
    quick = quick_type(settings.precision, device)
    optimizers = _optimizers(model, telltale, settings.phases[0].learning_rate, quick)
    step_end = tokenizer.encode(STEP_END, add_special_tokens=False)[0]
    done, seen = _resume(out / STATE_FILE, model, telltale, optimizers)
    if done:
        log(f"resuming after step {done}")
    own: list[Example] = []

    def sample(step: int) -> None:
        number = settings.own_at.index(step)
        path = out / f"own-{number}.jsonl"
        own.extend(own_round(path, out / "model", tokenizer, number, settings.own_problems, settings.longest, log))

    for at in settings.own_at:
        if at < done:
            sample(at)

    def make(step: int) -> list[Batch]:
        return corpus.batch(step, settings.tokens, settings.phase(step)[0].weights, own, settings.own_share)

    started, fresh, running = time.monotonic(), 0, None
    bounds = sorted({done, *(at for at in settings.own_at if done < at < settings.steps), settings.steps})
    for first, last in pairwise(bounds):
        if first in settings.own_at:
            save_model(model, tokenizer, out / "model")
            before = len(own)
            sample(first)
            log(f"told of them before they were learned: {learner.told_of(own[before:], tokenizer)}")
        for step, parts in enumerate(made_ahead(make, range(first, last), device), first):
            rate = _set_rate(optimizers, settings, step)
            losses = learner.learn(parts, step_end)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            fresh += sum(int((part.labels != IGNORED).sum()) for part in parts)
            running = losses if running is None else running.lerp(losses, 0.05)
            if (step + 1) % 50 == 0:
                speed = fresh / (time.monotonic() - started)
                loss, told = (round(float(value), 4) for value in running)
                line = {"step": step + 1, "loss": loss, "told": told, "tokens": seen + fresh, "rate": rate}
                with (out / "log.jsonl").open("a") as file:
                    file.write(json.dumps(line) + "\n")
                log(f"step {step + 1}/{settings.steps}  loss {loss:.4f}  told {told:.4f}  {speed:.0f} trained tokens/s")
            if (step + 1) % settings.save_every == 0 or step + 1 == settings.steps:
                _save(out / STATE_FILE, model, telltale, optimizers, step + 1, seen + fresh)
                save_model(model, tokenizer, out / "model")
                save_file(telltale.state_dict(), out / TELLTALE_FILE)
    return model


def _set_rate(optimizers: Sequence[torch.optim.Optimizer], settings: PretrainSettings, step: int) -> float:
    """Give the optimisers the rate of a step, and say it."""
    phase, within = settings.phase(step)
    rate = phase.rate(within)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
    return rate


def _resume(path: Path, model: PreTrainedModel, telltale: Telltale, optimizers: Sequence[Any]) -> tuple[int, int]:
    """Take up the last checkpoint, if there is one; how many steps and tokens are behind it."""
    if not path.exists():
        return 0, 0
    state = torch.load(path, weights_only=True, map_location="cpu")
    model.load_state_dict(state["model"])
    telltale.load_state_dict(state["telltale"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return state["step"], state["tokens"]


def _begin(settings: PretrainSettings, tokenizer: Any, corpus: Corpus) -> PreTrainedModel:
    """A model with fresh weights, or with those that the run is to begin with: of its own shape, or to be grown."""
    model = build_model(settings.size, tokenizer)
    if settings.start is not None:
        other = AutoModelForCausalLM.from_pretrained(find_model(settings.start), dtype="float32")
        wanted, found = ({name: value.shape for name, value in one.state_dict().items()} for one in (model, other))
        if wanted == found:
            model.load_state_dict(other.state_dict())
        else:
            grow(model, other, corpus.batch(0, settings.tokens, settings.phases[0].weights)[0].ids)
    return model


def _tokenizer(folder: Path, start: str | None) -> Any:
    """The run's tokenizer, learned once: a run that goes on keeps its ids, whatever the teacher writes by then."""
    if not (folder / "tokenizer.json").exists():
        known = train_tokenizer() if start is None else AutoTokenizer.from_pretrained(find_model(start))
        known.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def save_model(model: PreTrainedModel, tokenizer: Any, folder: Path) -> None:
    """Write a checkpoint as it ships: bfloat16 safetensors, the tokenizer and its template."""
    copied: Any = type(model)(model.config)
    copied.to(torch.bfloat16)
    copied.load_state_dict(model.state_dict())
    copied.generation_config.update(do_sample=True, temperature=0.6, top_p=0.95)
    copied.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _optimizers(
    model: PreTrainedModel, telltale: Telltale, rate: float, dtype: torch.dtype
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings, norms and the telltale's readings."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    chosen = {id(p) for p in matrices}
    others = [p for p in (*model.parameters(), *telltale.parameters()) if id(p) not in chosen]
    return [
        Muon(matrices, rate, weight_decay=0.05, dtype=dtype),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _check_start(settings: PretrainSettings) -> None:
    """Refuse a model that the run cannot begin with, before anything is written."""
    if settings.start is not None:
        folder = find_model(settings.start)
        check_fit(_config(settings.size, AutoTokenizer.from_pretrained(folder)), AutoConfig.from_pretrained(folder))


def _check_settings(path: Path, settings: PretrainSettings) -> None:
    wanted = json.loads(json.dumps(asdict(settings)))
    if not path.exists():
        path.write_text(json.dumps(wanted, indent=2))
    elif json.loads(path.read_text()) != wanted:
        raise ConfigurationError(
            f"{path.parent} holds a run with other settings", hint="name another folder, or delete that one"
        )


def _save(
    path: Path, model: PreTrainedModel, telltale: Telltale, optimizers: list[Any], step: int, tokens: int
) -> None:
    state = {
        "model": model.state_dict(),
        "telltale": telltale.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "step": step,
        "tokens": tokens,
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)
