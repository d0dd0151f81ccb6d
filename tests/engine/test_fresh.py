"""What the forks of a branch are kept from writing again."""

import math

import pytest

from nr_agent.engine.fresh import SHORTEST, pieces
from nr_agent.engine.protocol import Sampling


def step(ids, probabilities):
    return ids, [None if p is None else math.log(p) for p in probabilities]


@pytest.mark.parametrize(
    ("ids", "probabilities", "piece"),
    [
        ([1, 2, 3, 4, 5, 6], [0.5, 0.6, 1, 0.4, 1, 1], [2, 3, 4]),  # up to the last choice, without the first id
        ([1, 2, 3, 4, 5, 6], [None, None, 1, 1, 0.89, 1], [2, 3, 4, 5]),
        ([1, 2, 3, 4, 5, 6], [0.5, 0.6, 0.7, 1, 1, 1], None),  # too little of it is left
        ([1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 0.95, 1], None),  # nothing to choose
        ([1, 2, 3, 4], [None] * 4, None),
    ],
)
def test_a_piece_ends_at_the_last_choice(ids, probabilities, piece):
    assert pieces([step(ids, probabilities)]) == ([] if piece is None else [piece])


def test_no_piece_comes_twice_and_old_steps_are_let_go():
    same = step([1, 2, 3, 4, 5], [1, 1, 1, 0.5, 1])
    assert pieces([same, same]) == [[2, 3, 4]]
    many = [step([1, 2, 3, 100 + n, 5], [1, 1, 1, 0.5, 1]) for n in range(100)]
    assert pieces(many) == [[2, 3, 100 + n] for n in range(68, 100)]
    assert SHORTEST == 3
    assert Sampling(avoid=pieces(many)).avoid[0] == (2, 3, 168)
