"""Models on the command line: what `--model` takes, and a bar while one is fetched or converted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nr_agent.models.gguf import Progress

MODEL_HELP = "Name of a model, its Hugging Face folder, or a GGUF file."


def prepare(model: str) -> Path:
    """The folder of a model; a GGUF file is converted first, once, with a bar."""
    from nr_agent.models.registry import find_model  # noqa: PLC0415 - keeps --help quick

    with progress_bar() as tell:
        return find_model(model, tell)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on standard error, from the first stage on that is told; none where nobody looks at a terminal."""
    from rich.console import Console  # noqa: PLC0415 - keeps --help quick
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn  # noqa: PLC0415 - keeps --help quick

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = None

        def tell(stage: str, done: int, total: int) -> None:
            nonlocal task
            if task is None:
                task = progress.add_task(stage)
            # Without a total the bar moves to and fro.
            progress.update(task, description=stage, completed=done, total=total or None)

        yield tell
