"""`nr-agent doctor`: is everything there, and does it fit together?"""

from __future__ import annotations

import json
import platform
import shutil
import sqlite3
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from nr_agent.cli._models import MODEL_HELP, prepare
from nr_agent.cli._output import one_line, sanitise
from nr_agent.errors import NRAgentError

if TYPE_CHECKING:
    from nr_agent.engine.torch_engine import TorchEngine

_PACKAGES = ("nr-agent", "torch", "transformers", "langgraph", "langchain-core", "sqlalchemy", "safetensors")
_MARKS = {"ok": "\u2713", "warn": "!", "fail": "\u2717"}
_ROOM = 1 << 30
_SHOWN = 300


class Finding(NamedTuple):
    """One line: what was looked at, how it is, and what to do."""

    what: str
    state: str
    detail: str


def doctor(
    model: Annotated[str | None, typer.Option(help=MODEL_HELP)] = None,
    store: Annotated[str | None, typer.Option(help="Path or URL of the episode store.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Check versions, device, model, detector, control tokens and store; exit 1 if something fails."""
    from nr_agent.settings import Settings, load_settings  # noqa: PLC0415 - keeps --help quick

    settings = Settings.model_construct()  # where those of the environment cannot be read

    def read() -> list[Finding]:
        nonlocal settings
        settings = load_settings()
        return []

    unread = _try("settings", read)
    findings = [
        Finding("python", "ok", platform.python_version()),
        *(_package(name) for name in _PACKAGES),
        *unread,
        Finding("sqlite", "ok", sqlite3.sqlite_version),
        *_try("device", _device),
        *_try("model", lambda: _model(model or settings.model)),
        *_try("store", lambda: _store(store or settings.store_url)),
    ]
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings], indent=1))
    else:
        for finding in findings:
            typer.echo(f"{_MARKS[finding.state]} {finding.what:15} {sanitise(finding.detail)}")
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


def _package(name: str) -> Finding:
    try:
        return Finding(name, "ok", version(name))
    except PackageNotFoundError:
        return Finding(name, "fail", f"not installed; pip install {name}")


def _device() -> list[Finding]:
    import torch  # noqa: PLC0415 - slow to import

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    threads = f"{torch.get_num_threads()} threads"
    if accelerator is not None:
        return [Finding("device", "ok", f"{accelerator.type}, {threads}")]
    if shutil.which("nvidia-smi"):
        unused = f"cpu, {threads}; a GPU may be there that this build of torch cannot use: install torch for CUDA"
        return [Finding("device", "warn", unused)]
    return [Finding("device", "ok", f"cpu, {threads}")]


def _model(name: str) -> list[Finding]:
    from nr_agent.models.registry import load_engine  # noqa: PLC0415 - keeps --help quick

    folder = prepare(name)
    engine = load_engine(name)
    try:
        told = f"{name} in {folder}, fingerprint {engine.fingerprint}, context {engine.capabilities.context}"
        return [
            Finding("model", "ok", told),
            _control_tokens(engine),
            *_try("detector", lambda: _detector(name, engine)),
        ]
    finally:
        engine.shutdown()


def _control_tokens(engine: TorchEngine) -> Finding:
    from nr_agent.tokens import CORRECTION_TOKENS, END_THINK, THINK  # noqa: PLC0415 - beside its use

    ids = {token: engine.codec.control(token) for token in (THINK, END_THINK, *CORRECTION_TOKENS)}
    missing = [token for token, identifier in ids.items() if identifier is None]
    if missing:
        return Finding("control tokens", "warn", f"without {', '.join(missing)}: remedies are plain words")
    return Finding("control tokens", "ok", ", ".join(f"{token} {identifier}" for token, identifier in ids.items()))


def _detector(name: str, engine: TorchEngine) -> list[Finding]:
    from nr_agent.models.registry import (  # noqa: PLC0415 - imports torch
        has_detector,
        load_detector,
        own_detector,
        to_fit,
    )

    if not has_detector(name):
        remedy = f"solve with --no-control, or {to_fit(name, own_detector(name))}"
        return [Finding("detector", "warn", f"{name} has none; {remedy}")]
    return [Finding("detector", "ok", f"{load_detector(name, engine).id}, fitted on this model")]


def _store(where: str) -> list[Finding]:
    from nr_agent.store import EpisodeStore  # noqa: PLC0415 - imports SQLAlchemy

    with EpisodeStore(where) as store:
        place = store.location
    if not Path(place).exists():
        return [Finding("store", "ok", place)]
    free = shutil.disk_usage(place).free
    room = f"{place}, {free / _ROOM:.1f} GiB free"
    return [
        Finding("store", "ok", room) if free >= _ROOM else Finding("store", "warn", f"{room}; make room on the disk")
    ]


def _try(what: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    """What is found, or why nothing could be: whatever is broken is to be told, not to end the looking."""
    try:
        return look()
    except NRAgentError as error:
        return [Finding(what, "fail", str(error).replace("\n  ", "; "))]
    except Exception as error:
        return [Finding(what, "fail", one_line(f"{type(error).__name__}: {error}", _SHOWN))]
