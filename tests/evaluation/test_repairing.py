"""What counts as repaired: the step claims something, and what it claims is right."""

from __future__ import annotations

import pytest

from nr_agent.detection.traces import Traced, TracedStep
from nr_agent.engine.protocol import Sampling
from nr_agent.episode import Problem
from nr_agent.evaluation.repairs import STEP_TOKENS, measure_repairs
from nr_agent.graphs import Budget
from nr_agent.testing import ScriptedEngine
from nr_agent.tokens import RECHECK

DIVISOR = "Find the Greatest Common Divisor (GCD) of these numbers: 384, 46. Give only the GCD as your final answer."


def measured(slip: str, remedy: str, alone: str = "Hm.") -> dict[str, tuple[float, float]]:
    """What is repaired with each remedy and without it, of one trace whose only step slips."""
    engine = ScriptedEngine(lambda text: remedy if RECHECK in text else alone)
    prompt = engine.codec.render([{"role": "user", "content": DIVISOR}])
    ids = engine.codec.encode(f"{slip}\n\n")
    step = TracedStep(len(prompt), len(prompt) + len(ids), f"{slip}\n\n", [-0.1] * len(ids), [0.1] * len(ids))
    traced = Traced(Problem(text=DIVISOR, task="gcd"), 0, [*prompt, *ids], [step])
    rows = measure_repairs(engine, [traced], sampling=Sampling(temperature=0.0))
    assert engine.open_sequences == 0
    return {row.remedy: (row.repaired, row.without) for row in rows}


@pytest.mark.parametrize(
    ("slip", "remedy", "in_place", "behind"),
    [
        ("46*9=414", "384, 46: 46*8=368", 1, 1),
        ("46*8=358", "4*6=24. So 46*8=368, not what I had", 1, 1),
        ("46*8=358", "So 46*8=358, as I had", 0, 0),
        ("46*8=358", "So the answer is 7.", 0, 0),
        ("46*8=358", "It is what it is.", 0, 0),
        ("46<384: 384, 46: 46*8=358", "384 is 8*48", 0, 0),
        ("384<46: 46, 384: 46-384=-338", "3>0. So 384>46, not what I had", 1, 1),
        ("384<46: 46, 384: 46-384=-338", "384>46: 384, 46: 46*8=368", 1, 1),
        ("384<46: 46, 384: 46-384=-338", "46*8=368", 1, 0),
        ("384<46: 46, 384: 46-384=-338", "3<0. So 384<46, as I had", 0, 0),
    ],
)
def test_a_repair_claims_something_that_holds(slip, remedy, in_place, behind):
    rows = measured(slip, remedy)
    assert rows["recheck in place"] == (in_place, 0)
    assert rows["recheck behind"] == (behind, 0)


def test_beside_it_stands_the_step_drawn_again():
    assert measured("46*8=358", "Hm.", alone="46*8=368")["recheck in place"] == (0, 1)


def test_a_remedy_may_be_as_long_as_a_step_of_a_graph():
    assert Budget().max_step_tokens == STEP_TOKENS
