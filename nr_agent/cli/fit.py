"""`nr-agent fit`: make a detector for a model from its own traces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nr_agent.cli._memory import keep_freed_memory
from nr_agent.cli._models import MODEL_HELP, prepare
from nr_agent.tasks import FITTED_FROM


def fit(
    out: Annotated[Path, typer.Option(help="Folder for the detector, its card, and the traces to resume from.")],
    model: Annotated[str | None, typer.Option(help=MODEL_HELP)] = None,
    tasks: Annotated[str | None, typer.Option(help="Families, separated by commas; all by default.")] = None,
    problems: Annotated[
        list[Path] | None,
        typer.Option(help="A file of problems as JSON lines, instead of families; may be given several times."),
    ] = None,
    n: Annotated[int, typer.Option(min=20, help="Problems a family, or a file.")] = 160,
    seed: Annotated[
        int | None, typer.Option(help=f"Seed of the first problem, among the training seeds; {FITTED_FROM} by default.")
    ] = None,
    temperature: Annotated[
        float, typer.Option(min=0, max=2, help="At which traces are sampled: that of later use.")
    ] = 0.6,
    max_tokens: Annotated[
        int,
        typer.Option(
            min=1,
            help="Where a trace that does not end is cut: nothing is learned of overthinking there. solve and eval "
            "allow 1024; kept figures were taken with 768.",
        ),
    ] = 768,
    alpha: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=0.5,
            help="Share of good traces that may be disturbed, a level. A policy pack may ask for another share of "
            "those that are calibrated, too: default and math ask for 0.2 of intra_step.",
        ),
    ] = 0.05,
    ranking: Annotated[
        str | None,
        typer.Option(help="How channels are ranked: mean_difference, the default, or logit_attribution."),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Which layers they are taken from: all, the default, or middle.")
    ] = None,
    published: Annotated[
        bool,
        typer.Option(
            "--published",
            help="As published: --ranking logit_attribution --layers middle, heads alone for circling, FFN neurons "
            "alone for the rest. Other --ranking or --layers are refused beside it.",
        ),
    ] = False,
) -> None:
    """Fit a detector: sample, label, rank, train, calibrate, write its card.

    An interrupted run goes on when it is called again with the same options: traces are kept some 240 at a time.
    """
    from nr_agent.detection.fit import FitSettings  # noqa: PLC0415 - imports torch
    from nr_agent.detection.fit import fit as fit_detector  # noqa: PLC0415 - imports torch
    from nr_agent.errors import ConfigurationError, TaskError  # noqa: PLC0415 - kept beside the others
    from nr_agent.events import LEVELS  # noqa: PLC0415 - kept beside the others
    from nr_agent.models.across import sampler  # noqa: PLC0415 - imports torch
    from nr_agent.models.registry import load_engine  # noqa: PLC0415 - imports torch
    from nr_agent.problem_files import read_problems  # noqa: PLC0415 - kept beside the others
    from nr_agent.settings import load_settings  # noqa: PLC0415 - keeps --help quick
    from nr_agent.tasks import TRAINING_SEEDS, draw, family_names  # noqa: PLC0415 - imports reasoning-gym

    if problems and seed is not None:
        raise TaskError("--seed chooses problems of families, and --problems was given", hint="give one of them")
    seed = FITTED_FROM if seed is None else seed
    if not problems and not (seed in TRAINING_SEEDS and seed + n - 1 in TRAINING_SEEDS):
        raise TaskError(
            f"seeds {seed} to {seed + n - 1} are not training seeds",
            hint=f"choose them between {TRAINING_SEEDS.start} and {TRAINING_SEEDS.stop - 1}",
        )
    for name, value, known, as_published in (
        ("--ranking", ranking, ("mean_difference", "logit_attribution"), "logit_attribution"),
        ("--layers", layers, ("all", "middle"), "middle"),
    ):
        if value is not None and value not in known:
            raise ConfigurationError(f"{name} {value!r} is not known", hint=f"choose from: {', '.join(known)}")
        if published and value not in (None, as_published):
            raise ConfigurationError(
                f"--published means {name} {as_published}, and {name} {value} was given", hint="give one of them"
            )
    if problems and tasks is not None:
        raise TaskError("both --tasks and --problems were given", hint="give one of them")
    if problems:
        chosen_problems = [problem for path in problems for problem in read_problems(path, n)]
    else:
        families = family_names(tasks)
        chosen_problems = [draw(family, number) for number in range(seed, seed + n) for family in families]
    keep_freed_memory()
    model = model or load_settings().model
    prepare(model)
    engine = load_engine(model)
    promise: Any = dict.fromkeys(LEVELS, alpha)
    promised: Any = {"alpha": promise, "temperature": temperature, "max_tokens": max_tokens}
    chosen: Any = {name: value for name, value in (("ranking", ranking), ("layers", layers)) if value is not None}
    settings = FitSettings.published(**promised) if published else FitSettings(**promised, **chosen)
    fit_detector(
        engine,
        chosen_problems,
        out,
        settings,
        sample=sampler(engine, model),
        log=lambda line: typer.echo(line, err=True),
    )
    typer.echo(str(out))
