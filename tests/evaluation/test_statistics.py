import pytest

from nr_agent.evaluation.statistics import mcnemar, paired_bootstrap, wilson


def test_mcnemar_is_the_exact_binomial_test():
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == 1
    assert mcnemar(10, 0) == pytest.approx(2 / 1024)
    assert mcnemar(3, 9) == mcnemar(9, 3)


def test_wilson_holds_the_share_and_stays_a_share():
    low, high = wilson(9, 10)
    assert 0 <= low < 0.9 < high <= 1
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_bootstrap_interval_holds_a_clear_difference_and_zero_where_there_is_none():
    low, high = paired_bootstrap([0.0] * 50, [1.0] * 40 + [0.0] * 10)
    assert 0.6 < low < 0.8 < high < 0.95
    low, high = paired_bootstrap([0.0, 1.0] * 40, [1.0, 0.0] * 40)
    assert low < 0 < high
