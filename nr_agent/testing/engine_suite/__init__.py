"""The conformance suite of engines: however a sequence is thought, it is the same sequence.

Subclass `EngineConformance` in a test file and give it two fixtures; pytest collects the rest. Name the class
`Test...`: the base is not collected by itself. Runs need a model of a few layers, in float32.
"""

from __future__ import annotations

from nr_agent.testing.engine_suite.base import BOTH, GREEDY, PATIENCE, WARM
from nr_agent.testing.engine_suite.holding import Holding
from nr_agent.testing.engine_suite.reading import Reading
from nr_agent.testing.engine_suite.thinking import Thinking

__all__ = ["BOTH", "GREEDY", "PATIENCE", "WARM", "EngineConformance"]


class EngineConformance(Thinking, Reading, Holding):
    """What every engine keeps. All tests open their own sequences; an engine can be shared by all of them.

    Fixtures to give:
        engine: the engine under test.
        cramped: one of the same model that keeps the cache of two sequences (`Limits(slots=2, chunk=7)`).

    Methods to override: `plan` and `plain_readings`, where the engine reads channels.

    Example:
        >>> @pytest.fixture(scope="module")  # doctest: +SKIP
        ... def engine():
        ...     return MyEngine(...)
        >>> @pytest.fixture(scope="module")  # doctest: +SKIP
        ... def cramped():
        ...     return MyEngine(..., slots=2)
        >>> class TestMyEngine(EngineConformance):  # doctest: +SKIP
        ...     def plan(self, engine):
        ...         return MyPlan(...)
    """
