"""The composition: who decides, how often, in which order."""

from __future__ import annotations

import dataclasses

import pytest
from policies_helpers import kinds, seen

from nr_agent.actions import AskHuman, Branch, Continue, Recheck, Stop
from nr_agent.errors import PolicyError
from nr_agent.policies import (
    AskHumanPolicy,
    BranchPolicy,
    EarlyStopPolicy,
    Policies,
    RecheckPolicy,
    Rule,
)


@pytest.fixture
def default() -> Policies:
    return Policies({"intra_step": RecheckPolicy(), "inter_step": BranchPolicy(), "instance": EarlyStopPolicy()})


@pytest.mark.parametrize(
    ("levels", "action"),
    [
        (["intra_step"], "recheck"),
        (["inter_step"], "branch"),
        (["instance"], "stop"),
        (["intra_step", "instance"], "recheck"),
        (["instance", "intra_step", "inter_step"], "recheck"),
        (["inter_step", "instance"], "stop"),
        (["inter_step", "intra_step"], "recheck"),
        ([], "continue"),
    ],
)
def test_one_of_several_events_is_acted_upon_in_a_fixed_order(default, levels, action):
    contexts = [seen(level) for level in levels]
    assert kinds(default, *contexts) == kinds(default, *reversed(contexts)) == action


def test_slip_holds_a_stop_back_even_when_it_cannot_be_rechecked(default):
    spent = {"interventions": {"recheck": 3}}
    assert kinds(default, seen("intra_step", **spent), seen("instance", **spent)) == "continue"
    assert kinds(default, seen("instance", **spent)) == "stop"


def test_slip_below_its_minimum_is_let_pass_and_still_holds_a_stop_back():
    policies = Policies({"intra_step": Rule(RecheckPolicy(), min_score=0.8), "instance": EarlyStopPolicy()})
    assert kinds(policies, seen("intra_step", score=0.79), seen("instance")) == "continue"
    assert kinds(policies, seen("intra_step", score=0.8), seen("instance")) == "recheck"
    unheard = dataclasses.replace(policies, on={"instance": EarlyStopPolicy()})
    assert kinds(unheard, seen("intra_step", score=0.79), seen("instance")) == "stop"


@pytest.mark.parametrize(
    ("rollback", "last", "since", "action"),
    [
        (False, None, None, Recheck()),
        (False, "recheck", 1, Branch(width=2, back=2)),
        (True, "recheck", 1, Branch(width=2, back=1)),
        (False, "recheck", 2, Recheck()),
        (False, "branch", 1, Recheck()),
    ],
)
def test_a_recheck_that_is_flagged_itself_is_left_with_the_step_it_did_not_mend(rollback, last, since, action):
    context = seen("intra_step", since_intervention=since, last_intervention=last)
    assert RecheckPolicy(rollback=rollback, escalate=True).decide(context) == action
    assert RecheckPolicy(rollback=rollback).decide(context) == Recheck(rollback=rollback)


def test_an_escalation_that_a_gap_makes_impossible_is_refused():
    rules = {"intra_step": [RecheckPolicy(), Rule(RecheckPolicy(escalate=True), 0.9)]}
    with pytest.raises(PolicyError, match=r"'intra_step'.*refractory=2") as refused:
        Policies(rules, refractory=2)
    assert "refractory=0" in refused.value.hint
    with pytest.raises(PolicyError, match="escalates"):
        dataclasses.replace(Policies(rules, refractory=0), refractory=1)


@pytest.mark.parametrize(
    ("score", "action"), [(0.5, "continue"), (0.6, "recheck"), (0.79, "recheck"), (0.8, "branch"), (1.0, "branch")]
)
def test_bands_hold_their_lower_score_and_not_their_upper(score, action):
    rules = [Rule(RecheckPolicy(), 0.6, 0.8), Rule(BranchPolicy(), 0.8)]
    assert kinds(Policies({"inter_step": rules}), seen("inter_step", score=score)) == action


def test_rule_whose_policy_lets_pass_leaves_the_event_to_the_next():
    policies = Policies({"intra_step": [AskHumanPolicy(require_answer=True), RecheckPolicy()]})
    assert kinds(policies, seen("intra_step")) == "recheck"
    assert kinds(policies, seen("intra_step", answer_stated=True)) == "ask_human"


