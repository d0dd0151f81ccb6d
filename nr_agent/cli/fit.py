"""`nr-agent fit`: make a detector for a model from its own traces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nr_agent.cli._models import MODEL_HELP, prepare


def fit(
    out: Annotated[Path, typer.Option(help="Folder for the detector, its card, and the traces to resume from.")],
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = "nano",
    tasks: Annotated[str | None, typer.Option(help="Families, separated by commas; all by default.")] = None,
    n: Annotated[int, typer.Option(min=20, help="Problems a family.")] = 250,
    seed: Annotated[int, typer.Option(help="Seed of the first problem, among the training seeds.")] = 500_000,
    alpha: Annotated[
        float, typer.Option(min=0.001, max=0.5, help="Share of good traces that may be disturbed.")
    ] = 0.05,
) -> None:
    """Fit a detector: sample, label, rank, train, calibrate, write its card.

    An interrupted run goes on from its traces when it is called again with the same options.
    """
    from nr_agent.detection.fit import FitSettings  # noqa: PLC0415 - imports torch
    from nr_agent.detection.fit import fit as fit_detector  # noqa: PLC0415 - imports torch
    from nr_agent.errors import TaskError  # noqa: PLC0415 - kept beside the others
    from nr_agent.events import LEVELS  # noqa: PLC0415 - kept beside the others
    from nr_agent.models.registry import load_engine  # noqa: PLC0415 - imports torch
    from nr_agent.tasks import TRAINING_SEEDS, draw, family_names  # noqa: PLC0415 - imports reasoning-gym

    if not (seed in TRAINING_SEEDS and seed + n - 1 in TRAINING_SEEDS):
        raise TaskError(
            f"seeds {seed} to {seed + n - 1} are not training seeds",
            hint=f"choose them between {TRAINING_SEEDS.start} and {TRAINING_SEEDS.stop - 1}",
        )
    families = family_names(tasks)
    prepare(model)
    engine = load_engine(model)
    problems = [draw(family, number) for number in range(seed, seed + n) for family in families]
    settings = FitSettings(alpha=dict.fromkeys(LEVELS, alpha))
    fit_detector(engine, problems, out, settings, log=lambda line: typer.echo(line, err=True))
    typer.echo(str(out))
