"""The teacher: a program that thinks aloud about each family of problems.

Its traces are what the embedded LRM is trained on. They are made as the traces of distilled LRMs are:
steps, rechecks whether or not one is needed, verification passes whose number does not depend on need,
dead ends in a search. They hold no silent errors: a planted slip is always noticed in the next step and
masked from the loss, so the errors that a trained model leaves in its traces are its own.
"""

from nr_agent.training.traces.families import TEACHERS, teach
from nr_agent.training.traces.scratchpad import Habits, Scratchpad, Span, Trace

__all__ = ["TEACHERS", "Habits", "Scratchpad", "Span", "Trace", "teach"]
