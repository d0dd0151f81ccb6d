"""Exports: episodes as training data."""

from nr_agent.export.formats import FORMATS, Format
from nr_agent.export.manifest import Manifest
from nr_agent.export.masks import MASKS, Mask
from nr_agent.export.verifying import Verification, verify
from nr_agent.export.writing import Outcome, export

__all__ = ["FORMATS", "MASKS", "Format", "Manifest", "Mask", "Outcome", "Verification", "export", "verify"]
