"""The composition: who decides, how often, in which order."""

from __future__ import annotations

import dataclasses

import pytest

from nr_agent.actions import AskHuman, Branch, Continue, Recheck, Stop
from nr_agent.errors import PolicyError
from nr_agent.events import FailureEvent
from nr_agent.policies import (
    AskHumanPolicy,
    BranchPolicy,
    EarlyStopPolicy,
    Policies,
    PolicyContext,
    RecheckPolicy,
    Rule,
    load_policies,
    pack_names,
)

KINDS = {"intra_step": "calculation", "inter_step": "stagnation", "instance": "overthinking"}


def seen(level: str, *, score: float = 0.9, kind: str | None = None, **facts) -> PolicyContext:
    event = {"id": level, "level": level, "kind": kind or KINDS[level], "step": 4, "position": 9, "score": score}
    return PolicyContext(
        event=FailureEvent.from_state({**event, "threshold": 0.5, "detector": "d"}), step=4, steps=4, **facts
    )


def kinds(policies: Policies, *contexts: PolicyContext) -> str:
    return policies.decide(contexts).action.type


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


def test_slip_below_its_minimum_holds_nothing_back():
    policies = Policies({"intra_step": Rule(RecheckPolicy(), min_score=0.8), "instance": EarlyStopPolicy()})
    assert kinds(policies, seen("intra_step", score=0.79), seen("instance")) == "stop"
    assert kinds(policies, seen("intra_step", score=0.8), seen("instance")) == "recheck"


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
    with pytest.raises(PolicyError, match="no policy"):
        Policies({"intra_step": rule})


def test_every_shipped_pack_covers_every_level():
    assert {"default", "math"} <= set(pack_names())
    for name in pack_names():
        policies = load_policies(name)
        assert policies.name == name
        assert set(policies.on) >= {"intra_step", "inter_step", "instance"}


@pytest.mark.parametrize("name", ["default", "math"])
def test_packs_stop_only_behind_a_stated_answer_and_branch_only_before_it(name):
    pack = load_policies(name)
    assert kinds(pack, seen("instance")) == "continue"
    assert kinds(pack, seen("instance", answer_stated=True)) == "stop"
    assert kinds(pack, seen("inter_step", score=0.99)) == "branch"
    assert kinds(pack, seen("inter_step", score=0.99, answer_stated=True)) == "continue"


def test_own_pack_is_loaded_by_path(tmp_path):
    pack = tmp_path / "mine.yaml"
    pack.write_text(
        "name: mine\nmax_interventions: 1\non:\n"
        "  intra_step.derivation: {policy: {name: ask_human, question: 'Off?'}, min_score: 0.7}\n"
    )
    policies = load_policies(pack)
    assert (policies.name, policies.max_interventions, policies.refractory) == ("mine", 1, 1)
    assert policies.decide([seen("intra_step", kind="derivation")]).action == AskHuman(question="Off?")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "name: x\non: {intra_step: {policy: {name: rechek}}}",
            r"on\.intra_step\.policy(.|\n)*allowed: 'recheck', 'branch'",
        ),
        (
            "name: x\non: {intra_step: {policy: {name: recheck, rolback: true}}}",
            r"rolback(.|\n)*allowed: name, rollback",
        ),
        ("name: x\nonn: {}\non: {}", r"onn(.|\n)*allowed: name, max_interventions, refractory, on"),
        ("name: x\non: {intra: {policy: {name: recheck}}}", r"'intra'(.|\n)*allowed: intra_step, inter_step"),
        ("name: x\non: {instance: {policy: {name: early_stop}, min_score: 3}}", r"min_score(.|\n)*got 3"),
        ("- a", "valid dictionary"),
        ("name: [", "cannot be read"),
        ("name: !!python/object:os.system {}\non: {}", "cannot be read"),
    ],
)
def test_fault_in_a_pack_names_file_key_and_what_is_allowed(text, complaint, tmp_path):
    pack = tmp_path / "broken.yaml"
    pack.write_text(text)
    with pytest.raises(PolicyError, match=complaint) as caught:
        load_policies(pack)
    assert str(pack) in str(caught.value)


def test_unknown_pack_suggests_a_name():
    with pytest.raises(PolicyError, match="did you mean 'math'"):
        load_policies("maths")
