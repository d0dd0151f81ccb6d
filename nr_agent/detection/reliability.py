"""A reliability plot as a small SVG: what the scores promise, and how often it is true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_SIDE = 240
_LEFT = 46
_TOP = 34
_COLOURS = ("#1b6ca8", "#b3531f", "#3a7d44", "#7a4fa3")


def reliability_svg(levels: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The plot.

    Args:
        levels: for each level its bins, with `score`, `share` and `n` (see `metrics.reliability`).

    Returns:
        An SVG: a line a level, a dot a bin, larger where it holds more steps; on the diagonal a score is as often
        right as it says.
    """
    width, height = _LEFT + _SIDE + 150, _TOP + _SIDE + 44
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="18" font-size="13">Share of failing steps by score, test problems</text>',
        f'<rect x="{_LEFT}" y="{_TOP}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#888888"/>',
        f'<path d="M{_at(0, 0)} L{_at(1, 1)}" stroke="#bbbbbb" stroke-dasharray="4 3"/>',
    ]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = _at(tick, tick).split(",")
        parts.append(f'<text x="{x}" y="{_TOP + _SIDE + 15}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text x="{_LEFT - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    parts.append(f'<text x="{_LEFT + _SIDE / 2}" y="{height - 10}" text-anchor="middle">score</text>')
    for number, (name, bins) in enumerate(levels.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        points = [_at(one["score"], one["share"]) for one in bins]
        if points:
            parts.append(f'<path d="M{" L".join(points)}" fill="none" stroke="{colour}"/>')
        most = max((one["n"] for one in bins), default=1)
        for one, point in zip(bins, points, strict=True):
            x, y = point.split(",")
            radius = 2 + 4 * (one["n"] / most) ** 0.5
            parts.append(
                f'<circle cx="{x}" cy="{y}" r="{radius:.1f}" fill="{colour}" fill-opacity="0.7">'
                f"<title>{one['n']} steps: score {one['score']:.2f}, failing {one['share']:.0%}</title></circle>"
            )
        y_key = _TOP + 14 + 18 * number
        parts.append(f'<rect x="{_LEFT + _SIDE + 14}" y="{y_key - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{_LEFT + _SIDE + 30}" y="{y_key}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _at(score: float, share: float) -> str:
    return f"{_LEFT + score * _SIDE:.1f},{_TOP + (1 - share) * _SIDE:.1f}"
