"""What an export would hold: tokens coloured by whether they are trained, and pairs side by side."""

from __future__ import annotations

import itertools
import json
import sys
from typing import TYPE_CHECKING, Any, Final

from nr_agent.cli._output import sanitise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from nr_agent.engine.protocol import TextCodec
    from nr_agent.episode import Episode
    from nr_agent.export.rows import Row
    from nr_agent.store import EpisodeStore

_MOST = 2000
_STYLES: Final = {"train": "green", "mask": "bright_black", "remove": "red strike"}
_PAIR: Final = {"prompt": "bright_black", "chosen": "green", "rejected": "red"}


def show(
    store: EpisodeStore, count: int, wanted: Any, codec: TextCodec | None, *, format: Any, mask: Any, outcome: Any
) -> int:
    """Print the first episodes of an export with what the mask does to them, in words and in colours; their number."""
    from nr_agent.export.formats import UNTRAINED, build_rows  # noqa: PLC0415 - keeps --help quick
    from nr_agent.export.manifest import describe_mask  # noqa: PLC0415
    from nr_agent.export.rows import Refused  # noqa: PLC0415
    from nr_agent.export.selection import check_choices, select_episodes  # noqa: PLC0415

    check_choices(format, mask, outcome)
    console, shown = _console(), 0
    for episode in itertools.islice(select_episodes(store, outcome, wanted), count):
        if not shown:
            _line(console, f"mask {mask}: {describe_mask(format, mask)}", "bold")
        shown += 1
        _line(console, f"== {sanitise(episode.id)}", "bold")
        try:
            rows = build_rows(episode, format, mask, codec)
        except Refused as reason:
            _line(console, f"left out: {reason}", "bright_black")
            continue
        if format == "preference" or format in UNTRAINED:
            _rows(console, rows)
        else:
            # A message has no mask inside: what is in it is trained.
            _spans(console, episode, codec, mask, said=format == "messages")
    return shown


def _spans(console: Console, episode: Episode, codec: TextCodec | None, mask: Any, *, said: bool) -> None:
    from nr_agent.export.masks import spans  # noqa: PLC0415 - keeps --help quick
    from nr_agent.export.rows import Refused, closes_by, span_text  # noqa: PLC0415

    for span in spans(episode, mask, closes=closes_by(codec)):
        try:
            text = span_text(span, codec)
        except Refused:  # a row that is not cut needs no tokenizer; only this view would
            text = None
        if text is None:
            text = f"{len(span.ids)} tokens of: {span.step.text}"
        treatment = span.treatment
        if said and treatment == "mask" and span.step.kind != "prompt":
            treatment = "train"
        note = " failed" if span.failed else ""
        head = f"{treatment:6} {span.step.index:>3} {span.provenance}{note} ({len(span.ids)}): "
        _line(console, head, "", _shown(text), _STYLES[treatment])


def _rows(console: Console, rows: Sequence[Row]) -> None:
    for row in rows:
        for name, value in row.fields.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            _line(console, f"{name:8} ", "", _shown(text), _PAIR.get(name, ""))


def _shown(text: str) -> str:
    cut = text if len(text) <= _MOST else text[: _MOST - 1] + "\u2026"
    return sanitise(cut).replace("\n", "\\n")


def _line(console: Console, head: str, style: str, text: str = "", text_style: str = "") -> None:
    from rich.text import Text  # noqa: PLC0415 - keeps --help quick

    console.print(Text.assemble((head, style), (text, text_style)), soft_wrap=True)


def _console() -> Console:
    from rich.console import Console  # noqa: PLC0415 - keeps --help quick

    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
