"""Exports: episodes as training data."""

from nr_agent.export.formats import FORMATS, Format
from nr_agent.export.manifest import Manifest
from nr_agent.export.masks import MASKS, Mask
from nr_agent.export.selection import OUTCOMES, Outcome
from nr_agent.export.verifying import Verification, verify
from nr_agent.export.writing import export

__all__ = ["FORMATS", "MASKS", "OUTCOMES", "Format", "Manifest", "Mask", "Outcome", "Verification", "export", "verify"]
