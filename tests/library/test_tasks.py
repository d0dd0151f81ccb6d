import pytest

from nr_agent.errors import TaskError
from nr_agent.tasks import FAMILIES, RESERVED_FROM, TRAINING_SEEDS, draw, family_names, held_out, score


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_gives_the_same_problem_always(family):
    assert draw(family, 1_000_007) == draw(family, 1_000_007)
    assert len({draw(family, seed).text for seed in range(1_000_000, 1_000_030)}) > 25


@pytest.mark.parametrize("family", FAMILIES)
def test_the_reference_answer_scores_and_another_does_not(family):
    problem = draw(family, 1_000_011)
    assert score(problem, problem.reference)
    assert not score(problem, "-77777")
    assert not score(problem, None)


def test_training_stays_below_the_reserved_seeds():
    assert TRAINING_SEEDS.stop <= RESERVED_FROM


def test_some_texts_are_held_out_from_training_and_most_are_not():
    share = sum(held_out(draw("chain_sum", seed).text) for seed in range(800)) / 800
    assert 0.08 < share < 0.18


@pytest.mark.parametrize("hostile", ["__import__('os').system('x')", "9**9**9**9", "1//0", "(1).__class__", "1+" * 300])
def test_scorers_that_evaluate_never_see_more_than_arithmetic(hostile, monkeypatch):
    problem = draw("countdown", 1_000_001)
    import reasoning_gym.games.countdown as scorer

    monkeypatch.setattr(scorer, "parse_expr", lambda text: pytest.fail(f"evaluated {text!r}"))
    assert not score(problem, hostile)


def test_an_unknown_task_names_the_known_ones():
    with pytest.raises(TaskError, match="chain_sum"):
        family_names("chain_sum,astrology")
    with pytest.raises(TaskError):
        draw("astrology", 0)


def test_a_family_that_is_named_twice_is_drawn_from_once():
    assert family_names("gcd, chain_sum,gcd") == ["gcd", "chain_sum"]
    assert family_names() == list(FAMILIES)
