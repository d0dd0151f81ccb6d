"""The detector card as files: `card.json` for machines, `card.md` for people, `reliability.svg` for the eye."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from nr_agent.detection.reliability import reliability_svg
from nr_agent.detection.sources import LIMITS

_CONTROLS = {
    "random_channels": "as many random channels",
    "shuffled_labels": "shuffled labels",
    "position_and_length": "position and length",
    "confidence": "confidence alone",
    "text_only": "text only: token ids, logistic",
    "last_layer_probe": "last layer at the step's end, linear",
    "step_statistics_probe": "last layer's statistics over the step, linear",
}


def write_card(out: Path, manifest: Any, card: dict[str, Any]) -> None:
    """Write the card's files."""
    whole = {
        "detector": manifest.id,
        "model": manifest.model,
        "fingerprint": manifest.fingerprint,
        "training": manifest.training,
        **card,
    }
    (out / "card.json").write_text(json.dumps(plain(whole), indent=1, allow_nan=False) + "\n")
    (out / "card.md").write_text("\n".join(_markdown(manifest, card)) + "\n")
    curves = {level: row["reliability"] for level, row in card["levels"].items()}
    (out / "reliability.svg").write_text(reliability_svg(curves))


def plain(value: Any) -> Any:
    """JSON values: what is no number, as where there was nothing to divide by, is null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _markdown(manifest: Any, card: dict[str, Any]) -> list[str]:
    training, levels = manifest.training, card["levels"]
    lines = [
        f"# Detector {manifest.id}",
        "",
        f"Fitted on {manifest.model} (fingerprint {manifest.fingerprint}), {training['traces']} "
        f"{training.get('source', 'traces of its own')}, "
        "split by problem; all figures are of the test problems. Watching costs "
        f"{card['microseconds_per_token']:.0f} microseconds a token besides the model's own time.",
        "",
        *_table(
            ["level", "sees", "steps", "failing", "AUROC", "AP", "FPR at 95% recall", "ECE"],
            [
                [
                    level,
                    ("tokens: " if row["unit"] == "token" else "") + " + ".join(row["families"]),
                    row["n"],
                    row["positives"],
                    *(_number(row[name]) for name in ("auroc", "average_precision", "fpr_at_95_recall", "ece")),
                ]
                for level, row in levels.items()
            ],
        ),
        "## At the threshold",
        "",
        *_table(
            [
                "level",
                "alpha",
                "threshold",
                "recall",
                "good traces disturbed",
                "false alarms a 1,000 tokens",
                "a trace",
                "first-error F1",
                "alarm after",
                "still ahead",
            ],
            [_at_threshold(level, row) for level, row in levels.items()],
        ),
        *_silent(levels),
        "Alpha: share of good traces that may be disturbed, a level.",
        "",
        "In brackets: 95% intervals, with whole traces as what is drawn. First-error F1: the first alarm is at the "
        "first failing step, and there is none in traces without one. Alarm after: medians from the first failing "
        "step to the alarm; still ahead: from the alarm to the end of the thinking.",
        "",
        "![How often the scores are right](reliability.svg)",
        "",
        "## What else was tried, and what has to lose (AUROC / AP)",
        "",
        *_comparison(levels),
        *_ahead(levels),
    ]
    if card.get("left_out"):
        lines += ["## Left out", ""]
        lines += [f"- {level}: {reason}, too few to learn from." for level, reason in card["left_out"].items()]
        lines += ["", "Nothing watches these levels.", ""]
    for level, row in levels.items():
        lines += _transfer(level, row.get("transfer") or {})
    lines += _injected(card.get("injected") or {})
    lines += ["## Labels and their limits", ""]
    for level, source in training["labels"].items():
        lines.append(f"- {level}, by {source.replace('_', ' ')}: {LIMITS[source]}.")
    return lines


def _at_threshold(level: str, row: dict[str, Any]) -> list[Any]:
    alarms, lead = row["false_alarms"], row["lead"]
    low, high = row["false_alarm_traces_interval"]
    late, ahead = lead["delay_steps"], lead["ahead_steps"]
    return [
        level,
        f"{row['alpha']:g}",
        _number(row["threshold"]),
        _number(row["recall"], 2),
        f"{row['false_alarm_traces']:.1%} [{low:.1%}, {high:.1%}]",
        f"{alarms['per_1000_tokens']:.2f} {_interval(alarms['per_1000_tokens_interval'])}",
        f"{alarms['per_trace']:.2f} {_interval(alarms['per_trace_interval'])}",
        _number(row["first_error"]["f1"], 2),
        "-" if late is None else f"{late:g} steps, {lead['delay_tokens']:g} tokens",
        "-" if ahead is None else f"{ahead:g} steps, {lead['ahead_tokens']:g} tokens",
    ]


def _silent(levels: dict[str, Any]) -> list[str]:
    """The levels that have no threshold: their detectors are on the card, and say nothing in use."""
    lines = [f"- {level} {row['silent']}." for level, row in levels.items() if row["silent"] is not None]
    return [*lines, ""] if lines else []


def _comparison(levels: dict[str, Any]) -> list[str]:
    tried = [name for row in levels.values() for name in row["tried"]]
    rows = [[name.replace("+", " + "), *(_pair(row["tried"].get(name)) for row in levels.values())] for name in tried]
    unique = {row[0]: row for row in rows}
    controls = [
        [f"control: {about}", *(_pair(row["controls"].get(name)) for row in levels.values())]
        for name, about in _CONTROLS.items()
    ]
    finding = [["the detector", *(_number(row["first_error_f1"]) for row in levels.values())]]
    finding += [
        [
            f"control: {about}",
            *(_number(row["controls"].get(name, {}).get("first_error_f1")) for row in levels.values()),
        ]
        for name, about in _CONTROLS.items()
    ]
    return [
        *_table(["", *levels], [*unique.values(), *controls]),
        "## First-error F1, at the threshold that is best on held problems",
        "",
        *_table(["", *levels], finding),
    ]


def _ahead(levels: dict[str, Any]) -> list[str]:
    """By how much the detector beats each control, or does not."""
    rows = [
        [about, *(_span(row["controls"].get(name, {}).get("ahead_interval")) for row in levels.values())]
        for name, about in _CONTROLS.items()
    ]
    return [
        "## The detector's AUROC less each control's: 95% intervals, the same traces drawn for both",
        "",
        *_table(["control", *levels], rows),
        "An interval that holds 0 is no lead.",
        "",
    ]


def _span(ends: list[float] | None) -> str:
    if ends is None or not all(map(math.isfinite, ends)):
        return "-"
    return f"{ends[0]:+.3f} to {ends[1]:+.3f}"


def _transfer(level: str, table: dict[str, Any]) -> list[str]:
    if not table:
        return []
    rows = [[source, *(_number(value) for value in targets.values())] for source, targets in table.items()]
    return [
        f"## {level}: the classifier trained on one family, tested on another (AUROC)",
        "",
        "The channels were chosen, and their usual readings measured, on all families.",
        "",
        *_table(["", *table], rows),
    ]


def _injected(rows: dict[str, Any]) -> list[str]:
    if not rows:
        return []
    told = [[name, row["positives"], _pair(row)] for name, row in rows.items()]
    return [
        "## Slips as they were found, and slips put in by hand",
        "",
        *_table(["fitted on to tested on", "failing", "AUROC / AP"], told),
    ]


def _table(head: list[str], rows: list[list[Any]]) -> list[str]:
    lines = [" | ".join(map(str, cells)) for cells in ([head, ["---"] * len(head), *rows])]
    return [*(f"| {line} |" for line in lines), ""]


def _pair(row: dict[str, Any] | None) -> str:
    return "-" if row is None else f"{_number(row['auroc'])} / {_number(row['average_precision'])}"


def _interval(ends: list[float]) -> str:
    return f"[{ends[0]:.2f}, {ends[1]:.2f}]"


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"
