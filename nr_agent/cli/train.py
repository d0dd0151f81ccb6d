"""`nr-agent train`: a model learns from an export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from nr_agent.cli._memory import keep_freed_memory


def train(
    data: Annotated[Path, typer.Option(help="Folder of an export: messages, pretokenized or preference.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; the model is in its folder model.")],
    model: Annotated[str | None, typer.Option(help="Name of a model, or its folder.")] = None,
    method: Annotated[str, typer.Option(help="lora, or full for all weights.")] = "lora",
    epochs: Annotated[float, typer.Option(min=0.01, help="Passes over the data.")] = 1.0,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps, instead of epochs.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Rows a step.")] = 4,
    accumulate: Annotated[int, typer.Option(min=1, help="Steps whose gradients are added up.")] = 1,
    learning_rate: Annotated[float | None, typer.Option(min=0, help="Peak rate; by method and format.")] = None,
    rank: Annotated[int, typer.Option(min=1, help="Rank of the LoRA matrices.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of the order of rows.")] = 0,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 50,
) -> None:
    """Train a model on an export with TRL.

    An interrupted run goes on from its last checkpoint when it is called again with the same options.
    """
    from nr_agent.errors import ConfigurationError  # noqa: PLC0415 - beside its use
    from nr_agent.settings import load_settings  # noqa: PLC0415 - keeps --help quick
    from nr_agent.training.finetune import FinetuneSettings, finetune  # noqa: PLC0415 - imports torch

    if method not in ("lora", "full"):
        raise ConfigurationError(f"there is no method {method!r}", hint="choose from: lora, full")
    settings = FinetuneSettings(
        method="lora" if method == "lora" else "full",
        epochs=epochs,
        steps=steps,
        batch=batch,
        accumulate=accumulate,
        learning_rate=learning_rate,
        rank=rank,
        seed=seed,
        save_every=save_every,
    )
    keep_freed_memory()
    done = finetune(model or load_settings().model, data, out, settings, progress=_tell)
    if sys.stderr.isatty():
        typer.echo("", err=True)
    if done.resumed_from is not None:
        typer.echo(f"went on from step {done.resumed_from}", err=True)
    typer.echo(f"{done.steps} steps" + (f", loss {done.loss:.4f}" if done.loss is not None else ""), err=True)
    typer.echo(f"its detector is to be fitted anew: nr-agent fit --model {done.model} --out DETECTOR", err=True)
    typer.echo(str(done.model))


def _tell(step: int, steps: int, loss: float | None) -> None:
    """A line that is written over on a terminal, and now and then a line of its own elsewhere."""
    said = f"step {step}/{steps}" + (f"  loss {loss:.4f}" if loss is not None else "")
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{said:40}")
        sys.stderr.flush()
    elif step in (1, steps) or step % 10 == 0:
        typer.echo(said, err=True)
