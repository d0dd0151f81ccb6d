"""What to do about a failure event: the remedies, how they are composed, and packs of them for domains."""

from nr_agent.policies.ask_human import AskHumanPolicy
from nr_agent.policies.branch import BranchPolicy
from nr_agent.policies.composition import Decision, Policies, Rule, Rules
from nr_agent.policies.early_stop import EarlyStopPolicy
from nr_agent.policies.loading import load_policies, pack_names
from nr_agent.policies.outcome import recheck_outcome
from nr_agent.policies.protocol import Policy, PolicyContext
from nr_agent.policies.recheck import RecheckPolicy
from nr_agent.policies.remedies import Remedies, choose_mode
from nr_agent.policies.replay import Point, Replay, replay
from nr_agent.policies.run_tests import RunTestsPolicy

__all__ = [
    "AskHumanPolicy",
    "BranchPolicy",
    "Decision",
    "EarlyStopPolicy",
    "Point",
    "Policies",
    "Policy",
    "PolicyContext",
    "RecheckPolicy",
    "Remedies",
    "Replay",
    "Rule",
    "Rules",
    "RunTestsPolicy",
    "choose_mode",
    "load_policies",
    "pack_names",
    "recheck_outcome",
    "replay",
]
