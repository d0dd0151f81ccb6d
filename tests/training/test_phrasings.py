import random
import re

import pytest

from nr_agent.tasks import FAMILIES, draw
from nr_agent.training.corpus import Corpus
from nr_agent.training.phrasings import asked_otherwise
from nr_agent.training.tokenizer import train_tokenizer


@pytest.mark.parametrize("family", FAMILIES)
def test_a_problem_in_other_words_has_the_same_numbers_and_words(family):
    rng = random.Random(0)
    asked = {}
    for seed in range(200):
        problem = draw(family, seed)
        head = problem.text.partition("Final answer format")[0].partition("Give only")[0]
        other = asked_otherwise(problem, rng)
        asked.setdefault(re.sub(r"\d+", "n", other), other)
        wanted = re.findall(r'"[^"]*"', head) if family == "letter_counting" else re.findall(r"\d+", head)
        found = re.findall(r'"[^"]*"', other) if family == "letter_counting" else re.findall(r"\d+", other)
        assert sorted(found) == sorted(wanted), other
        assert other != problem.text
        assert not re.search(r"[,:] *\.|, +Target", other), other  # a list ends without a comma
    assert len(asked) > 3


@pytest.mark.parametrize(
    ("family", "one_of"),
    [
        ("chain_sum", {"What is {}?", "{} = ?", "Calculate {}."}),
        ("products", {"What is {}?", "Calculate {}."}),
    ],
)
def test_people_ask_plainly(family, one_of):
    problem = draw(family, 7)
    told = problem.text.partition(":")[2].partition("Give")[0].strip().rstrip("=.").strip()
    rng = random.Random(0)
    assert one_of <= {asked_otherwise(problem, rng).replace(told, "{}") for _ in range(200)}


def test_a_third_of_the_problems_of_a_training_batch_is_asked_in_other_words():
    tokenizer = train_tokenizer()
    corpus = Corpus(tokenizer, longest=512)
    texts = [
        tokenizer.decode(row)
        for index in range(12)
        for part in corpus.batch(index, 3000, {"products": 1.0})
        for row in part.ids
    ]
    plain = sum("Solve the following multiplication" in text for text in texts) / len(texts)
    assert 0.5 < plain < 0.8
