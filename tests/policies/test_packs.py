"""Packs: what is shipped, what a file may say, and what is said about a file that is wrong."""

from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint, EntryPoints
from typing import Literal

import pytest
from policies_helpers import kinds, seen
from pydantic import BaseModel

from nr_agent.actions import AskHuman, Continue, Recheck
from nr_agent.errors import ConfigurationError, PolicyError
from nr_agent.events import LEVELS
from nr_agent.policies import (
    Policies,
    RunTestsPolicy,
    load_policies,
    pack_names,
    plugins,
)
from nr_agent.policies.checking import read_pack
from nr_agent.policies.composition import ADDRESSES
from nr_agent.policies.loading import FOLDER
from nr_agent.policies.pack_file import schema

PASSES = "```python\nprint(1 + 1)\n```"


@pytest.mark.parametrize("name", ["code", "default", "finance", "math", "medicine"])
def test_shipped_pack_is_named_as_its_file_covers_every_level_and_gives_its_reasons(name):
    pack, faults = read_pack(FOLDER / f"{name}.yaml")
    assert not faults
    assert pack.name == name and pack.about
    assert set(pack.on) >= set(LEVELS)
    assert all(len(rule.reason) > 20 for rules in pack.rules().values() for rule in rules)
    assert name in pack_names() and load_policies(name).name == name


def test_published_schema_is_the_models():
    assert json.loads((FOLDER / "schema.json").read_text()) == schema()
    assert schema()["properties"]["on"]["propertyNames"]["enum"] == list(ADDRESSES)


@pytest.mark.parametrize("name", ["medicine", "finance"])
def test_where_it_matters_a_stop_needs_more_certainty_and_a_doubtful_answer_goes_to_a_person(name):
    pack = load_policies(name)
    stated = {"answer_stated": True, "steps": 9}
    assert kinds(load_policies("default"), seen("instance", score=0.9, **stated)) == "stop"
    assert kinds(pack, seen("instance", score=0.9, **stated)) == "continue"
    assert kinds(pack, seen("instance", score=0.99, **stated)) == "stop"
    for kind in ("calculation", "derivation"):
        assert kinds(pack, seen("intra_step", score=0.97, kind=kind)) == "recheck"
        assert kinds(pack, seen("intra_step", score=0.97, kind=kind, **stated)) == "ask_human"


@pytest.mark.parametrize(
    ("sandbox", "text", "action"),
    [
        (None, PASSES, Recheck()),
        ("yes", PASSES, Continue()),
        ("yes", "no program", Recheck()),
        ("yes", "```python\nprint(1 / 0)\n```", Recheck()),
        ("yes", "```\nwhile True: pass\n```", Recheck()),
        ("yes", "```python\ndef f(): return 2\n```", Recheck()),
    ],
)
def test_program_is_run_only_in_a_sandbox_and_rechecked_where_it_fails(sandbox, text, action, monkeypatch):
    if sandbox:
        monkeypatch.setenv("NR_AGENT_SANDBOX", f"{sys.executable} -")
    context = seen("intra_step", text=text, metadata={"tests": "assert 'f' not in dir() or f() == 3"})
    assert RunTestsPolicy(seconds=2).decide(context) == action


def test_program_of_a_model_is_not_run_without_a_sandbox(tmp_path):
    trace = tmp_path / "it ran"
    text = f"```python\nopen({str(trace)!r}, 'w')\n```"
    assert load_policies("code").decide([seen("intra_step", text=text)]).action == Recheck()
    assert not trace.exists()


