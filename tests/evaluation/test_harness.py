"""Arms as they are run: many problems at once, each to its own end, and none twice."""

from __future__ import annotations

import json

import pytest

from nr_agent.episode import Problem
from nr_agent.errors import ConfigurationError
from nr_agent.evaluation.harness import graph_arm, run_arms
from nr_agent.graphs import create_reasoner
from nr_agent.tasks import draw, held_out
from nr_agent.testing import ScriptedEngine


def test_long_thinking_is_not_cut_at_the_steps_that_langgraph_allows_by_default():
    engine = ScriptedEngine(lambda text: None if text.count("step") == 60 else "step")
    arm = graph_arm(lambda: create_reasoner(engine, detector=None, control=False))
    problems = [(Problem(text="What?", reference="42"), number) for number in range(3)]
    reports = arm(problems, lambda _: None)
    assert [report["stop_reason"] for report in reports] == ["finished"] * 3
    assert all(report["steps"] >= 60 and report["answer"] == "42" for report in reports)


def solver(asked):
    """An arm that notes which seeds it is asked for, and answers as the reference says."""

    def solve(problems, _):
        asked.extend(seed for _, seed in problems)
        return [
            {
                "answer": problem.reference,
                "usage": {"output": 10},
                "interventions": [{"kind": "recheck"}],
                "stop_reason": "finished",
                "episode_id": f"e{seed}",
                "steps": 4,
            }
            for problem, seed in problems
        ]

    return solve


def bench(out, n, *, seed=1_500_000, about=None):
    asked = []
    results = run_arms({"nr_agent": solver(asked)}, ["gcd"], n=n, seed=seed, out=out, about=about or {"model": "nano"})
    return asked, results


def test_only_problems_that_have_no_row_are_run(tmp_path):
    assert bench(tmp_path, 2)[0] == [1_500_000, 1_500_001]
    assert bench(tmp_path, 4)[0] == [1_500_002, 1_500_003]
    for n in (2, 3, 4):  # a folder that holds more, or held less, gives what was asked for
        asked, results = bench(tmp_path, n)
        assert asked == [] and results["arms"]["nr_agent"]["n"] == n
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 4


def test_a_row_that_was_cut_off_is_run_again(tmp_path):
    bench(tmp_path, 3)
    rows = tmp_path / "rows.jsonl"
    whole = rows.read_text()
    rows.write_text(whole[:-40])
    assert bench(tmp_path, 3)[0] == [1_500_002]
    assert rows.read_text() == whole


def test_a_line_within_the_rows_that_is_none_is_refused(tmp_path):
    bench(tmp_path, 2)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{'arm'\n" + rows.read_text())
    with pytest.raises(ConfigurationError, match=r"line 1 of .* is no row"):
        bench(tmp_path, 2)


def test_of_rows_of_the_same_problem_the_last_counts(tmp_path):
    bench(tmp_path, 2)
    rows = tmp_path / "rows.jsonl"
    first = json.loads(rows.read_text().splitlines()[0])
    with rows.open("a") as file:
        file.write(json.dumps({**first, "right": False}) + "\n")
    asked, results = bench(tmp_path, 2)
    assert asked == [] and results["arms"]["nr_agent"]["accuracy"] == 0.5


def test_rows_of_other_settings_are_refused(tmp_path):
    bench(tmp_path, 2, about={"model": "nano", "detector": None})
    before = (tmp_path / "rows.jsonl").read_text()
    with pytest.raises(ConfigurationError, match=r"other settings: model 'nano' there and 'mini' here\n.*--out"):
        bench(tmp_path, 2, about={"model": "mini", "detector": "d-1"})
    assert bench(tmp_path, 2, about={"model": "nano", "detector": "d-1"})[0] == []  # what was not used fits
    with pytest.raises(ConfigurationError, match="detector 'd-1' there and 'd-2' here"):
        bench(tmp_path, 2, about={"model": "nano", "detector": "d-2"})
    assert (tmp_path / "rows.jsonl").read_text() == before


def test_rows_of_nobody_knows_which_settings_are_refused(tmp_path):
    bench(tmp_path, 2)
    (tmp_path / "settings.json").unlink()
    with pytest.raises(ConfigurationError, match=r"holds rows.jsonl, and settings.json.* cannot be read"):
        bench(tmp_path, 2)


def test_settings_without_results_bind_nobody(tmp_path):
    (tmp_path / "settings.json").write_text('{"model": "mini"}')
    assert bench(tmp_path, 1)[0] == [1_500_000]
    assert json.loads((tmp_path / "settings.json").read_text()) == {"model": "nano"}


@pytest.mark.parametrize(
    ("seed", "training", "reserved"),
    [(500_000, True, False), (999_999, True, False), (1_000_000, False, False), (8_999_999, False, True)],
)
def test_results_say_whether_their_seeds_are_for_training_or_reserved(seed, training, reserved, tmp_path):
    _, results = bench(tmp_path, 2, seed=seed)
    assert (results["training_seeds"], results["reserved_seeds"]) == (training, reserved)
    assert json.loads((tmp_path / "results.json").read_text())["training_seeds"] is training


def test_texts_that_no_model_was_trained_on_are_told_apart(tmp_path):
    _, results = bench(tmp_path, 24)
    unseen = [seed for seed in range(1_500_000, 1_500_024) if held_out(draw("gcd", seed).text)]
    assert 0 < len(unseen) < 24
    assert results["unseen_texts"]["nr_agent"]["n"] == len(unseen)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    right = sum(row["right"] for row in rows if row["seed"] in unseen and row["arm"] == "nr_agent")
    assert results["unseen_texts"]["nr_agent"]["accuracy"] == right / len(unseen)


def test_results_say_how_often_an_arm_intervened(tmp_path):
    summary = bench(tmp_path, 2)[1]["arms"]["nr_agent"]
    assert (summary["steps"], summary["interventions"]) == (4, {"recheck": 1})
    assert summary["interventions_a_step"] == summary["tasks"]["gcd"]["interventions_a_step"] == {"recheck": 0.25}
