"""What a level's detector looks at, and when it speaks."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from nr_agent.detection.features import FeatureFamily
from nr_agent.detection.views import Unit, View
from nr_agent.errors import DetectorError
from nr_agent.events import Level

POINTS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
"""Shares of disturbed good traces that a policy may ask for instead of the detector's own."""


class LevelSettings(BaseModel):
    """What a level's detector looks at, and when it speaks.

    Attributes:
        level: the failure level.
        families: feature families, in order.
        unit: whether the classifier is given statistics over the step, or each token.
        threshold: calibrated; None where it may never speak (too little to calibrate on).
        alpha: share of good traces that the threshold allows to be disturbed.
        points: other shares, rising, and the threshold of each, for policies whose remedy is cheap or dear.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: Level
    families: tuple[FeatureFamily, ...]
    unit: Unit = "step"
    threshold: float | None
    alpha: float
    points: tuple[tuple[float, float], ...] = ()

    def at(self, alpha: float) -> LevelSettings:
        """The same level where another share of good traces may be disturbed: the next lower one that is known.

        Where what it was fitted on allows no threshold for so small a share, it stays silent.

        Raises:
            DetectorError: no share that is as low is ever calibrated.
        """
        own = () if self.threshold is None else ((self.alpha, self.threshold),)
        known = sorted(point for point in (*self.points, *own) if point[0] <= alpha + 1e-9)
        if not known and alpha < min(POINTS) - 1e-9:
            raise DetectorError(
                f"{self.level}: alarms in {alpha:g} of the good traces were asked for",
                hint=f"shares from {min(POINTS):g} on are calibrated",
            )
        if not known:
            return self.model_copy(update={"alpha": alpha, "threshold": None})
        return self.model_copy(update={"alpha": known[-1][0], "threshold": known[-1][1]})

    @property
    def view(self) -> View:
        """What its classifier is given."""
        return View(self.families, self.unit)