def test_where_nobody_can_be_asked_the_next_rule_decides():
    policies = Policies({"intra_step": [AskHumanPolicy(), RecheckPolicy()], "instance": AskHumanPolicy()})
    alone = dataclasses.replace(policies, attended=False)
    assert (kinds(policies, seen("intra_step")), kinds(alone, seen("intra_step"))) == ("ask_human", "recheck")
    assert (kinds(policies, seen("instance")), kinds(alone, seen("instance"))) == ("ask_human", "continue")


@pytest.mark.parametrize(
    ("done", "action"), [({}, "recheck"), ({"recheck": 2}, "recheck"), ({"recheck": 2, "branch": 1}, "continue")]
)
def test_interventions_of_an_episode_are_limited(default, done, action):
    assert kinds(default, seen("intra_step", interventions=done)) == action


def test_stops_do_not_count_as_interventions(default):
    assert kinds(default, seen("intra_step", interventions={"recheck": 2, "stop": 1})) == "recheck"


@pytest.mark.parametrize(
    ("gap", "since", "action"),
    [(1, None, "recheck"), (1, 1, "continue"), (1, 2, "recheck"), (0, 1, "recheck"), (3, 3, "continue")],
)
def test_steps_after_an_intervention_are_left_alone(default, gap, since, action):
    policies = dataclasses.replace(default, refractory=gap)
    assert kinds(policies, seen("intra_step", since_intervention=since)) == action


def test_rule_of_a_kind_goes_before_its_levels():
    policies = Policies({"intra_step": RecheckPolicy(), "intra_step.derivation": BranchPolicy()})
    assert kinds(policies, seen("intra_step")) == "recheck"
    assert kinds(policies, seen("intra_step", kind="derivation")) == "branch"


def test_decision_names_policy_and_event(default):
    decision = default.decide([seen("inter_step")])
    assert decision.policy == "branch" and decision.event is not None and decision.event.id == "inter_step"
    assert decision.action == Branch(width=2, back=1)


def test_early_stop_waits_for_what_it_requires():
    policy = EarlyStopPolicy(require_answer=True, min_steps=4)
    assert policy.decide(seen("instance")) == Continue()
    assert policy.decide(seen("instance", answer_stated=True)) == Stop(reason="overthinking")
    early = dataclasses.replace(seen("instance", answer_stated=True), steps=3)
    assert policy.decide(early) == Continue()


def test_remedies_of_policies_carry_their_settings():
    assert RecheckPolicy(rollback=True).decide(seen("intra_step")) == Recheck(rollback=True)
    action = AskHumanPolicy(question="{kind}/{level}/{step}/{score}/{other}").decide(seen("intra_step"))
    assert action == AskHuman(question="calculation/intra_step/4/0.90/{other}")


@pytest.mark.parametrize("rule", [object(), "recheck", RecheckPolicy])
def test_what_is_no_policy_is_refused_at_once(rule):
    for given in (rule, [RecheckPolicy(), rule]):
        with pytest.raises(PolicyError, match="no policy") as caught:
            Policies({"intra_step": given})
        assert repr(rule) in str(caught.value)


class Shrug:
    """A policy that is no pydantic model."""

    name = "shrug"

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def decide(self, context) -> Continue:
        return Continue()


def test_fingerprint_is_of_what_is_decided_and_not_of_what_is_said(default):
    same = Policies(
        {
            "instance": Rule(EarlyStopPolicy(), reason="why not"),
            "intra_step": [RecheckPolicy()],
            "inter_step": BranchPolicy(),
        },
        name="another",
    )
    assert same.fingerprint == default.fingerprint
    others = [
        default,
        Policies({**default.on, "intra_step": RecheckPolicy(rollback=True)}),
        Policies({**default.on, "instance": Rule(EarlyStopPolicy(), min_score=0.9)}),
        Policies({**default.on, "instance": Shrug(1)}),
        Policies({**default.on, "instance": Shrug(2)}),
        dataclasses.replace(default, refractory=2),
        dataclasses.replace(default, alarms={"intra_step": 0.2}),
    ]
    assert len({policies.fingerprint for policies in others}) == len(others)
    assert Policies({"instance": Shrug(1)}).fingerprint == Policies({"instance": Shrug(1)}).fingerprint
