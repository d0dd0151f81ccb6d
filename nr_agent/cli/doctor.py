"""`nr-agent doctor`: is everything there, and does it fit together?"""

from __future__ import annotations

import json
import platform
import shutil
import sqlite3
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any, NamedTuple

import typer

from nr_agent import __version__
from nr_agent.errors import NRAgentError

_PACKAGES = ("torch", "transformers", "langgraph", "langchain-core", "sqlalchemy", "safetensors")


class Finding(NamedTuple):
    """One line: what was looked at, how it is, and what to do."""

    what: str
    state: str
    detail: str


def doctor(
    model: Annotated[str | None, typer.Option(help="Name of a model, or its folder.")] = None,
    store: Annotated[str | None, typer.Option(help="Path or URL of the episode store.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Check versions, device, model, detector, control tokens and store; exit 1 if something fails."""
    from nr_agent.settings import load_settings  # noqa: PLC0415 - keeps --help quick

    settings = load_settings()
    chosen = model or settings.model
    findings = [
        Finding("nr-agent", "ok", f"{__version__}, Python {platform.python_version()}"),
        *(Finding(name, "ok", version(name)) for name in _PACKAGES),
        Finding("sqlite", "ok", sqlite3.sqlite_version),
        _try("device", _device),
        *_model(chosen),
        _try("store", lambda: _store(store or settings.store_url)),
    ]
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings], indent=1))
    else:
        for finding in findings:
            mark = {"ok": "\u2713", "warn": "!", "fail": "\u2717"}[finding.state]
            typer.echo(f"{mark} {finding.what:15} {finding.detail}")
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


def _device() -> Finding:
    import torch  # noqa: PLC0415 - slow to import

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    detail = accelerator.type if accelerator else f"cpu, {torch.get_num_threads()} threads"
    return Finding("device", "ok", detail)


def _model(name: str) -> list[Finding]:
    from nr_agent.models.registry import load_detector, load_engine  # noqa: PLC0415 - imports torch
    from nr_agent.tokens import CORRECTION_TOKENS, END_THINK, THINK  # noqa: PLC0415 - beside its use

    loaded: list[Any] = []

    def load() -> Finding:
        engine = load_engine(name)
        loaded.append(engine)
        return Finding(
            "model", "ok", f"{name}, fingerprint {engine.fingerprint}, context {engine.capabilities.context}"
        )

    findings = [_try("model", load)]
    if not loaded:
        return findings
    engine = loaded[0]
    ids = {token: engine.codec.control(token) for token in (THINK, END_THINK, *CORRECTION_TOKENS)}
    missing = [token for token, identifier in ids.items() if identifier is None]
    if missing:
        findings.append(Finding("control tokens", "warn", f"without {', '.join(missing)}: remedies are plain words"))
    else:
        shown = ", ".join(f"{token} {identifier}" for token, identifier in ids.items())
        findings.append(Finding("control tokens", "ok", shown))
    findings.append(_try("detector", lambda: Finding("detector", "ok", load_detector(name, engine).id), failing="warn"))
    engine.shutdown()
    return findings


def _store(where: str) -> Finding:
    from nr_agent.store import EpisodeStore  # noqa: PLC0415 - imports SQLAlchemy

    with EpisodeStore(where) as store:
        path = store.location
    free = shutil.disk_usage(path if path.startswith("/") else ".").free
    return Finding("store", "warn" if free < 1 << 30 else "ok", f"{path}, {free / (1 << 30):.1f} GiB free")


def _try(what: str, look: Callable[[], Finding], failing: str = "fail") -> Finding:
    try:
        return look()
    except NRAgentError as error:
        return Finding(what, failing, str(error).replace("\n  ", "; "))
