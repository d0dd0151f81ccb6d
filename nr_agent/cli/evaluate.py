"""`nr-agent eval`: arms on the same problems."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from nr_agent.cli._arms import ARMS, DEFAULT, Bench
from nr_agent.cli._models import MODEL_HELP, prepare


def evaluate(
    out: Annotated[Path, typer.Option(help="Folder for results.json and rows.jsonl.")],
    model: Annotated[str | None, typer.Option(help=MODEL_HELP)] = None,
    arms: Annotated[str, typer.Option(help=f"Separated by commas: {', '.join(ARMS)}.")] = ",".join(DEFAULT),
    tasks: Annotated[str | None, typer.Option(help="Families, separated by commas; all by default.")] = None,
    n: Annotated[int, typer.Option(min=1, help="Problems a family.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the first problem.")] = 1_500_000,
    policies: Annotated[str, typer.Option(help="A pack's name, or a file; see nr-agent policies.")] = "default",
    detector: Annotated[Path | None, typer.Option(help="Folder of a detector; the model's own by default.")] = None,
    temperature: Annotated[float, typer.Option(min=0, help="Of sampling.")] = 0.6,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of thinking.")] = 1024,
) -> None:
    """Run arms on the same problems; accuracies, tokens, paired differences with 95% intervals.

    What a folder already holds for the same problems is not run again; what was made with other settings is refused.
    """
    from nr_agent.engine.protocol import Sampling  # noqa: PLC0415 - imported when needed
    from nr_agent.errors import TaskError  # noqa: PLC0415 - imported when needed
    from nr_agent.evaluation.harness import run_arms  # noqa: PLC0415 - imported when needed
    from nr_agent.graphs import Budget  # noqa: PLC0415 - imports LangGraph
    from nr_agent.models.registry import load_engine  # noqa: PLC0415 - imports torch
    from nr_agent.policies import load_policies  # noqa: PLC0415 - imported when needed
    from nr_agent.settings import load_settings  # noqa: PLC0415 - imported when needed
    from nr_agent.tasks import TRAINING_SEEDS, family_names, trained_on  # noqa: PLC0415 - imported when needed

    chosen = list(dict.fromkeys(arm.strip() for arm in arms.split(",")))
    unknown = [arm for arm in chosen if arm not in ARMS]
    if unknown:
        raise TaskError(f"there is no arm {unknown[0]!r}", hint=f"choose from: {', '.join(ARMS)}")
    families = family_names(tasks)
    if trained_on(range(seed, seed + n)):
        typer.echo(
            f"warning: seeds below {TRAINING_SEEDS.stop} are what models are trained and detectors are fitted on; "
            "figures on them flatter",
            err=True,
        )
    # Nobody is asked in a benchmark: a policy that would is passed over.
    pack = replace(load_policies(policies), attended=False)
    model = model or load_settings().model
    prepare(model)
    engine = load_engine(model)
    common: dict[str, Any] = {"budget": Budget(max_tokens=max_tokens), "sampling": Sampling(temperature=temperature)}
    bench = Bench(engine, model, detector, pack, common, families, out)
    settings = bench.settings(chosen)
    results = run_arms(
        bench.arms(chosen, settings),
        families,
        n=n,
        seed=seed,
        out=out,
        about=settings,
        log=lambda line: typer.echo(line, err=True),
    )
    for name, summary in results["arms"].items():
        low, high = summary["accuracy_95"]
        line = f"{name:18} right {summary['accuracy']:.1%} [{low:.1%}, {high:.1%}]  tokens {summary['tokens']:.0f}"
        against = summary.get("against_vanilla")
        if against:
            low, high = against["accuracy_difference_95"]
            line += (
                f"  against vanilla {against['accuracy_difference']:+.1%} [{low:+.1%}, {high:+.1%}], "
                f"p {against['mcnemar_p']:.2g}, {against['token_ratio']:.0%} of the tokens"
            )
        ours = summary.get("ours_against_it")
        if ours:
            low, high = ours["accuracy_difference_95"]
            line += f"; nr_agent against it {ours['accuracy_difference']:+.1%} [{low:+.1%}, {high:+.1%}]"
        # A control is matched to our events: what came of them is said beside its result.
        acted = ", ".join(f"{kind} {number:.2f}" for kind, number in summary["interventions"].items())
        line += f"  an episode: {acted}" if acted else ""
        typer.echo(line)