def test_sandbox_that_cannot_be_started_is_told(monkeypatch):
    monkeypatch.setenv("NR_AGENT_SANDBOX", "no-such-sandbox --now")
    with pytest.raises(ConfigurationError, match=r"no-such-sandbox(.|\n)*NR_AGENT_SANDBOX"):
        RunTestsPolicy().decide(seen("intra_step", text=PASSES))


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
        ("name: x\nonn: {}\non: {}", r"onn(.|\n)*allowed: name, about, max_interventions, refractory, alarms, on"),
        ("name: x\non: {intra: {policy: {name: recheck}}}", r"'intra'(.|\n)*allowed: intra_step, inter_step"),
        ("name: x\non: {instance: {policy: {name: early_stop}, min_score: 3}}", r"min_score(.|\n)*got 3"),
        ("name: x\nalarms: {intra_step: 1.5}\non: {}", r"alarms\.intra_step(.|\n)*got 1\.5"),
        ("name: x\nalarms: {slips: 0.1}\non: {}", r"alarms(.|\n)*intra_step"),
        (
            "name: x\non:\n  intra_step: {policy: {name: recheck, escalate: true}}",
            r":2: on: (.|\n)*refractory of 1(.|\n)*`refractory: 0`",
        ),
        ("- a", "valid dictionary"),
        ("name: [", "cannot be read"),
        (
            "name: x\non:\n  instance: {policy: {name: early_stop}, min_score: 0.5, max_score: 0.5}",
            ":3: (.|\n)*no score",
        ),
        ("name: x\non:\n  instance: []", r":3: on\.instance: (.|\n)*at least 1"),
        ("name: x\non:\n  instance:\n  - {policy: {name: recheck}}\n  - {pol: 1}", r":5: on\.instance\.1\.pol"),
        (
            "name: x\non:\n  instance: {policy: {name: recheck}}\n  instance: {policy: {name: branch}}",
            ":4: (.|\n)*twice",
        ),
        ("name: !!python/object:os.system {}\non: {}", "cannot be read"),
        ("name: !!timestamp 2026-02-30\non: {}", "cannot be read"),
        ("name: !!int ten\non: {}", "cannot be read"),
    ],
)
def test_fault_in_a_pack_names_file_key_and_what_is_allowed(text, complaint, tmp_path):
    pack = tmp_path / "broken.yaml"
    pack.write_text(text)
    with pytest.raises(PolicyError, match=complaint) as caught:
        load_policies(pack)
    assert str(pack) in str(caught.value)


@pytest.mark.parametrize("day", ["2026-11-28", "2026-02-30", "2026-13-01", "2026-11-28 12:30:00"])
def test_what_looks_like_a_day_is_text_whether_there_is_such_a_day_or_not(day, tmp_path):
    file = tmp_path / "days.yaml"
    file.write_text(f"name: {day}\nabout: {day}\non: {{instance: {{policy: {{name: early_stop}}}}}}\n")
    pack, faults = read_pack(file)
    assert not faults and (pack.name, pack.about) == (day, day)
    assert load_policies(file).name == day


def test_unknown_pack_suggests_a_name():
    with pytest.raises(PolicyError, match="did you mean 'math'"):
        load_policies("maths")


def test_every_fault_is_found_with_its_line(tmp_path):
    pack = tmp_path / "broken.yaml"
    pack.write_text(
        "name: x\nrefractory: -1\non:\n  intra: {policy: {name: recheck}}\n"
        "  instance:\n    - policy: {name: early_stop, steps: 3}\n    - min_score: 2\n"
    )
    pack, faults = read_pack(pack)
    assert pack is None
    assert [(fault.line, fault.key) for fault in faults] == [
        (2, "refractory"),
        (4, "on.intra"),
        (6, "on.instance.0.policy.steps"),
        (7, "on.instance.1.min_score"),
        (7, "on.instance.1.policy"),
    ]
    assert all(fault.message and fault.hint for fault in faults)
    assert faults[2].hint == "allowed: name, require_answer, min_steps"


class Shout(BaseModel):
    name: Literal["shout"] = "shout"
    words: str = "Hey"

    def decide(self, context):
        return AskHuman(question=self.words)


MADE = Policies({"intra_step": Shout()}, name="made")


def made():
    return MADE


BROKEN = 3


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Entry points as an installed package would bring them."""
    (tmp_path / "filed.yaml").write_text("name: filed\non: {intra_step: {policy: {name: shout, words: Ho}}}")
    monkeypatch.setattr(f"{__name__}.FILED", tmp_path / "filed.yaml", raising=False)
    points = EntryPoints(
        EntryPoint(name, f"{__name__}:{value}", plugins.GROUP)
        for name, value in {
            "shout": "Shout",
            "made": "made",
            "ready": "MADE",
            "filed": "FILED",
            "broken": "BROKEN",
            "gone": "nothing.there",
        }.items()
    )
    monkeypatch.setattr(plugins, "entry_points", lambda **wanted: points.select(**wanted))
    return tmp_path


def test_installed_package_adds_packs_and_policies(installed):
    assert load_policies("made") is MADE and load_policies("ready") is MADE
    assert load_policies("filed").decide([seen("intra_step")]).action == AskHuman(question="Ho")
    mine = installed / "mine.yaml"
    mine.write_text("name: x\non: {instance: {policy: {name: shout, words: [Ho]}}}")
    with pytest.raises(PolicyError, match=r"on\.instance\.policy\.words"):
        load_policies(mine)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("broken", "is 3(.|\n)*it must be"),
        ("gone", "cannot be loaded(.|\n)*uninstall"),
        ("shout", "is a policy, not a pack"),
    ],
)
def test_what_an_installed_package_gets_wrong_is_told_with_its_name(installed, name, complaint):
    with pytest.raises(PolicyError, match=complaint):
        load_policies(name)
