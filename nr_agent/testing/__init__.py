"""For tests of your own graphs and policies: an engine and a detector that follow a script, without weights."""

from nr_agent.testing.detector import ScriptedDetector
from nr_agent.testing.engine import CharacterCodec, ScriptedEngine

__all__ = ["CharacterCodec", "ScriptedDetector", "ScriptedEngine"]
