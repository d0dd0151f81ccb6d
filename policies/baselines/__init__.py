"""Published ways to think, as arms beside ours: on the same graph and engine, with their papers' words and numbers."""

from nr_agent.policies.baselines.answer_convergence import AnswerConvergence
from nr_agent.policies.baselines.deer import Deer
from nr_agent.policies.baselines.dynasor import Dynasor
from nr_agent.policies.baselines.neat import Neat
from nr_agent.policies.baselines.nothinking import NoThinking
from nr_agent.policies.baselines.nowait import NoWait
from nr_agent.policies.baselines.protocol import Baseline, Line, Thought
from nr_agent.policies.baselines.s1 import S1
from nr_agent.policies.baselines.self_consistency import SelfConsistency
from nr_agent.policies.baselines.self_refine import SelfRefine
from nr_agent.policies.baselines.thinkbrake import ThinkBrake
from nr_agent.policies.baselines.vanilla import Vanilla

__all__ = [
    "S1",
    "AnswerConvergence",
    "Baseline",
    "Deer",
    "Dynasor",
    "Line",
    "Neat",
    "NoThinking",
    "NoWait",
    "SelfConsistency",
    "SelfRefine",
    "ThinkBrake",
    "Thought",
    "Vanilla",
]
