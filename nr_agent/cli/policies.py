"""`nr-agent policies`: packs of policies: which there are, what they say, and what they would have done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nr_agent.cli._output import sanitise

if TYPE_CHECKING:
    from nr_agent.policies import Point, Policies, Replay, Rule

app = typer.Typer(no_args_is_help=True, help="The policies that decide about failure events.")

_Name = Annotated[str, typer.Argument(metavar="NAME", help="A pack's name, or a file.")]
_JsonOption = Annotated[bool, typer.Option("--json", help="JSON on standard output, and nothing else.")]


@app.command("ls")
def ls(as_json: _JsonOption = False) -> None:
    """List the packs, and the policies that a pack may name. With --json, one object a line."""
    from nr_agent.policies.loading import find_pack_file, pack_names  # noqa: PLC0415 - keeps --help quick
    from nr_agent.policies.pack_file import POLICIES  # noqa: PLC0415
    from nr_agent.policies.plugins import plugins  # noqa: PLC0415

    rows = [("pack", name, "nr-agent", _about(find_pack_file(name))) for name in pack_names()]
    rows += [("policy", name, "nr-agent", _first_line(kind)) for name, kind in POLICIES.items()]
    rows += [(plugin.kind, plugin.name, plugin.package, "") for plugin in plugins()]
    for kind, name, package, about in rows:
        if as_json:
            typer.echo(json.dumps({"kind": kind, "name": name, "package": package, "about": about}))
        else:
            typer.echo(f"{kind:7} {sanitise(name):12} {sanitise(about or f'of {package}')}")


@app.command("show")
def show(name: _Name = "default", as_json: _JsonOption = False) -> None:
    """Show a pack: its rules in the order in which they are tried, and why they are as they are."""
    from nr_agent.policies.loading import find_pack_file, load_policies  # noqa: PLC0415 - keeps --help quick

    policies = load_policies(name)
    rules = [{"address": address, **_rule(rule)} for address in policies.on for rule in policies.at(address)]
    about = _about(find_pack_file(name))
    limits = {
        "max_interventions": policies.max_interventions,
        "refractory": policies.refractory,
        "alarms": dict(policies.alarms),
    }
    if as_json:
        typer.echo(json.dumps({"schema_version": 1, "name": policies.name, "about": about, **limits, "rules": rules}))
        return
    typer.echo(f"{sanitise(policies.name)}: {sanitise(about)}" if about else sanitise(policies.name))
    typer.echo(
        f"at most {policies.max_interventions} interventions; steps left alone behind one: {policies.refractory}"
    )
    for level, share in policies.alarms.items():
        typer.echo(f"alarms of {level} in up to {share:.0%} of the good traces")
    for rule in rules:
        settings = ", ".join(f"{key}={value!r}" for key, value in rule["settings"].items())
        typer.echo(f"\n{rule['address']}, score {rule['band']}: {sanitise(rule['policy'])}({sanitise(settings)})")
        if rule["reason"]:
            typer.echo(f"    {sanitise(rule['reason'])}")


@app.command("validate")
def validate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A pack.")], as_json: _JsonOption = False
) -> None:
    """Check a pack and name everything that is wrong in it, with its line and what to do.

    The exit code is 2 if something is.
    """
    from nr_agent.policies.checking import read_pack  # noqa: PLC0415 - keeps --help quick

    pack, faults = read_pack(file)
    if as_json:
        found = [{"line": f.line, "key": f.key, "message": f.message, "hint": f.hint} for f in faults]
        typer.echo(json.dumps({"schema_version": 1, "file": str(file), "valid": not faults, "faults": found}))
    elif pack is not None:
        rules = sum(len(rules) for rules in pack.rules().values())
        typer.echo(f"{file}: {sanitise(pack.name)} is valid, {rules} rules")
    else:
        for fault in faults:
            place = f"{file}:{fault.line}" if fault.line else str(file)
            said = f"{place}: {fault.key or 'the file'}: {fault.message}\n  {fault.hint}"
            typer.echo(f"error: {sanitise(said)}", err=True)
    if faults:
        raise typer.Exit(2)


@app.command("test")
def test(
    name: Annotated[str, typer.Argument(metavar="PACK", help="A pack's name, or a file.")],
    store: Annotated[str | None, typer.Option(help="Path or URL of the episode store.")] = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only so many episodes, the newest.")] = None,
    as_json: _JsonOption = False,
) -> None:
    """Replay stored episodes under a pack and show what it would have decided differently.

    What is behind an episode's first difference is marked with ~: there the thinking would have gone another way. So is
    all of an episode that was recorded with other alarms. A policy that does something when it is asked (runs tests,
    say) does it here as well.
    """
    from nr_agent.episode import NOT_KEPT  # noqa: PLC0415 - keeps --help quick
    from nr_agent.policies import load_policies, replay  # noqa: PLC0415 - keeps --help quick
    from nr_agent.policies.replay import same_alarms  # noqa: PLC0415 - keeps --help quick
    from nr_agent.store import EpisodeFilter, EpisodeStore  # noqa: PLC0415 - imports SQLAlchemy

    policies = load_policies(name)
    with EpisodeStore(store, create=False) as opened:
        found = [opened.get(summary.id) for summary in opened.find(EpisodeFilter(status="completed", limit=last))]
    known = [episode for episode in found if all(step.text != NOT_KEPT for step in episode.steps)]
    replays = [replay(episode, policies) for episode in known]
    other = sum(not same_alarms(one.episode, policies) for one in replays)
    counted = {"without_texts": len(found) - len(known), "other_alarms": other}
    if as_json:
        typer.echo(json.dumps({"schema_version": 1, "policies": policies.name, **_counted(replays), **counted}))
        return
    _print(policies, replays)
    if counted["without_texts"]:
        typer.echo(f"{counted['without_texts']} episodes were stored without their texts and cannot be replayed")
    if other:
        typer.echo(
            f"{other} episodes were recorded with other alarms than {sanitise(policies.name)} asks for: their events "
            "are those of the recording"
        )


def _print(policies: Policies, replays: list[Replay]) -> None:
    counted = _counted(replays)
    typer.echo(
        f"{counted['episodes']} episodes, {counted['points']} steps with events; under {sanitise(policies.name)} "
        f"{counted['changed']} are decided otherwise, in {counted['episodes_changed']} episodes"
    )
    for change, number in counted["changes"].items():
        typer.echo(f"  {number:5}  {change}")
    for one in replays:
        changes = [point for point in one.points if point.changed]
        if changes:
            right = {True: "right", False: "wrong", None: "not judged"}[one.episode.correct]
            typer.echo(f"\n{one.episode.id}  {right}, recorded under {sanitise(one.episode.policy or 'none')}")
        for point in changes:
            typer.echo(sanitise(_line(point)))


def _line(point: Point) -> str:
    seen = ", ".join(f"{event.level}.{event.kind} {event.score:.2f}" for event in point.events)
    saved = f", {point.tokens_behind} tokens saved" if point.now == "stop" else ""
    mark = " " if point.exact else "~"
    return f" {mark} step {point.step:3}  {point.was} -> {point.now}{saved}  ({seen})"


def _counted(replays: list[Replay]) -> dict[str, Any]:
    points = [point for one in replays for point in one.points]
    changes: dict[str, int] = {}
    for point in points:
        if point.changed:
            key = f"{point.was} -> {point.now}"
            changes[key] = changes.get(key, 0) + 1
    return {
        "episodes": len(replays),
        "points": len(points),
        "changed": sum(changes.values()),
        "episodes_changed": sum(one.first_change is not None for one in replays),
        "changes": dict(sorted(changes.items())),
        "replays": [
            {
                "episode_id": one.episode.id,
                "correct": one.episode.correct,
                "points": [
                    {
                        "step": point.step,
                        "events": [event.id for event in point.events],
                        "was": point.was,
                        "now": point.now,
                        "policy": point.policy,
                        "exact": point.exact,
                        "tokens_behind": point.tokens_behind,
                    }
                    for point in one.points
                ],
            }
            for one in replays
        ],
    }


def _about(found: Any) -> str:
    from nr_agent.policies.checking import read_pack  # noqa: PLC0415 - keeps --help quick

    pack = read_pack(found)[0] if isinstance(found, Path) else None
    return pack.about if pack is not None else ""


def _rule(rule: Rule) -> dict[str, Any]:
    settings = rule.policy.model_dump(mode="json", exclude={"name"}) if hasattr(rule.policy, "model_dump") else {}
    above = "" if rule.max_score is None else f" and below {rule.max_score:g}"
    return {
        "policy": rule.policy.name,
        "settings": settings,
        "min_score": rule.min_score,
        "max_score": rule.max_score,
        "band": f"at least {rule.min_score:g}{above}" if rule.min_score or above else "any",
        "reason": rule.reason,
    }


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0]
